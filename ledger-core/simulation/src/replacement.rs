//! The one change of members of a run: while things break a fourth node is taken in, and one of the first three goes.
//!
//! Whoever asks for it is an administrator: asks one node that is up, again and again, until it has happened.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledger_node::{Bootstrap, MembershipChange, MembershipError};

use crate::cluster::{Cluster, HarnessError};
use crate::dice::Dice;
use crate::network::Endpoint;

/// When it begins.
const BEGINS_MS: std::ops::RangeInclusive<u64> = 1_000..=8_000;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// An administrator who got no answer asks somebody else after this.
const PATIENCE: Duration = Duration::from_secs(12);

/// What was done. Zero of one in a campaign means that it tested less than it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplacementCounters {
    /// Nodes that were taken in and vote.
    pub added: u64,
    /// Nodes that were taken out.
    pub removed: u64,
    /// Questions that were asked for it.
    pub asked: u64,
}

impl std::ops::AddAssign for ReplacementCounters {
    fn add_assign(&mut self, other: Self) {
        self.added += other.added;
        self.removed += other.removed;
        self.asked += other.asked;
    }
}

type Outcome = Result<MembershipChange, MembershipError>;

/// A question on its way. The node's task holds the other end: when it ends without an answer, so does the question.
struct Asked {
    outcome: Arc<Mutex<Option<Outcome>>>,
    since: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting { begins: Duration },
    Adding,
    Removing { leaver: Endpoint },
    Done,
}

/// A change of members.
pub struct Replacement {
    dice: Dice,
    stage: Stage,
    asked: Option<Asked>,
    next: Duration,
    /// Nodes that are, or are to be, members.
    nodes: Vec<Endpoint>,
    joiner: Endpoint,
    counters: ReplacementCounters,
}

impl Replacement {
    /// `joiner` takes the place of one of `nodes`, some time from now on.
    pub fn new(mut dice: Dice, nodes: Vec<Endpoint>, joiner: Endpoint, now: Duration) -> Self {
        let begins = now + Duration::from_millis(dice.within(BEGINS_MS));
        let (stage, counters) = (Stage::Waiting { begins }, ReplacementCounters::default());
        Self { dice, stage, asked: None, next: begins, nodes, joiner, counters }
    }

    /// Nodes that are, or are to be, members.
    pub fn nodes(&self) -> &[Endpoint] {
        &self.nodes
    }

    /// Whether it has happened.
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// What was done.
    pub fn counters(&self) -> ReplacementCounters {
        self.counters
    }

    /// Does what is due; answers whether the nodes changed.
    ///
    /// # Errors
    /// When the harness fails.
    pub fn step(&mut self, cluster: &mut Cluster) -> Result<bool, HarnessError> {
        let now = cluster.world.now();
        match self.stage {
            Stage::Done => return Ok(false),
            Stage::Waiting { begins } if now < begins => return Ok(false),
            Stage::Waiting { .. } => {
                cluster.boot(self.joiner, Bootstrap::Joined)?;
                self.nodes.push(self.joiner);
                self.stage = Stage::Adding;
                return Ok(true);
            }
            Stage::Adding | Stage::Removing { .. } => {}
        }
        let Some(asked) = &self.asked else {
            if now >= self.next {
                self.ask(cluster, now);
            }
            return Ok(false);
        };
        let outcome = asked.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_lost = Arc::strong_count(&asked.outcome) == 1 || now > asked.since + PATIENCE;
        if outcome.is_some() || is_lost {
            self.asked = None;
            self.next = now + PAUSE;
        }
        match outcome {
            Some(outcome) => self.answered(cluster, &outcome),
            None => Ok(false),
        }
    }

    fn ask(&mut self, cluster: &Cluster, now: Duration) {
        let open: Vec<Endpoint> = self
            .nodes
            .iter()
            .copied()
            .filter(|node| *node != self.joiner && cluster.world.node(*node).is_some())
            .collect();
        if open.is_empty() {
            return;
        }
        let node = *self.dice.choose(&open);
        let Some(ledger) = cluster.world.node(node).and_then(|node| node.ledger().cloned()) else { return };
        self.counters.asked += 1;
        let (stage, outcome) = (self.stage, Arc::default());
        self.asked = Some(Asked { outcome: Arc::clone(&outcome), since: now });
        let joiner = cluster.member(self.joiner).cloned();
        let leaver = match stage {
            Stage::Removing { leaver } => cluster.member(leaver).map(|member| member.identity.node_id),
            _ => None,
        };
        cluster.world.trace().tell(format_args!("{node} is asked to change the members: {stage:?}"), &[]);
        cluster.world.spawn(node, async move {
            let answer = match (leaver, joiner) {
                (Some(leaver), _) => ledger.cluster().remove(leaver).await,
                (None, Some(joiner)) => ledger.cluster().add(joiner).await,
                (None, None) => return,
            };
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        });
    }

    fn answered(&mut self, cluster: &mut Cluster, outcome: &Outcome) -> Result<bool, HarnessError> {
        cluster.world.trace().tell(format_args!("the change of members: {outcome:?}"), &[]);
        match (self.stage, outcome) {
            (Stage::Adding, Ok(MembershipChange::Voter { .. })) => {
                self.counters.added += 1;
                let first: Vec<Endpoint> =
                    self.nodes.iter().copied().filter(|node| *node != self.joiner).collect();
                self.stage = Stage::Removing { leaver: *self.dice.choose(&first) };
            }
            // An attempt whose answer was lost may have done it.
            (
                Stage::Removing { leaver },
                Ok(MembershipChange::Removed { .. }) | Err(MembershipError::NotMember { .. }),
            ) => {
                self.counters.removed += 1;
                self.stage = Stage::Done;
                self.nodes.retain(|node| *node != leaver);
                cluster.crash(leaver)?;
                return Ok(true);
            }
            // It is asked for again.
            _ => {}
        }
        Ok(false)
    }
}

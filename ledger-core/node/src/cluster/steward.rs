//! The leader's care for the membership: one change at a time, votes for those who have caught up, and no vote for
//! those who have fallen silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::membership::{ADD_WAIT, MembershipChange, MembershipError};
use crate::batcher::WriteQueue;
use crate::ordered_watch;
use crate::peers::MemberRecord;
use crate::raft::{Consensus, ConsensusError, Members, Outgoing};
use crate::read_barrier::ReadBarrier;

/// How often a leader looks whether enough voters have answered.
const QUORUM_POLL: Duration = Duration::from_millis(10);
/// Most members, learners included.
const MEMBERS_MAX: usize = 32;
/// A learner this close to the end of the log has caught up.
const CAUGHT_UP_ENTRIES: u64 = 256;
/// How often the leader looks at the members.
const ROUND_INTERVAL: Duration = Duration::from_millis(250);
/// A change that is not committed after this is reported as undecided.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Automatic removal leaves at least so many voters.
const VOTERS_MIN_AUTOMATIC: usize = 3;
/// How long a hand-over waits for the successor to have the whole log, and again for it to lead.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often whoever adds a node looks whether it votes.
const ADD_POLL: Duration = Duration::from_millis(20);
/// How often the end of the log and the successor's are compared while a hand-over waits.
const HAND_OVER_POLL: Duration = Duration::from_millis(1);

/// What the steward works with.
pub(crate) struct StewardParts {
    pub node_id: u64,
    pub consensus: Consensus,
    pub barrier: ReadBarrier,
    pub queue: WriteQueue,
    pub leader: ordered_watch::Receiver<Option<u64>>,
    pub voters_max: usize,
    pub silent_after: Option<Duration>,
    /// A member that has not answered for so long does not count as alive.
    pub alive_within: Duration,
}

/// The steward. Clones share it.
#[derive(Clone)]
pub(crate) struct Steward(Arc<Inner>);

struct Inner {
    parts: StewardParts,
    /// Held during a change.
    changing: Mutex<()>,
}

impl Steward {
    pub fn new(parts: StewardParts) -> Self {
        Self(Arc::new(Inner { parts, changing: Mutex::new(()) }))
    }

    /// Takes a node in and waits until it votes, or until it is clear that it will not soon.
    pub async fn add(&self, member: MemberRecord) -> Result<MembershipChange, MembershipError> {
        let log_index = self.take_in(member.clone()).await?;
        let node_id = member.identity.node_id;
        let deadline = Instant::now() + ADD_WAIT;
        loop {
            let members = self.0.parts.consensus.members();
            if members.voters.contains(&node_id) && !members.is_joint && members.is_committed {
                let log_index = members.log_index.unwrap_or(log_index);
                return Ok(MembershipChange::Voter { node_id, log_index });
            }
            let no_vote_to_give = members.voters.len() >= self.0.parts.voters_max;
            if no_vote_to_give || !self.0.parts.consensus.status().is_leader {
                return Ok(MembershipChange::Learner { node_id, log_index });
            }
            if Instant::now() >= deadline {
                return Ok(MembershipChange::Learner { node_id, log_index });
            }
            tokio::time::sleep(ADD_POLL).await;
        }
    }

    /// Makes a node a learner, or replaces the record of a member; answers where that stands in the log.
    pub async fn take_in(&self, member: MemberRecord) -> Result<u64, MembershipError> {
        let _changing = self.0.changing.lock().await;
        let members = self.0.parts.consensus.members();
        if let Some(log_index) = self.check_addition(&members, &member)? {
            return Ok(log_index);
        }
        let is_new = !members.records.contains_key(&member.identity.node_id);
        if is_new && members.records.len() >= MEMBERS_MAX {
            self.make_room(&members).await?;
        }
        // From here on others may be asked for votes: a read must ask a quorum.
        self.0.parts.barrier.require_quorum();
        self.bounded(|| self.0.parts.consensus.set_learners(vec![member.clone()])).await
    }

    /// `Some` when the member is there just so.
    fn check_addition(
        &self,
        members: &Members,
        member: &MemberRecord,
    ) -> Result<Option<u64>, MembershipError> {
        let node_id = member.identity.node_id;
        match members.records.get(&node_id) {
            Some(Some(known)) if known == member => return Ok(Some(members.log_index.unwrap_or(0))),
            Some(Some(known)) if known.identity != member.identity => {
                return Err(MembershipError::OtherIncarnation { node_id });
            }
            Some(_) => return Ok(None),
            None => {}
        }
        let namesake = members.records.iter().find(|(id, record)| {
            **id != node_id
                && record.as_ref().is_some_and(|known| known.identity.name == member.identity.name)
        });
        if let Some((id, _)) = namesake
            && self.alive().contains(id)
        {
            let name = member.identity.name.to_string();
            return Err(MembershipError::NameTaken { name, node_id: *id });
        }
        Ok(None)
    }

    /// Takes a learner out that does not answer: those that lost their votes by silence stay for as long as there is room.
    async fn make_room(&self, members: &Members) -> Result<(), MembershipError> {
        let alive = self.alive();
        let mut lost =
            members.records.keys().filter(|id| !members.voters.contains(id) && !alive.contains(id));
        let lost = *lost.next().ok_or(MembershipError::TooManyMembers { max: MEMBERS_MAX })?;
        tracing::warn!(node_id = lost, "a learner that does not answer makes room for a new member");
        self.bounded(|| self.0.parts.consensus.remove_learners(BTreeSet::from([lost]))).await.map(drop)
    }

    /// Takes a node out that is not this one.
    pub async fn remove(&self, node_id: u64) -> Result<MembershipChange, MembershipError> {
        let _changing = self.0.changing.lock().await;
        let consensus = &self.0.parts.consensus;
        let members = consensus.members();
        if !members.records.contains_key(&node_id) {
            return Err(MembershipError::NotMember { node_id });
        }
        let log_index = if members.voters.contains(&node_id) {
            let left: BTreeSet<u64> = members.voters.iter().copied().filter(|id| *id != node_id).collect();
            if left.is_empty() {
                return Err(MembershipError::LastVoter { node_id });
            }
            self.check_quorum(&left).await?;
            self.bounded(|| consensus.set_voters(left.clone(), Outgoing::Leaves)).await?
        } else {
            self.bounded(|| consensus.remove_learners(BTreeSet::from([node_id]))).await?
        };
        consensus.clocks().retain(|id| id != node_id);
        Ok(MembershipChange::Removed { node_id, log_index })
    }

    /// Who has just begun to lead may not have heard of the others yet: they get as long as silence may last.
    async fn check_quorum(&self, voters: &BTreeSet<u64>) -> Result<(), MembershipError> {
        let deadline = tokio::time::Instant::now() + self.0.parts.alive_within;
        loop {
            let alive = self.alive().intersection(voters).count();
            if alive > voters.len() / 2 {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(MembershipError::QuorumLost { alive, voters: voters.len() });
            }
            tokio::time::sleep(QUORUM_POLL).await;
        }
    }

    /// This node, and the members that answered lately.
    fn alive(&self) -> BTreeSet<u64> {
        let parts = &self.0.parts;
        let answers = parts.consensus.progress().into_iter();
        let alive =
            answers.filter(|(_, known)| known.silent.is_some_and(|silent| silent <= parts.alive_within));
        alive.map(|(id, _)| id).chain([parts.node_id]).collect()
    }

    /// Hands the lead over; answers who has it.
    pub async fn transfer(&self, to: Option<u64>) -> Result<u64, MembershipError> {
        let parts = &self.0.parts;
        if to == Some(parts.node_id) {
            return Ok(parts.node_id);
        }
        let _changing = self.0.changing.lock().await;
        let to = self.successor(to)?;
        // What is proposed from now on waits for the next leader.
        let _paused = parts.queue.pause();
        let deadline = Instant::now() + HAND_OVER_TIMEOUT;
        while !self.has_whole_log(to) {
            if Instant::now() >= deadline {
                return Err(MembershipError::NoSuccessor);
            }
            tokio::time::sleep(HAND_OVER_POLL).await;
        }
        parts.consensus.hand_over(to).await?;
        let mut leader = parts.leader.clone();
        let others = |leader: &Option<u64>| leader.is_some_and(|id| id != parts.node_id);
        match tokio::time::timeout(HAND_OVER_TIMEOUT, leader.wait_for(others)).await {
            Ok(Ok(leader)) => Ok(leader.unwrap_or(to)),
            Ok(Err(_)) => Err(MembershipError::Unavailable { reason: "the node stops".to_owned() }),
            Err(_) => Err(MembershipError::Unavailable { reason: format!("node {to} does not take over") }),
        }
    }

    /// Hands the lead to the voter with most of the log, without waiting for it to have all: this node can do no more.
    pub async fn hand_over_at_once(&self) {
        if let Ok(to) = self.successor(None) {
            // A node that stops leads no more either.
            let _ = self.0.parts.consensus.hand_over(to).await;
        }
    }

    /// The voter that is asked for, or the one with most of the log.
    fn successor(&self, to: Option<u64>) -> Result<u64, MembershipError> {
        let consensus = &self.0.parts.consensus;
        let members = consensus.members();
        if let Some(to) = to {
            if !members.records.contains_key(&to) {
                return Err(MembershipError::NotMember { node_id: to });
            }
            if !members.voters.contains(&to) {
                return Err(MembershipError::NotVoter { node_id: to });
            }
            return Ok(to);
        }
        let alive = self.alive();
        let progress = consensus.progress();
        let others = members.voters.iter().filter(|id| **id != self.0.parts.node_id && alive.contains(id));
        let best = others.max_by_key(|id| progress.get(id).and_then(|known| known.matched));
        best.copied().ok_or(MembershipError::NoSuccessor)
    }

    fn has_whole_log(&self, node_id: u64) -> bool {
        let consensus = &self.0.parts.consensus;
        let matched = consensus.progress().get(&node_id).and_then(|known| known.matched);
        matched.is_some() && matched >= consensus.status().last_log_index
    }

    /// Tries a change until no other is in its way, but not for ever.
    async fn bounded<F>(&self, change: impl Fn() -> F) -> Result<u64, MembershipError>
    where
        F: Future<Output = Result<u64, ConsensusError>>,
    {
        let attempts = async {
            loop {
                match change().await {
                    Err(ConsensusError::MembershipBusy { .. }) => tokio::time::sleep(ADD_POLL).await,
                    outcome => return outcome,
                }
            }
        };
        match tokio::time::timeout(CHANGE_TIMEOUT, attempts).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => {
                let reason = format!("it is not committed after {CHANGE_TIMEOUT:?}");
                Err(MembershipError::Unavailable { reason })
            }
        }
    }

    /// Looks after the members for as long as this node leads, for ever.
    pub async fn run(self) {
        let mut rounds = tokio::time::interval(ROUND_INTERVAL);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut led_since = None;
        loop {
            rounds.tick().await;
            if !self.0.parts.consensus.status().is_leader {
                led_since = None;
                continue;
            }
            let led_for = led_since.get_or_insert_with(Instant::now).elapsed();
            // An explicit change has precedence; this one comes back.
            let Ok(_changing) = self.0.changing.try_lock() else { continue };
            if let Err(error) = self.round(led_for).await {
                tracing::info!(%error, "the membership stays as it is for now");
            }
        }
    }

    async fn round(&self, led_for: Duration) -> Result<(), MembershipError> {
        let consensus = &self.0.parts.consensus;
        let members = consensus.members();
        if !members.is_committed {
            return Ok(());
        }
        if members.is_joint {
            self.bounded(|| consensus.leave_joint()).await?;
            return Ok(());
        }
        if let Some(gone) = self.superseded_learner(&members) {
            tracing::info!(
                node_id = gone,
                "a learner that another node of its name has replaced is taken out"
            );
            return self.bounded(|| consensus.remove_learners(BTreeSet::from([gone]))).await.map(drop);
        }
        let Some((voters, outgoing)) = self.better_voters(&members, led_for) else { return Ok(()) };
        self.check_quorum(&voters).await?;
        tracing::info!(before = ?members.voters, after = ?voters, "the voters of the cluster change");
        self.0.parts.barrier.require_quorum();
        self.bounded(|| consensus.set_voters(voters.clone(), outgoing)).await.map(drop)
    }

    /// A learner that is silent, and whose name another member has that is not: the same machine with a new directory.
    fn superseded_learner(&self, members: &Members) -> Option<u64> {
        let alive = self.alive();
        let name = |id: &u64| members.records.get(id)?.as_ref().map(|record| &record.identity.name);
        let mut silent =
            members.records.keys().filter(|id| !members.voters.contains(id) && !alive.contains(id));
        let is_superseded = |id: &&u64| {
            name(id).is_some() && alive.iter().any(|other| other != *id && name(other) == name(id))
        };
        silent.find(is_superseded).copied()
    }

    /// The voters after one step of promotion or replacement, and what becomes of the one that goes; `None` = they are as
    /// they should be.
    fn better_voters(&self, members: &Members, led_for: Duration) -> Option<(BTreeSet<u64>, Outgoing)> {
        let learner = self.caught_up_learner(members)?;
        let mut voters = members.voters.clone();
        let name = |id: &u64| members.records.get(id)?.as_ref().map(|record| &record.identity.name);
        let namesake = voters.iter().copied().find(|id| name(id).is_some() && name(id) == name(&learner));
        let silent = self.silent_voter(members, led_for).filter(|_| voters.len() >= VOTERS_MIN_AUTOMATIC);
        let mut outgoing = Outgoing::Learns;
        if let Some(gone) = namesake {
            // The same machine with a new directory: the old one will not come back.
            voters.remove(&gone);
            outgoing = Outgoing::Leaves;
        } else if let Some(gone) = silent {
            tracing::warn!(
                node_id = gone,
                replacement = learner,
                "a silent voter loses its vote to a learner; it stays a learner, and catches up when it is back"
            );
            voters.remove(&gone);
        } else if voters.len() >= self.0.parts.voters_max {
            return None;
        }
        voters.insert(learner);
        Some((voters, outgoing))
    }

    fn caught_up_learner(&self, members: &Members) -> Option<u64> {
        let consensus = &self.0.parts.consensus;
        let last = consensus.status().last_log_index?;
        let progress = consensus.progress();
        let alive = self.alive();
        let learners = members.records.keys().filter(|id| !members.voters.contains(id) && alive.contains(id));
        let is_close = |id: &&u64| {
            let matched = progress.get(id).and_then(|known| known.matched);
            matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last)
        };
        learners.filter(is_close).min().copied()
    }

    /// The voter that has been silent for longest, when it has been for too long.
    fn silent_voter(&self, members: &Members, led_for: Duration) -> Option<u64> {
        let silent_after = self.0.parts.silent_after?;
        let progress = self.0.parts.consensus.progress();
        let silence = |id: &u64| {
            let since_answer = progress.get(id).and_then(|known| known.silent);
            // One that never answered this leader is measured from when it began to lead.
            since_answer.map_or(led_for, |silent| silent.min(led_for))
        };
        let others = members.voters.iter().filter(|id| **id != self.0.parts.node_id);
        let longest = others.map(|id| (silence(id), *id)).max()?;
        (longest.0 >= silent_after).then_some(longest.1)
    }
}

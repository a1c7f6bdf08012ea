//! When to try again, and after how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ClientError, ErrorCode, Refusal};
use crate::nodes::{Destination, Node, Nodes};
use crate::options::RetryPolicy;

/// Longest wait that a server may ask for with `RetryInfo`.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Which failures of a call are worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatable {
    /// The call changes nothing, or is recognised when it comes twice.
    Always,
    /// A second try could do it twice or report its own success as a conflict.
    Never,
}

/// Longest wait between two rounds of asking who leads: an election takes some hundred milliseconds, and this is added.
const ELECTION_POLL_MAX: Duration = Duration::from_millis(75);
/// Most tries of one call, whatever the policy says.
const TRIES_MAX: u32 = 1_000;

/// What a refusal says about the node that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody answered, or the node stops: it is avoided for a while.
    Down,
    /// The node lives, but there is no leader, or it is another.
    NoLeader,
    /// The node has too much work: it said when to come back.
    Busy,
    /// The node has not yet what others have.
    Behind,
    /// Another try would end in the same way.
    Final,
}

impl Fault {
    pub(crate) fn of(refusal: &Refusal) -> Self {
        match (refusal.reason.as_str(), refusal.code) {
            // A fenced vault waits for an administrator, who is slower than any back-off.
            ("VAULT_DIVERGED", _) => Self::Final,
            ("NOT_LEADER" | "NO_LEADER" | "UNAVAILABLE", _) => Self::NoLeader,
            ("HEIGHT_UNAVAILABLE" | "TRUSTED_SIZE_AHEAD" | "VAULT_NOT_FOUND" | "NAMESPACE_NOT_FOUND", _) => {
                Self::Behind
            }
            (_, ErrorCode::Overloaded) => Self::Busy,
            (_, ErrorCode::Unavailable | ErrorCode::DeadlineExceeded) => Self::Down,
            _ => Self::Final,
        }
    }
}

/// The tries of one call, over the nodes of the ledger.
pub(crate) struct Effort {
    destination: Destination,
    started: Instant,
    /// `None` = it goes on as often as it takes.
    deadline: Option<Instant>,
    tries: u32,
    /// Tries whose outcome is unknown.
    unknown_outcomes: u32,
    /// Rounds in which every node that is worth it was asked.
    rounds: u32,
    /// Nodes that were asked in this round.
    asked: Vec<usize>,
    /// Whether a node of this round lives and waits for a leader.
    waits_for_leader: bool,
}

impl Effort {
    /// Begins now and ends after `timeout`.
    pub(crate) fn within(timeout: Duration, destination: Destination) -> Self {
        Self { deadline: Instant::now().checked_add(timeout), ..Self::endless(destination) }
    }

    /// Begins now and goes on while another try can help.
    pub(crate) fn endless(destination: Destination) -> Self {
        Self {
            destination,
            started: Instant::now(),
            deadline: None,
            tries: 0,
            unknown_outcomes: 0,
            rounds: 0,
            asked: Vec::new(),
            waits_for_leader: false,
        }
    }

    /// The node to ask now.
    pub(crate) fn choose(&self, nodes: &Nodes) -> Result<Arc<Node>, ClientError> {
        nodes.choose(self.destination, &self.asked)
    }

    /// The time of the next try: at most `timeout`, and not beyond the end of the call.
    pub(crate) fn time_for_a_try(&self, timeout: Duration) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.map_or(timeout, |left| timeout.min(left))
    }

    /// Takes a refusal in, completes it, and answers the wait before the next try; `None` when it was the last.
    pub(crate) fn wait_after(
        &mut self,
        policy: &RetryPolicy,
        refusal: &mut Refusal,
        repeatable: Repeatable,
        nodes: &Arc<Nodes>,
        node: &Node,
    ) -> Option<Duration> {
        self.tries += 1;
        refusal.tries = self.tries;
        refusal.unknown_outcomes = self.unknown_outcomes;
        if !refusal.nothing_happened {
            self.unknown_outcomes += 1;
        }
        let fault = Fault::of(refusal);
        let led = nodes.leads(node);
        let new_leader = self.tell(nodes, node, fault, refusal);
        let may_repeat = repeatable == Repeatable::Always || refusal.nothing_happened;
        if !may_repeat || self.tries >= TRIES_MAX {
            return None;
        }
        let wait = match fault {
            Fault::Final => None,
            Fault::Behind => self.wait_for_who_is_ahead(policy, refusal, nodes, node, led),
            Fault::Busy => self.wait_for_next_round(policy),
            Fault::Down | Fault::NoLeader => {
                // A node alone that cannot serve is what it is; only an election is worth more patience.
                let is_election = refusal.reason != "UNAVAILABLE" || nodes.count() > 1;
                self.waits_for_leader |= fault == Fault::NoLeader && is_election;
                if new_leader {
                    self.asked.clear();
                }
                let elsewhere = self.wait_elsewhere(policy, nodes, node);
                elsewhere.or_else(|| self.wait_for_next_round(policy))
            }
        };
        let asked_for = match fault {
            // Others may know of a leader meanwhile.
            Fault::NoLeader => Duration::ZERO,
            _ => refusal.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX),
        };
        let in_time =
            |wait: &Duration| self.deadline.is_none_or(|deadline| Instant::now() + *wait < deadline);
        wait.map(|wait| wait.max(asked_for)).filter(in_time)
    }

    /// Tells the nodes what this try showed; answers whether another one leads now.
    fn tell(&self, nodes: &Arc<Nodes>, node: &Node, fault: Fault, refusal: &Refusal) -> bool {
        match fault {
            Fault::Down => nodes.failed(node),
            Fault::NoLeader => {
                nodes.answered(node);
                nodes.no_longer_leads(node);
            }
            Fault::Busy | Fault::Behind | Fault::Final => nodes.answered(node),
        }
        refusal.leader_hint().is_some_and(|hint| nodes.learn(&hint))
    }

    /// Another node can be asked at once: it does not suffer from what this one suffers from.
    fn wait_elsewhere(&mut self, policy: &RetryPolicy, nodes: &Nodes, node: &Node) -> Option<Duration> {
        self.asked.push(node.index);
        // Spread over a tenth of a back-off: the calls of a broken connection fail together.
        nodes.has_another(&self.asked).then(|| policy.backoff_min.mul_f64(0.1 * random_unit()))
    }

    /// What one node does not have yet the leader has, and the others may.
    fn wait_for_who_is_ahead(
        &mut self,
        policy: &RetryPolicy,
        refusal: &Refusal,
        nodes: &Nodes,
        node: &Node,
        led: bool,
    ) -> Option<Duration> {
        self.destination = Destination::Leader;
        let elsewhere = self.wait_elsewhere(policy, nodes, node).filter(|_| !led);
        // A stream that stood has seen that height: it comes back, unless the ledger lost its end.
        let was_there = self.deadline.is_none()
            && matches!(refusal.reason.as_str(), "HEIGHT_UNAVAILABLE" | "TRUSTED_SIZE_AHEAD")
            && self.started.elapsed() < policy.election_patience;
        elsewhere.or_else(|| was_there.then(|| self.wait_for_next_round(policy)).flatten())
    }

    /// All were asked, or the one that counts: the wait before they are asked again.
    fn wait_for_next_round(&mut self, policy: &RetryPolicy) -> Option<Duration> {
        self.rounds += 1;
        self.asked.clear();
        let is_patient =
            std::mem::take(&mut self.waits_for_leader) && self.started.elapsed() < policy.election_patience;
        let wait = policy.backoff(self.rounds, random_unit());
        match is_patient {
            true => Some(wait.min(ELECTION_POLL_MAX)),
            false => (self.rounds < policy.tries_max || self.deadline.is_none()).then_some(wait),
        }
    }
}

impl RetryPolicy {
    /// Back-off after `try_number` tries; `unit` in 0..1 decides the jitter.
    fn backoff(&self, try_number: u32, unit: f64) -> Duration {
        let exponent = i32::try_from(try_number.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.backoff_min.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let capped = grown.min(self.backoff_max.as_secs_f64());
        let jitter = self.jitter.clamp(0.0, 1.0);
        let varied = capped * (1.0 - jitter + 2.0 * jitter * unit);
        Duration::try_from_secs_f64(varied).unwrap_or(self.backoff_max)
    }
}

/// A number in 0..1; the middle when the system has no randomness, which only makes waits equal.
fn random_unit() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ClientOptions;

    fn refusal(code: ErrorCode) -> Refusal {
        Refusal { code, ..Refusal::default() }
    }

    #[test]
    fn waits_double_from_100_ms_to_10_s_and_vary_by_a_quarter() {
        let policy = RetryPolicy { tries_max: 50, ..RetryPolicy::default() };
        assert_eq!(policy.backoff(1, 0.5), Duration::from_millis(100));
        assert_eq!(policy.backoff(2, 0.5), Duration::from_millis(200));
        assert_eq!(policy.backoff(40, 0.5), Duration::from_secs(10));
        assert_eq!(policy.backoff(1, 0.0), Duration::from_millis(75));
        assert_eq!(policy.backoff(1, 1.0), Duration::from_millis(125));
    }

    /// The waits of a call until it gives up.
    fn waits(effort: &mut Effort, refusal: &Refusal, repeatable: Repeatable, urls: &str) -> Vec<Duration> {
        let nodes = Nodes::new(&ClientOptions::new(urls), None, &tokio::runtime::Handle::current())
            .expect("valid options");
        let mut waits = Vec::new();
        while waits.len() < 50 {
            let node = effort.choose(&nodes).expect("a node");
            let policy = RetryPolicy::default();
            match effort.wait_after(&policy, &mut refusal.clone(), repeatable, &nodes, &node) {
                Some(wait) => waits.push(wait),
                None => break,
            }
        }
        waits
    }

    fn call() -> Effort {
        Effort::within(Duration::from_secs(60), Destination::Leader)
    }

    const ALONE: &str = "http://a:1";
    const THREE: &str = "http://a:1,http://b:1,http://c:1";

    #[tokio::test]
    async fn only_transient_failures_of_repeatable_calls_are_tried_again() {
        for code in [ErrorCode::Unavailable, ErrorCode::DeadlineExceeded, ErrorCode::Overloaded] {
            assert_eq!(waits(&mut call(), &refusal(code), Repeatable::Always, ALONE).len(), 2, "{code:?}");
            assert_eq!(waits(&mut call(), &refusal(code), Repeatable::Never, ALONE).len(), 0, "{code:?}");
            assert_eq!(waits(&mut call(), &refusal(code), Repeatable::Never, THREE).len(), 0, "{code:?}");
        }
        for code in
            [ErrorCode::ConditionFailed, ErrorCode::NotFound, ErrorCode::Unauthorized, ErrorCode::Internal]
        {
            for urls in [ALONE, THREE] {
                assert_eq!(waits(&mut call(), &refusal(code), Repeatable::Always, urls).len(), 0, "{code:?}");
            }
        }
    }

    #[tokio::test]
    async fn what_certainly_did_not_happen_is_repeated_whatever_it_is() {
        let refused = Refusal { nothing_happened: true, ..refusal(ErrorCode::Unavailable) };
        assert_eq!(waits(&mut call(), &refused, Repeatable::Never, ALONE).len(), 2);
    }

    #[tokio::test]
    async fn all_nodes_are_asked_at_once_before_a_round_is_waited_for() {
        let waits = waits(&mut call(), &refusal(ErrorCode::Unavailable), Repeatable::Always, THREE);
        // Three of the first round, then the avoided ones once each: five tries.
        assert_eq!(waits.len(), 4, "{waits:?}");
        let backoff_min = RetryPolicy::default().backoff_min;
        assert!(waits[0] <= backoff_min / 10 && waits[1] <= backoff_min / 10, "{waits:?}");
        assert!(waits[2] >= backoff_min.mul_f64(0.75) && waits[3] > waits[2], "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_election_is_waited_for_as_long_as_the_policy_says() {
        let leaderless = Refusal { reason: "NO_LEADER".to_owned(), ..refusal(ErrorCode::Unavailable) };
        for urls in [ALONE, THREE] {
            let mut effort = call();
            let waits = waits(&mut effort, &leaderless, Repeatable::Always, urls);
            assert_eq!(waits.len(), 50, "it goes on");
            assert!(waits.iter().all(|wait| *wait <= ELECTION_POLL_MAX), "{waits:?}");
        }
        let mut effort = call();
        tokio::time::advance(RetryPolicy::default().election_patience).await;
        assert_eq!(waits(&mut effort, &leaderless, Repeatable::Always, ALONE).len(), 2, "no longer patient");
    }

    #[tokio::test(start_paused = true)]
    async fn no_try_begins_after_the_end_of_the_call() {
        let mut effort = call();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(effort.time_for_a_try(Duration::from_secs(30)), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(waits(&mut effort, &refusal(ErrorCode::Unavailable), Repeatable::Always, THREE).is_empty());
    }

    #[tokio::test]
    async fn the_servers_wish_to_wait_is_honoured_up_to_30_s() {
        let asked = |seconds| Refusal {
            retry_after: Some(Duration::from_secs(seconds)),
            ..refusal(ErrorCode::Overloaded)
        };
        let first = |seconds| waits(&mut call(), &asked(seconds), Repeatable::Always, ALONE).first().copied();
        assert_eq!(first(2), Some(Duration::from_secs(2)));
        assert_eq!(first(900), Some(RETRY_AFTER_MAX));
    }
}

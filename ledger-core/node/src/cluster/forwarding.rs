//! Writes and administrative commands that reached a follower, on their way to the leader and back.
//!
//! A lost answer is an error without a decision: the caller repeats the write with its idempotency key.

use std::time::Duration;

use futures::future::join_all;
use ledger_core::command::{Command, Outcome, Receipt};

use super::leader_calls::{AskError, LeaderCalls};
use crate::batcher::{Write, WriteQueue, WriteTarget};
use crate::errors::{NO_LEADER_RETRY_AFTER, RESERVED_ACTORS, WriteError};
use crate::peers::messages::{self, ForwardedFailure, ForwardedWrite, ProposeAnswer, ProposeRequest};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::raft::{Consensus, ConsensusError};
use crate::write_state::DiskFull;

/// How long a follower waits for what it forwarded, as long as the leader stays the same.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends writes to the leader; one answer for each, in order.
pub(crate) async fn forward_writes(
    leader: &LeaderCalls,
    writes: Vec<ForwardedWrite>,
) -> Result<Vec<Result<Receipt, WriteError>>, ConsensusError> {
    let count = writes.len();
    match forward(leader, &ProposeRequest::Writes(writes)).await? {
        ProposeAnswer::Writes(answers) if answers.len() == count => {
            Ok(answers.into_iter().map(|answer| answer.map_err(WriteError::from)).collect())
        }
        _ => Err(other_answer(leader)),
    }
}

/// Sends a command to the leader.
pub(crate) async fn forward_command(
    leader: &LeaderCalls,
    command: Command,
) -> Result<Option<Outcome>, ConsensusError> {
    match forward(leader, &ProposeRequest::Command(Box::new(command))).await? {
        ProposeAnswer::Command(Ok(outcome)) => Ok(outcome.map(|outcome| *outcome)),
        ProposeAnswer::Command(Err(failure)) => Err(failure.into()),
        ProposeAnswer::Writes(_) => Err(other_answer(leader)),
    }
}

async fn forward(leader: &LeaderCalls, request: &ProposeRequest) -> Result<ProposeAnswer, ConsensusError> {
    let undecided = |error: messages::MessageError| ConsensusError::LeaderUnreachable {
        leader: leader.consensus.status().leader.unwrap_or(0),
        reason: error.to_string(),
    };
    let body = messages::encode(request).map_err(undecided)?;
    match leader.ask(PeerMethod::Propose, body, FORWARD_TIMEOUT).await {
        Ok(answer) => messages::decode(&answer).map_err(undecided),
        // Turned away before anything was done.
        Err(AskError::Refused { leader, refusal: PeerRefusal::Busy | PeerRefusal::NotReady { .. } }) => {
            Err(ConsensusError::NotLeader { leader: Some(leader) })
        }
        Err(error) => Err(error.into()),
    }
}

fn other_answer(leader: &LeaderCalls) -> ConsensusError {
    let reason = "it answered something else than what was asked".to_owned();
    ConsensusError::LeaderUnreachable { leader: leader.consensus.status().leader.unwrap_or(0), reason }
}

/// The leader's side. Who asks is a member, and has authenticated the authors.
pub(super) async fn answer(
    consensus: &Consensus,
    queue: &WriteQueue,
    asked: ProposeRequest,
) -> Result<ProposeAnswer, PeerRefusal> {
    let status = consensus.status();
    if !status.is_leader {
        return Err(PeerRefusal::NotLeader { leader: status.leader });
    }
    Ok(match asked {
        ProposeRequest::Writes(writes) => {
            let answers = writes.into_iter().map(|write| answer_write(queue, write));
            ProposeAnswer::Writes(join_all(answers).await)
        }
        ProposeRequest::Command(command) if may_be_forwarded(&command) => {
            let outcome = match queue.switch().admit_command(&command) {
                Ok(()) => consensus.propose(*command).await.map_err(ForwardedFailure::from),
                Err(DiskFull) => Err(ForwardedFailure::DiskFull),
            };
            ProposeAnswer::Command(outcome.map(|outcome| outcome.map(Box::new)))
        }
        ProposeRequest::Command(_) => {
            return Err(PeerRefusal::Refused { reason: "only the leader itself proposes that".to_owned() });
        }
    })
}

async fn answer_write(queue: &WriteQueue, write: ForwardedWrite) -> Result<Receipt, ForwardedFailure> {
    let ForwardedWrite { vault, actor, transaction } = write;
    if actor.as_str().starts_with(RESERVED_ACTORS) {
        let reason = format!("{} is reserved for the ledger itself", actor.as_str());
        return Err(ForwardedFailure::Unavailable { reason });
    }
    let write = Write { target: WriteTarget::Named(vault), actor, transaction };
    queue.write_here(write).await.map_err(ForwardedFailure::from)
}

/// What an administrator asks for, as opposed to what a leader does by itself.
fn may_be_forwarded(command: &Command) -> bool {
    !matches!(
        command,
        Command::Initialise { .. }
            | Command::RaiseHeaderVersion { .. }
            | Command::NameCluster { .. }
            | Command::Write { .. }
    )
}

impl From<WriteError> for ForwardedFailure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => Self::Refused(refusal),
            WriteError::Overloaded { retry_after } => {
                let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
                Self::Overloaded { retry_after_ms }
            }
            WriteError::NoLeader { leader, .. } => Self::NotLeader { leader },
            WriteError::DiskFull => Self::DiskFull,
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<ForwardedFailure> for WriteError {
    fn from(failure: ForwardedFailure) -> Self {
        match failure {
            ForwardedFailure::Refused(refusal) => Self::Refused(refusal),
            ForwardedFailure::Overloaded { retry_after_ms } => {
                Self::Overloaded { retry_after: Duration::from_millis(retry_after_ms) }
            }
            ForwardedFailure::Unavailable { reason } => Self::Unavailable { reason },
            ForwardedFailure::NotLeader { leader } => {
                Self::NoLeader { leader, retry_after: NO_LEADER_RETRY_AFTER }
            }
            ForwardedFailure::DiskFull => Self::DiskFull,
        }
    }
}

impl From<ConsensusError> for ForwardedFailure {
    fn from(error: ConsensusError) -> Self {
        match error {
            ConsensusError::NotLeader { leader } => Self::NotLeader { leader },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl From<ForwardedFailure> for ConsensusError {
    fn from(failure: ForwardedFailure) -> Self {
        match failure {
            ForwardedFailure::NotLeader { leader } => Self::NotLeader { leader },
            ForwardedFailure::Refused(refusal) => Self::Leader { reason: refusal.to_string() },
            ForwardedFailure::Overloaded { retry_after_ms } => {
                Self::Leader { reason: format!("it is busy, try again in {retry_after_ms} ms") }
            }
            ForwardedFailure::Unavailable { reason } => Self::Leader { reason },
            ForwardedFailure::DiskFull => Self::LeaderDiskFull,
        }
    }
}

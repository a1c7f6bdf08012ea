//! A follower makes sure that its leader signs with the key that it holds itself: one that was no part of the cluster while
//! the key was rotated would sign with the old one as soon as it leads.

use std::time::Duration;

use ledger_verify::note::VerifierKey;

use super::LeaderCalls;
use super::leader_calls::AskError;
use crate::errors::OpenError;
use crate::peers::messages::{self, LedgerKeyAnswer, LedgerKeyRequest};
use crate::peers::{PeerMethod, PeerRefusal};
use crate::raft::ConsensusError;

/// How long the leader may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// The keys of this node.
#[derive(Debug, Clone)]
pub(crate) struct KeyCheck {
    pub present: VerifierKey,
    /// Signed before.
    pub retired: Vec<VerifierKey>,
}

/// The check did not come out well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyCheckError {
    /// Nothing was learnt.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// The leader signs with a key that this node lacks.
    #[error(transparent)]
    Rotated(#[from] OpenError),
}

impl KeyCheck {
    /// Asks the leader, which is another node.
    pub async fn run(&self, leader: &LeaderCalls) -> Result<(), KeyCheckError> {
        let stopped = |_| ConsensusError::Stopped;
        let body = messages::encode(&LedgerKeyRequest::Public).map_err(stopped)?;
        let answer = match leader.ask(PeerMethod::LedgerKey, body, ASK_TIMEOUT).await {
            Ok(answer) => answer,
            // A leader of an earlier release does not know the question.
            Err(AskError::Refused { refusal: PeerRefusal::Malformed { .. }, .. }) => return Ok(()),
            Err(error) => return Err(ConsensusError::from(error).into()),
        };
        let Ok(LedgerKeyAnswer::Public { key }) = messages::decode(&answer) else {
            return Err(ConsensusError::Stopped.into());
        };
        let Ok(signs) = key.parse() else { return Err(ConsensusError::Stopped.into()) };
        self.compare(&signs).map_err(KeyCheckError::Rotated)
    }

    fn compare(&self, leaders: &VerifierKey) -> Result<(), OpenError> {
        if *leaders == self.present {
            return Ok(());
        }
        if self.retired.contains(leaders) {
            // It is the leader that missed the rotation.
            tracing::error!(
                %leaders,
                present = %self.present,
                "the leader signs with a key that was retired here: remove that node, and let it join again"
            );
            return Ok(());
        }
        Err(OpenError::KeyRotated { here: self.present.to_string(), leaders: leaders.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use ledger_verify::note::SigningKey;

    use super::*;

    fn key(seed: u8) -> VerifierKey {
        SigningKey::from_seed("strongroom/00000000000000000000000000000001", &[seed; 32])
            .unwrap()
            .verifier_key()
    }

    #[test]
    fn only_a_key_that_was_not_retired_here_is_the_newer_one() {
        let check = KeyCheck { present: key(2), retired: vec![key(1)] };
        assert!(check.compare(&key(2)).is_ok());
        assert!(check.compare(&key(1)).is_ok(), "the leader is behind, not this node");
        assert!(matches!(check.compare(&key(3)), Err(OpenError::KeyRotated { .. })));
    }
}

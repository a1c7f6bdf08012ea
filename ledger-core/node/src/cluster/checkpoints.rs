//! Checkpoints that the leader signs for a follower's reads and snapshots.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::names::VaultId;
use ledger_verify::Hash;
use ledger_verify::note::{SignedCheckpoint, VerifierKey};

use super::LeaderCalls;
use crate::applied_state::AppliedLedger;
use crate::checkpoint_signer::{CheckpointSigner, SignError, SignedTip};
use crate::ordered_watch;
use crate::peers::messages::{self, CheckpointAnswer, CheckpointRequest};
use crate::peers::{PeerMethod, PeerRefusal};

/// How long a follower waits for the leader's answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long either side waits until it has applied what the other one has.
const APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// Most vaults in one question.
const VAULTS_MAX: usize = 1_024;

/// Where a follower gets its checkpoints from.
#[derive(Clone)]
pub(crate) struct LeaderCheckpoints {
    pub leader: LeaderCalls,
    pub ready: ordered_watch::Receiver<bool>,
    pub ledger: Arc<AppliedLedger>,
    pub key: VerifierKey,
}

impl LeaderCheckpoints {
    /// Whether this node leads, and knows that nothing it signed before was lost.
    pub fn leads(&self) -> bool {
        self.is_leader() && *self.ready.borrow()
    }

    /// Whether this node leads, ready or not.
    pub fn is_leader(&self) -> bool {
        self.leader.consensus.status().is_leader
    }

    /// A node that has just begun to lead signs as soon as it is ready.
    pub async fn settle(&self) {
        if self.is_leader() {
            let mut ready = self.ready.clone();
            let _ = tokio::time::timeout(APPLY_TIMEOUT, ready.wait_for(|ready| *ready)).await;
        }
    }

    /// The newest checkpoint of each vault, over at least as many blocks as are asked for, all of them applied here.
    pub async fn newest(
        &self,
        wanted: Vec<(VaultId, u64)>,
        origin: impl Fn(VaultId) -> String,
    ) -> Vec<(VaultId, Result<SignedTip, SignError>)> {
        let vaults: Vec<VaultId> = wanted.iter().map(|(vault, _)| *vault).collect();
        let notes = match self.ask(CheckpointRequest::Newest(wanted), vaults.len()).await {
            Ok(notes) => notes,
            Err(error) => vec![Err(error); vaults.len()],
        };
        let mut answers = Vec::with_capacity(vaults.len());
        for (vault, note) in vaults.into_iter().zip(notes) {
            let answer = match note {
                Ok(note) => self.check(vault, note, &origin(vault)).await,
                Err(error) => Err(error),
            };
            answers.push((vault, answer));
        }
        answers
    }

    /// Checkpoints over exactly these sizes and roots.
    pub async fn exact(&self, tips: Vec<(VaultId, u64, Hash)>) -> Result<Vec<String>, SignError> {
        let count = tips.len();
        self.ask(CheckpointRequest::Exact(tips), count).await?.into_iter().collect()
    }

    async fn ask(
        &self,
        request: CheckpointRequest,
        count: usize,
    ) -> Result<Vec<Result<String, SignError>>, SignError> {
        let failed = |reason: String| SignError::Leader(reason);
        let body = messages::encode(&request).map_err(|error| failed(error.to_string()))?;
        let answer = self.leader.ask(PeerMethod::Checkpoint, body, ASK_TIMEOUT).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let answer: CheckpointAnswer =
            messages::decode(&answer).map_err(|error| failed(error.to_string()))?;
        if answer.notes.len() == count {
            Ok(answer.notes.into_iter().map(|note| note.map_err(SignError::Leader)).collect())
        } else {
            Err(failed("it answered for other vaults".to_owned()))
        }
    }

    /// The note must be the ledger's, and over what this node has applied itself.
    async fn check(&self, vault: VaultId, note: String, origin: &str) -> Result<SignedTip, SignError> {
        let failed = |reason: String| SignError::Leader(reason);
        let keys = [self.key.clone()];
        let checkpoint = SignedCheckpoint::open(&note, &keys).map_err(|error| failed(error.to_string()))?;
        if checkpoint.origin != origin {
            return Err(failed(format!("its checkpoint is of {}", checkpoint.origin)));
        }
        let size = checkpoint.size;
        wait_for_size(&self.ledger, vault, size).await?;
        let state = self.ledger.read().map_err(|_| SignError::Stopped)?;
        let root = state.log_root_at(vault, size).map_err(|error| failed(error.to_string()))?;
        if root == checkpoint.root {
            Ok(SignedTip { size, note })
        } else {
            Err(failed(format!("its blocks of vault {vault} differ from this node's")))
        }
    }
}

/// Waits until a vault has so many blocks here.
async fn wait_for_size(ledger: &AppliedLedger, vault: VaultId, size: u64) -> Result<(), SignError> {
    let mut applied = ledger.subscribe();
    let has_size = || -> Result<bool, SignError> {
        let state = ledger.read().map_err(|_| SignError::Stopped)?;
        match state.tip(vault) {
            Ok(tip) => Ok(tip.size >= size),
            Err(error) => Err(SignError::Leader(error.to_string())),
        }
    };
    let wait = async {
        while !has_size()? {
            applied.changed().await.map_err(|_| SignError::Stopped)?;
        }
        Ok(())
    };
    let late = || SignError::Leader(format!("block {size} of vault {vault} is not applied here yet"));
    tokio::time::timeout(APPLY_TIMEOUT, wait).await.unwrap_or_else(|_| Err(late()))
}

/// The leader's side.
pub(super) async fn answer(
    here: &LeaderCheckpoints,
    signer: &CheckpointSigner,
    asked: CheckpointRequest,
) -> Result<CheckpointAnswer, PeerRefusal> {
    if !here.leads() {
        return Err(PeerRefusal::NotLeader { leader: here.leader.consensus.status().leader });
    }
    let count = match &asked {
        CheckpointRequest::Newest(wanted) => wanted.len(),
        CheckpointRequest::Exact(tips) => tips.len(),
    };
    if count > VAULTS_MAX {
        return Err(PeerRefusal::Malformed { reason: format!("it asks for more than {VAULTS_MAX} vaults") });
    }
    match asked {
        CheckpointRequest::Newest(wanted) => {
            let notes = wanted.into_iter().map(|(vault, size_min)| async move {
                wait_for_size(&here.ledger, vault, size_min).await?;
                signer.checkpoint(vault, size_min).await
            });
            let notes = futures::future::join_all(notes).await.into_iter();
            let text = |answer: Result<Arc<SignedTip>, SignError>| {
                answer.map(|tip| tip.note.clone()).map_err(|error| error.to_string())
            };
            Ok(CheckpointAnswer { notes: notes.map(text).collect() })
        }
        CheckpointRequest::Exact(tips) => {
            let refused = |error: SignError| PeerRefusal::Refused { reason: error.to_string() };
            for (vault, size, root) in &tips {
                wait_for_size(&here.ledger, *vault, *size).await.map_err(refused)?;
                let state = here.ledger.read().map_err(|_| refused(SignError::Stopped))?;
                let ours = state.log_root_at(*vault, *size);
                let ours = ours.map_err(|error| PeerRefusal::Refused { reason: error.to_string() })?;
                if ours != *root {
                    let reason = format!("the blocks of vault {vault} differ at size {size}");
                    return Err(PeerRefusal::Refused { reason });
                }
            }
            let notes = signer.sign_tips(&tips).await.map_err(refused)?;
            Ok(CheckpointAnswer { notes: notes.into_iter().map(Ok).collect() })
        }
    }
}

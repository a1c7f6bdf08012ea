//! Checking and recovering vaults while the node serves: long jobs in short steps, one at a time, on a
//! thread of their own.

use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use ledger_core::command::VaultInfo;
use ledger_core::ledger_state::{
    IntegrityCheck, IntegrityDepth, IntegrityReport, LedgerState, Progress, Recovered, RecoveryRefusal,
    VaultRecovery,
};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::ports::{LogStore, StoreError};
use ledger_verify::Hash;
use tokio::sync::oneshot;

use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::cluster::{Decision, FencedVault, PeerRecoveryError};
use crate::errors::ReadFailure;
use crate::failure::{FailureCell, PanicReport};
use crate::flusher::Flusher;
use crate::ledger::Ledger;
use crate::peers::messages::VaultTip;

/// A caller that meets another's job may ask again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A check or a recovery was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaintenanceError {
    /// There is no such vault.
    #[error("there is no vault {vault}")]
    VaultNotFound {
        /// The vault.
        vault: VaultRef,
    },
    /// Another check or recovery is under way.
    #[error("another check or recovery is under way: try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The vault was not recovered; it stays fenced.
    #[error("vault {vault} was not recovered: {refusal}")]
    NotRecovered {
        /// The vault.
        vault: VaultRef,
        /// Why.
        refusal: RecoveryRefusal,
    },
    /// The vault has something else on this node than on the leader, and the leader's was not taken over; it stays fenced.
    #[error("vault {vault} was not recovered from the leader: {reason}. It stays fenced")]
    NotFromPeer {
        /// The vault.
        vault: VaultRef,
        /// Why.
        reason: String,
    },
    /// The leader's block could not be compared with this node's; the vault stays fenced.
    #[error(
        "vault {vault} was not recovered: the leader's block could not be compared with this node's ({reason}). Try again, \
         or recover it on the leader first"
    )]
    NotCompared {
        /// The vault.
        vault: VaultRef,
        /// Why.
        reason: String,
    },
    /// The state cannot be read.
    #[error(transparent)]
    Read(ReadFailure),
    /// The log store cannot be read.
    #[error("the log store cannot be read: {0}")]
    LogStore(StoreError),
    /// A snapshot of a peer took the place of what was looked at.
    #[error("a snapshot from a peer replaced the state meanwhile: begin anew")]
    Replaced,
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}

impl From<HalfApplied> for MaintenanceError {
    fn from(_: HalfApplied) -> Self {
        Self::Stopped
    }
}

impl Ledger {
    /// Checks that what is stored of a vault is what its blocks say, while reads and writes go on. A vault whose
    /// state is found wrong is fenced.
    ///
    /// # Errors
    /// When there is no such vault, another job is under way, or the store fails.
    pub async fn check_integrity(
        &self,
        vault: &VaultRef,
        depth: IntegrityDepth,
    ) -> Result<IntegrityReport, MaintenanceError> {
        let job = self.job(vault)?;
        let id = job.id;
        let report = self.run_job(async move { job.check(depth) }).await?;
        if report.state_is_wrong {
            self.shared.handles.signer.forget(id);
        }
        Ok(report)
    }

    /// Recovers a fenced vault. On a node that leads or runs alone, and where the leader has the same block, its rows are
    /// made anew from its own blocks, and the fence is lifted when they lead to the newest header. A follower whose blocks
    /// differ, or cannot be used, takes the leader's content over, unless a majority of the voters has what this node
    /// has. Other vaults go on meanwhile.
    ///
    /// # Errors
    /// When there is no such vault, it is not fenced, its blocks cannot be used and no leader's can either: it stays fenced
    /// then.
    pub async fn recover_vault(&self, vault: &VaultRef) -> Result<Recovered, MaintenanceError> {
        let job = self.job(vault)?;
        match self.beside_the_leaders(vault).await? {
            FencedVault::Differs => match self.recover_from_leader(vault).await {
                Err(PeerRecoveryError::LeaderAlone) => self.run_job(job.recover()).await,
                other => other.map_err(|error| not_from_peer(vault, &error)),
            },
            FencedVault::AheadOfLeader { leader } => {
                let reason = format!("this node has more blocks than the leader, which has {leader}");
                Err(MaintenanceError::NotCompared { vault: vault.clone(), reason })
            }
            FencedVault::LeaderSilent => {
                let reason = "the vault is fenced there too, or gone".to_owned();
                Err(MaintenanceError::NotCompared { vault: vault.clone(), reason })
            }
            FencedVault::SameAsMajoritys => self.run_job(job.recover()).await,
            FencedVault::SameAsLeaders => {
                let refused = match self.run_job(job.recover()).await {
                    Err(MaintenanceError::NotRecovered { refusal, .. }) if self.follows() => refusal,
                    other => return other,
                };
                match refused {
                    // The leader's blocks can be used.
                    RecoveryRefusal::Compacted { .. }
                    | RecoveryRefusal::BlockUnusable { .. }
                    | RecoveryRefusal::TipDiffers { .. } => {
                        let recovered = self.recover_from_leader(vault).await;
                        recovered.map_err(|error| not_from_peer(vault, &error))
                    }
                    refusal => Err(MaintenanceError::NotRecovered { vault: vault.clone(), refusal }),
                }
            }
        }
    }

    fn follows(&self) -> bool {
        let cluster = &self.shared.handles.cluster;
        cluster.cluster_id.is_some() && !cluster.consensus.status().is_leader
    }

    /// Recovery from own blocks trusts them. A member that follows asks the leader whether they are the cluster's: a fenced
    /// vault gets no block, so the answer holds until the fence is lifted.
    async fn beside_the_leaders(&self, vault: &VaultRef) -> Result<FencedVault, MaintenanceError> {
        let Some(info) = self.vault(vault).filter(|info| info.fence.is_some() && self.follows()) else {
            return Ok(FencedVault::SameAsLeaders);
        };
        let VaultInfo { id, height, block_hash, state_root, .. } = info;
        let tip = VaultTip { vault: id, height, block_hash, state_root };
        let looked = self.shared.handles.recovery.look_at_fenced(tip, vault.to_string()).await;
        looked.map_err(|error| MaintenanceError::NotCompared {
            vault: vault.clone(),
            reason: error.to_string(),
        })
    }

    async fn recover_from_leader(&self, vault: &VaultRef) -> Result<Recovered, PeerRecoveryError> {
        let from_node = self.shared.handles.recovery.recover(Decision::Operators).await?;
        let info = self.vault(vault).filter(|info| info.fence.is_none());
        let VaultInfo { height, state_root, .. } =
            info.ok_or_else(|| PeerRecoveryError::Refused("it was fenced again, or deleted".to_owned()))?;
        let (blocks, rows_repaired, entries_resumed) = (0, 0, 0);
        let from_node = Some(from_node);
        Ok(Recovered { height, state_root, blocks, rows_repaired, entries_resumed, from_node })
    }

    fn job(&self, vault: &VaultRef) -> Result<Job, MaintenanceError> {
        let handles = &self.shared.handles;
        let id = handles.ledger.read()?.vault_id(vault);
        let id = id.ok_or_else(|| MaintenanceError::VaultNotFound { vault: vault.clone() })?;
        Ok(Job {
            vault: vault.clone(),
            id,
            replacements: handles.ledger.replacements(),
            ledger: Arc::clone(&handles.ledger),
            flusher: handles.flusher.clone(),
            flush_bytes: self.shared.options.flush_bytes,
            log_store: Arc::clone(&handles.log_store),
        })
    }

    /// Runs a job to its end, also when the caller goes away.
    async fn run_job<T: Send + 'static>(
        &self,
        job: impl Future<Output = Result<T, MaintenanceError>> + Send + 'static,
    ) -> Result<T, MaintenanceError> {
        let busy = || MaintenanceError::Busy { retry_after: RETRY_AFTER };
        let permit = Arc::clone(&self.shared.maintenance).try_acquire_owned().map_err(|_| busy())?;
        let (sender, answer) = oneshot::channel();
        let failure: FailureCell = self.shared.failure.clone();
        let body = move || {
            let _report = PanicReport(failure);
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
                let done = runtime.block_on(job);
                // Whoever has the answer may begin the next job.
                drop(permit);
                // Whoever asked may be gone; the job is done all the same.
                let _ = sender.send(done);
            }
        };
        let thread = std::thread::Builder::new().name("ledger-maintenance".to_owned());
        thread.spawn(body).map_err(|_| busy())?;
        answer.await.unwrap_or(Err(MaintenanceError::Stopped))
    }
}

fn not_from_peer(vault: &VaultRef, error: &PeerRecoveryError) -> MaintenanceError {
    match error {
        PeerRecoveryError::Busy => MaintenanceError::Busy { retry_after: RETRY_AFTER },
        PeerRecoveryError::Stopped => MaintenanceError::Stopped,
        error => MaintenanceError::NotFromPeer { vault: vault.clone(), reason: error.to_string() },
    }
}

struct Job {
    vault: VaultRef,
    id: VaultId,
    /// How often the state had been replaced when the job began.
    replacements: u64,
    ledger: Arc<AppliedLedger>,
    flusher: Flusher,
    flush_bytes: usize,
    log_store: Arc<dyn LogStore>,
}

impl Job {
    /// The state, as long as it is the one that the job is about.
    fn state(&self) -> Result<RwLockReadGuard<'_, LedgerState>, MaintenanceError> {
        let state = self.ledger.read()?;
        self.check_same()?;
        Ok(state)
    }

    fn state_to_change(&self) -> Result<RwLockWriteGuard<'_, LedgerState>, MaintenanceError> {
        let state = self.ledger.write()?;
        self.check_same()?;
        Ok(state)
    }

    /// Under the state's lock.
    fn check_same(&self) -> Result<(), MaintenanceError> {
        if self.ledger.replacements() == self.replacements { Ok(()) } else { Err(MaintenanceError::Replaced) }
    }

    fn check(self, depth: IntegrityDepth) -> Result<IntegrityReport, MaintenanceError> {
        let read_failed = |error| MaintenanceError::Read(ReadFailure::of(error, &self.vault));
        let mut check = IntegrityCheck::start(&*self.state()?, self.id, depth).map_err(read_failed)?;
        while check.step(&*self.state()?).map_err(read_failed)? == Progress::More {
            std::thread::yield_now();
        }
        let report = check.into_report();
        if report.state_is_wrong && report.fence.is_none() {
            let first = report.issues.first().map_or("", |issue| issue.what.as_str());
            let what = format!("an integrity check found {} issues, the first: {first}", report.issue_count);
            tracing::error!(vault = %self.vault, %what, "the vault is fenced");
            let fenced = self.state_to_change()?.fence_vault(self.id, &what);
            fenced.map_err(|error| MaintenanceError::Read(ReadFailure::State(error)))?;
        }
        Ok(report)
    }

    async fn recover(self) -> Result<Recovered, MaintenanceError> {
        let vault = self.vault.clone();
        let refused = |refusal| MaintenanceError::NotRecovered { vault: vault.clone(), refusal };
        let mut recovery = VaultRecovery::start(&*self.state()?, self.id).map_err(refused)?;
        while recovery.is_replaying() {
            recovery.replay(&*self.state()?).map_err(refused)?;
        }
        loop {
            let (progress, overlay_bytes) = {
                let mut state = self.state_to_change()?;
                (recovery.repair(&mut state).map_err(refused)?, state.overlay_bytes())
            };
            if progress == Progress::Done {
                break;
            }
            if overlay_bytes >= self.flush_bytes {
                self.flush().await?;
            }
        }
        // A corrupt row fails scans for as long as it stands in the store.
        self.flush().await?;
        let signed = self.signed()?;
        let recovered = recovery.finish(&mut *self.state_to_change()?, signed).map_err(refused)?;
        tracing::warn!(
            vault = %self.vault,
            height = recovered.height,
            rows_repaired = recovered.rows_repaired,
            entries_resumed = recovered.entries_resumed,
            "the vault was recovered from its blocks"
        );
        Ok(recovered)
    }

    /// Size and root of the newest checkpoint that was, or may have been, signed of the vault.
    fn signed(&self) -> Result<Option<(u64, Hash)>, MaintenanceError> {
        let snapshot = self.log_store.snapshot().map_err(MaintenanceError::LogStore)?;
        let of_vault = snapshot.signed.iter().find(|mark| mark.vault == self.id);
        Ok(of_vault.map(|mark| (mark.size, mark.root)))
    }

    /// Waits until everything that is applied now is in the state store.
    async fn flush(&self) -> Result<(), MaintenanceError> {
        // The round that ends next may have begun before.
        for _ in 0..2 {
            let mut rounds = self.flusher.rounds();
            if self.flusher.has_ended() {
                return Err(MaintenanceError::Stopped);
            }
            self.flusher.request();
            rounds.changed().await.map_err(|_| MaintenanceError::Stopped)?;
        }
        if self.flusher.has_ended() { Err(MaintenanceError::Stopped) } else { Ok(()) }
    }
}

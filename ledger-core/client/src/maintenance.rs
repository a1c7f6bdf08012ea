//! Checking and recovering vaults, and collecting garbage. All need an admin token.

use std::time::Duration;

use ledger_core::names::VaultRef;
use ledger_proto::v1;
use ledger_verify::Hash;

use crate::admin::admin;
use crate::client::{LedgerClient, Manner};
use crate::error::ClientError;
use crate::nodes::Destination;
use crate::retry::Repeatable;
use crate::wire;

/// Time for a check or a recovery: both read every block of a vault.
const LONG_CALL_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Why a vault is fenced: what is stored of it does not fit its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultFence {
    /// Height of its newest block.
    pub height: u64,
    /// State root in the header of that block.
    pub expected_root: Hash,
    /// State root over the stored rows; `None` = they cannot be read.
    pub computed_root: Option<Hash>,
    /// For people.
    pub what: String,
    /// Log time when it was noticed, unix milliseconds.
    pub since_ms: u64,
}

/// How much a check reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityDepth {
    /// The newest blocks and the roots.
    Quick,
    /// Every block and every row.
    Full,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityIssue {
    /// `chain_break`, `state_divergence`, `missing_block`, `missing_entry`, `archive_error` or `read_error`.
    pub kind: String,
    /// The block that it concerns; for a row the newest one.
    pub height: u64,
    /// For people.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntegrityReport {
    /// Height of the newest block when the check began.
    pub height: u64,
    /// Blocks that were read.
    pub blocks: u64,
    /// Rows of the state that were compared.
    pub rows: u64,
    /// What does not fit, at most 100.
    pub issues: Vec<IntegrityIssue>,
    /// How many issues there are.
    pub issue_count: u64,
    /// Whether the vault is fenced now.
    pub fenced: bool,
}

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredVault {
    /// Height of the newest block.
    pub height: u64,
    /// State root there.
    pub state_root: Hash,
    /// Blocks that were replayed.
    pub blocks: u64,
    /// Rows that were written or removed.
    pub rows_repaired: u64,
    /// Log entries whose writes had waited.
    pub entries_resumed: u64,
    /// The node whose content was taken over; `None` = it was made anew from the node's own blocks.
    pub from_node_id: Option<u64>,
}

impl LedgerClient {
    /// Checks that what is stored of a vault is what its blocks say. Waits for an hour at most.
    pub async fn check_integrity(
        &self,
        vault: &VaultRef,
        depth: IntegrityDepth,
    ) -> Result<IntegrityReport, ClientError> {
        let full = depth == IntegrityDepth::Full;
        let request = v1::CheckIntegrityRequest { vault: wire::vault_ref(vault), full };
        let send = |channel, request| async move { admin(channel).check_integrity(request).await };
        let answer = self.call_as(long_call(Repeatable::Always), request, send).await?;
        let issue = |issue: v1::IntegrityIssue| IntegrityIssue {
            kind: issue.kind,
            height: issue.height,
            what: issue.what,
        };
        Ok(IntegrityReport {
            height: answer.height,
            blocks: answer.blocks,
            rows: answer.rows,
            issues: answer.issues.into_iter().map(issue).collect(),
            issue_count: answer.issue_count,
            fenced: answer.fenced,
        })
    }

    /// Makes the rows of a fenced vault anew from its blocks, on the node that this client is for: name one URL and set
    /// [`UnlistedNodes::Ignore`](crate::UnlistedNodes::Ignore), or the leader answers. A follower whose blocks differ from
    /// its leader's takes the leader's content over. Waits for an hour at most.
    pub async fn recover_vault(&self, vault: &VaultRef) -> Result<RecoveredVault, ClientError> {
        let request = v1::RecoverVaultRequest { vault: wire::vault_ref(vault) };
        let send = |channel, request| async move { admin(channel).recover_vault(request).await };
        let answer = self.call_as(long_call(Repeatable::Never), request, send).await?;
        Ok(RecoveredVault {
            height: answer.height,
            state_root: wire::hash_from(&answer.state_root, "a recovered vault's state root")?,
            blocks: answer.blocks,
            rows_repaired: answer.rows_repaired,
            entries_resumed: answer.entries_resumed,
            from_node_id: Some(answer.from_node_id).filter(|id| *id != 0),
        })
    }

    /// Expires now what has expired; answers how many entities.
    pub async fn force_gc(&self) -> Result<u64, ClientError> {
        let send = |channel, request| async move { admin(channel).force_gc(request).await };
        let answer = self.call(Repeatable::Always, v1::ForceGcRequest {}, send).await?;
        Ok(answer.entities_expired)
    }
}

fn long_call(repeatable: Repeatable) -> Manner {
    Manner { timeout: LONG_CALL_TIMEOUT, repeatable, destination: Destination::Leader }
}

pub(crate) fn fence_from(fence: v1::VaultFence) -> Result<VaultFence, ClientError> {
    let computed_root = match fence.computed_root.is_empty() {
        true => None,
        false => Some(wire::hash_from(&fence.computed_root, "a fenced vault's root")?),
    };
    Ok(VaultFence {
        height: fence.height,
        expected_root: wire::hash_from(&fence.expected_root, "a fenced vault's root")?,
        computed_root,
        what: fence.what,
        since_ms: fence.since_ms,
    })
}

//! Watching a vault: its blocks in order, those that are there and those that come.
//!
//! A watch is a place in the vault's log, not a queue: it reads the block at its height from the state
//! when it is asked for the next one, and waits when there is none. So it misses no height however slow
//! its reader is, takes no memory while it waits, and history runs into the present without a seam.

use bytes::Bytes;
use ledger_core::command::VaultInfo;
use ledger_core::ledger_state::{LedgerState, ReadError};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::relationship::Resource;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::transaction::{self, ActionRef, RESULT_CREATED, RESULT_DELETED, RESULT_UPDATED};
use tokio::sync::watch;

use crate::counters::add;
use crate::errors::ReadFailure;
use crate::ledger::Ledger;
use crate::ordered_watch;
use crate::reads::consistency;

/// Blocks that a filter may pass over before other tasks get a turn.
const BLOCKS_PER_TURN: u32 = 32;

/// What to watch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchRequest {
    /// The first height wanted: 0 = from the beginning; the newest height + 1 = what comes.
    pub from: u64,
    /// Which blocks.
    pub filter: WatchFilter,
    /// How much of each.
    pub content: WatchContent,
    /// Whether each proves that it stands in the log.
    pub proofs: WatchProofs,
}

/// Which blocks a watch returns: those with a transaction that changed something of this kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WatchFilter {
    /// Every block.
    #[default]
    All,
    /// Entities.
    Entities {
        /// Those whose key starts with this; empty = all.
        prefix: String,
    },
    /// Relationships.
    Relationships {
        /// Those of this resource; `None` = all.
        resource: Option<Resource>,
    },
}

/// How much of a block a watch returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchContent {
    /// Its header. Headers can be watched from any height.
    #[default]
    Header,
    /// Its header and, of its transactions, those that the filter chose.
    Transactions,
}

/// Whether blocks come with inclusion proofs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchProofs {
    /// No.
    #[default]
    Without,
    /// Each with a signed checkpoint that covers it, and the path to it.
    Inclusion {
        /// Size of the last checkpoint that the caller trusts, 0 = none: the first one of the watch comes with
        /// the proof that it extends that one.
        trusted_size: u64,
    },
}

/// A block as a watch returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchedBlock {
    /// Its header.
    pub header: BlockHeader,
    /// RFC 6962 leaf hash of the header.
    pub block_hash: Hash,
    /// Canonical transactions with their index in the block.
    pub transactions: Vec<(u32, Bytes)>,
    /// The proof, when it was asked for.
    pub inclusion: Option<Inclusion>,
}

/// Proof that a header stands in the log of its vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    /// The signed note.
    pub checkpoint: String,
    /// RFC 6962 inclusion path of the header, at its height, under the checkpoint.
    pub path: Vec<Hash>,
    /// RFC 6962 consistency path from the checkpoint before, of this watch or the one that the caller trusted;
    /// empty when it is the same, or there was none.
    pub consistency: Vec<Hash>,
}

/// A place in the log of a vault. It keeps the ledger open.
#[derive(Debug)]
pub struct BlockWatch {
    ledger: Ledger,
    vault: VaultRef,
    id: VaultId,
    request: WatchRequest,
    next: u64,
    /// Size of the last checkpoint that the reader has; 0 = none.
    proved_size: u64,
    applied: ordered_watch::Receiver<u64>,
    ended: watch::Receiver<()>,
}

/// A block before its filter.
struct Candidate {
    header: BlockHeader,
    body: Vec<Bytes>,
}

impl Ledger {
    /// Watches the blocks of a vault from a height on.
    pub fn watch(&self, vault: &VaultRef, request: WatchRequest) -> Result<BlockWatch, ReadFailure> {
        let applied = self.shared.handles.ledger.subscribe();
        let id = self.at_once(vault, |state, info| check_start(state, info, &request))?;
        add(&self.shared.counters.watches, 1);
        Ok(BlockWatch {
            ledger: self.clone(),
            vault: vault.clone(),
            id,
            next: request.from,
            proved_size: request.proofs.trusted_size(),
            request,
            applied,
            ended: self.shared.thread.ended.clone(),
        })
    }
}

fn check_start(state: &LedgerState, info: &VaultInfo, request: &WatchRequest) -> Result<VaultId, ReadError> {
    let from = request.from;
    if from > info.height.saturating_add(1) {
        return Err(ReadError::HeightUnavailable { asked: from, height: info.height });
    }
    let first = state.first_height(info.id)?;
    if request.needs_bodies() && from < first {
        return Err(ReadError::Compacted { asked: from, first });
    }
    Ok(info.id)
}

impl BlockWatch {
    /// The vault's identity: a vault that gets the same name later is another one, and ends the watch.
    pub fn vault_id(&self) -> VaultId {
        self.id
    }

    /// The next height: a new watch from here misses nothing.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// Height of the newest block, for who wants to know how far behind the watch is.
    pub fn tip(&self) -> Result<u64, ReadFailure> {
        self.ledger.of_vault(&self.vault, |state| Ok(state.tip(self.id)?.header.height))
    }

    /// The next block that the filter lets through; waits for it. May be dropped and called again at any
    /// time: no block is lost.
    ///
    /// # Errors
    /// The vault was deleted, retention dropped the next block before it was read, or the node stops.
    pub async fn next(&mut self) -> Result<WatchedBlock, ReadFailure> {
        let mut passed = 0;
        loop {
            // Marked as seen before the look: what is applied after it wakes the wait below.
            self.applied.mark_unchanged();
            let Some(candidate) = self.look()? else {
                self.wait().await?;
                continue;
            };
            if let Some(block) = self.request.choose(candidate) {
                let (block, proved_size) = self.prove(block).await?;
                self.proved_size = proved_size;
                self.next = block.header.height + 1;
                add(&self.ledger.shared.counters.blocks_watched, 1);
                return Ok(block);
            }
            self.next += 1;
            passed += 1;
            if passed % BLOCKS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn look(&self) -> Result<Option<Candidate>, ReadFailure> {
        self.ledger.of_vault(&self.vault, |state| {
            if !self.request.needs_bodies() {
                let header = state.header(self.id, self.next)?;
                return Ok(header.map(|header| Candidate { header, body: Vec::new() }));
            }
            let block = state.block(self.id, self.next)?;
            Ok(block.map(|block| Candidate { header: block.header, body: block.transactions }))
        })
    }

    async fn wait(&mut self) -> Result<(), ReadFailure> {
        tokio::select! {
            changed = self.applied.changed() => changed.map_err(|_| ReadFailure::Stopped),
            // The thread has ended: nothing comes any more.
            _ = self.ended.changed() => Err(ReadFailure::Stopped),
            _ = self.ledger.shared.failure.wait() => Err(ReadFailure::Stopped),
        }
    }

    /// Adds the proof that was asked for; answers also the size of the checkpoint that the reader has then.
    async fn prove(&self, mut block: WatchedBlock) -> Result<(WatchedBlock, u64), ReadFailure> {
        if self.request.proofs == WatchProofs::Without {
            return Ok((block, 0));
        }
        let height = block.header.height;
        let trusted_size = self.proved_size;
        let size = self.tip()? + 1;
        if trusted_size > size {
            return Err(ReadFailure::TrustedSizeAhead { trusted_size, size });
        }
        let signed = self.ledger.signed(&self.vault, self.id, trusted_size.max(height + 1)).await?;
        let (path, path_between) = self.ledger.of_vault(&self.vault, |state| {
            let path = state.inclusion_path(self.id, height, signed.size)?;
            Ok((path, consistency(state, self.id, trusted_size, signed.size)?))
        })?;
        let consistency =
            path_between.ok_or(ReadFailure::TrustedSizeAhead { trusted_size, size: signed.size })?;
        block.inclusion = Some(Inclusion { checkpoint: signed.note.clone(), path, consistency });
        Ok((block, signed.size))
    }
}

impl WatchProofs {
    fn trusted_size(self) -> u64 {
        match self {
            Self::Without => 0,
            Self::Inclusion { trusted_size } => trusted_size,
        }
    }
}

impl WatchRequest {
    fn needs_bodies(&self) -> bool {
        self.filter != WatchFilter::All || self.content == WatchContent::Transactions
    }

    /// The block as it is returned; `None` when the filter passes over it.
    fn choose(&self, candidate: Candidate) -> Option<WatchedBlock> {
        let header = candidate.header;
        let indexed = (0_u32..).zip(candidate.body);
        let chosen: Vec<(u32, Bytes)> = match &self.filter {
            WatchFilter::All => indexed.collect(),
            filter => indexed.filter(|(_, transaction)| filter.matches(transaction)).collect(),
        };
        if chosen.is_empty() && self.filter != WatchFilter::All {
            return None;
        }
        let transactions = if self.content == WatchContent::Transactions { chosen } else { Vec::new() };
        Some(WatchedBlock { header, block_hash: header.leaf_hash(), transactions, inclusion: None })
    }
}

impl WatchFilter {
    /// Whether a transaction changed something that is watched. What does not decode is not passed over.
    fn matches(&self, transaction: &[u8]) -> bool {
        let Ok(view) = transaction::decode(transaction) else { return true };
        let is_change = |result| matches!(result, RESULT_CREATED | RESULT_UPDATED | RESULT_DELETED);
        view.operations.iter().any(|operation| is_change(operation.result) && self.covers(&operation.action))
    }

    fn covers(&self, action: &ActionRef<'_>) -> bool {
        match (self, action) {
            (Self::All, _) => true,
            (
                Self::Entities { prefix },
                ActionRef::SetEntity { key, .. }
                | ActionRef::DeleteEntity { key }
                | ActionRef::ExpireEntity { key },
            ) => key.starts_with(prefix.as_str()),
            (
                Self::Relationships { resource },
                ActionRef::CreateRelationship(tuple) | ActionRef::DeleteRelationship(tuple),
            ) => resource.as_ref().is_none_or(|resource| resource.as_str() == tuple.resource),
            _ => false,
        }
    }
}

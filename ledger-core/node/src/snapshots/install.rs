//! From a snapshot file to the state of a running node: verified, stored beside the present content, loaded, and then
//! put in its place at once.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::ledger_state::{LedgerState, StateError};
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{AppliedState, LogId, RowChange, StateInstall, StateStore, StoreError};
use ledger_core::snapshot::{self, Header, Progress, SnapshotError};
use ledger_verify::note::VerifierKey;

use super::incoming::Offered;
use crate::applied_state::{AppliedLedger, HalfApplied};
use crate::blocking_work::BlockingWork;
use crate::flusher::Flusher;
use crate::log_writer::LogWriter;

/// Bytes of rows that go to the store at a time (1 MiB).
const PUT_BYTES: usize = 1 << 20;

/// A snapshot was not installed; the state is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// It is no sound snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    #[error("the file is not the snapshot that was offered: {what}")]
    NotThatOffered { what: &'static str },
    #[error("the snapshot is of ledger {theirs}, this node has ledger {ours}")]
    OtherLedger { ours: LedgerId, theirs: LedgerId },
    #[error("the rows of the snapshot are more than its trailer says")]
    MoreThanAnnounced,
    /// What was stored does not load.
    #[error("the snapshot does not load: {0}")]
    State(#[source] StateError),
    #[error("vault {vault} of the snapshot does not fit its blocks")]
    Fenced { vault: VaultId },
    #[error("entry {applied} is applied already, the snapshot ends at {last}")]
    Older { applied: u64, last: u64 },
    /// The store of this node.
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the log cannot be written: {0}")]
    Log(#[source] Arc<StoreError>),
    #[error(transparent)]
    HalfApplied(#[from] HalfApplied),
    #[error("the node stops")]
    Stopped,
}

impl InstallError {
    /// Whether the file itself is at fault: the same one would fail again.
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Snapshot(error) => {
                !matches!(error, SnapshotError::Io(_) | SnapshotError::Sink(_) | SnapshotError::Cancelled)
            }
            Self::NotThatOffered { .. }
            | Self::OtherLedger { .. }
            | Self::MoreThanAnnounced
            | Self::State(_)
            | Self::Fenced { .. } => true,
            _ => false,
        }
    }
}

/// What a node installs snapshots with.
pub(crate) struct Installer {
    pub store: Arc<dyn StateStore>,
    pub ledger: Arc<AppliedLedger>,
    pub flusher: Flusher,
    pub log_writer: LogWriter,
    pub ledger_id: LedgerId,
    /// The key of the ledger's checkpoints.
    pub key: VerifierKey,
    pub blocking: BlockingWork,
}

/// A snapshot that was verified, stored beside the present content, and loaded.
pub(crate) struct PreparedSnapshot {
    pub header: Header,
    pub(super) install: Box<dyn StateInstall>,
    /// As it is loaded from the stored content; it stands on that content until the store has it.
    pub(super) state: LedgerState,
}

impl std::fmt::Debug for PreparedSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedSnapshot").field("applied", &self.header.applied).finish_non_exhaustive()
    }
}

impl Installer {
    /// Verifies a file and makes of it a content that waits to be put in place. Takes as long as reading all of it;
    /// `watch` may break it off.
    pub fn prepare(
        &self,
        mut file: File,
        offered: &Offered,
        watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<PreparedSnapshot, InstallError> {
        let summary = snapshot::summarise(&mut file)?;
        let header = &summary.header;
        if header.ledger_id != self.ledger_id {
            return Err(InstallError::OtherLedger { ours: self.ledger_id, theirs: header.ledger_id });
        }
        if summary.file_bytes != offered.bytes || summary.sha256 != offered.id {
            return Err(InstallError::NotThatOffered { what: "its length or its SHA-256 differs" });
        }
        let same_end = header.applied.term == offered.last.term && header.applied.index == offered.last.index;
        if !same_end {
            return Err(InstallError::NotThatOffered { what: "it ends at another log entry" });
        }
        // Nobody can sign for a vault whose rows are wrong; the member that sends it is known.
        let fenced = header.vaults.iter().any(|entry| entry.fenced);
        let keys = if fenced { &[][..] } else { std::slice::from_ref(&self.key) };
        let mut rows = Rows {
            install: self.store.begin_install()?,
            batch: Vec::new(),
            batch_bytes: 0,
            bytes_left: summary.trailer.plain_bytes,
            too_many: false,
        };
        io::Seek::rewind(&mut file)?;
        let verified = snapshot::restore(
            io::BufReader::with_capacity(PUT_BYTES, file),
            keys,
            &mut |_, row| rows.put(row),
            watch,
        );
        if rows.too_many {
            return Err(InstallError::MoreThanAnnounced);
        }
        let verified = verified?;
        let applied = AppliedState {
            last_applied: verified.header.applied,
            membership: Bytes::copy_from_slice(&verified.header.membership),
        };
        let install = rows.seal(&applied)?;
        let state = LedgerState::load_staged(install.view()?).map_err(InstallError::State)?;
        check_fences(&state, &verified.header)?;
        Ok(PreparedSnapshot { header: verified.header, install, state })
    }

    /// Puts a snapshot in the place of what is applied: log first, then store and state at once.
    pub async fn publish(&self, prepared: PreparedSnapshot) -> Result<(), InstallError> {
        let PreparedSnapshot { header, install, mut state } = prepared;
        state.stand_on(Arc::clone(&self.store));
        let last = header.applied;
        let applied = self.applied()?;
        if let Some(applied) = applied.filter(|applied| applied.index >= last.index) {
            return Err(InstallError::Older { applied: applied.index, last: last.index });
        }
        // A restart finds a state that is ahead of the log's entries, and a log that knows why.
        self.log_writer.write_applied(last).await.map_err(InstallError::Log)?;
        let pause = self.flusher.pause().await;
        let ledger = Arc::clone(&self.ledger);
        let replace = move || {
            let before = ledger.replace(state, || -> Result<(), InstallError> { Ok(install.publish()?) });
            // Outside all locks: it has as many nodes as the ledger had keys.
            before.map(drop)
        };
        self.blocking.long("ledger-install", replace).await??;
        pause.end(AppliedState { last_applied: last, membership: Bytes::from(header.membership) });
        Ok(())
    }

    /// The newest entry that is applied.
    pub fn applied(&self) -> Result<Option<LogId>, HalfApplied> {
        Ok(self.ledger.read()?.last_applied())
    }
}

/// What was verified may not be fenced, unless it came fenced.
fn check_fences(state: &LedgerState, header: &Header) -> Result<(), InstallError> {
    let expected = header.vaults.iter().filter(|entry| entry.fenced).count() as u64;
    if state.fenced_count() == expected {
        return Ok(());
    }
    let sound = header.vaults.iter().filter(|entry| !entry.fenced);
    match sound.map(|entry| entry.id).find(|id| state.tip(*id).is_err()) {
        Some(vault) => Err(InstallError::Fenced { vault }),
        None => Ok(()),
    }
}

/// Rows on their way into the store.
struct Rows {
    install: Box<dyn StateInstall>,
    batch: Vec<RowChange>,
    batch_bytes: usize,
    bytes_left: u64,
    too_many: bool,
}

impl Rows {
    fn put(&mut self, row: RowChange) -> Result<(), StoreError> {
        let bytes = row.key.len() + row.value.as_ref().map_or(0, Bytes::len);
        let Some(left) = self.bytes_left.checked_sub(bytes as u64) else {
            self.too_many = true;
            return Err(StoreError::Poisoned);
        };
        self.bytes_left = left;
        self.batch_bytes += bytes;
        self.batch.push(row);
        if self.batch_bytes >= PUT_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.install.put(&self.batch)?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }

    fn seal(mut self, applied: &AppliedState) -> Result<Box<dyn StateInstall>, StoreError> {
        self.write()?;
        self.install.seal(applied)?;
        Ok(self.install)
    }
}

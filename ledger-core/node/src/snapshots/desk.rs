//! Which snapshot a follower gets: the newest file that the log goes on from, or a new one.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ports::LogId;
use ledger_core::snapshot::{SnapshotError, summarise};
use ledger_verify::Hash;

use super::folder::StoredSnapshot;
use super::maker::{SnapshotFailure, SnapshotMaker};
use super::sender::SnapshotToSend;

/// How often is looked whether the snapshot that is being written is done.
const WRITING_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Files that peers refused and that are not offered again; the oldest is forgotten first.
const REFUSED_MAX: usize = 16;

/// Chooses snapshots for followers. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SnapshotDesk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Set once the node has opened.
    maker: OnceLock<SnapshotMaker>,
    refused: Mutex<BTreeSet<Hash>>,
}

impl SnapshotDesk {
    pub fn set_maker(&self, maker: SnapshotMaker) {
        // There is one maker in the life of a node.
        let _ = self.0.maker.set(maker);
    }

    /// The newest file that ends at or behind `from` and not behind `to`, if there is one of this ledger's history.
    pub fn newest(&self, from: Option<u64>, to: u64) -> Option<Arc<SnapshotToSend>> {
        let maker = self.0.maker.get()?;
        let stored = maker.folder().list().ok()?;
        stored.into_iter().rev().filter(|stored| Some(stored.index) >= from && stored.index <= to).find_map(
            |stored| {
                let snapshot = open(&stored).ok()?;
                let header = &stored.summary.as_ref().ok()?.header;
                let usable = !self.refused().contains(&snapshot.id) && maker.is_of_this_history(header);
                usable.then(|| Arc::new(snapshot))
            },
        )
    }

    /// A file that ends at or behind an entry; written now when there is none.
    pub async fn make(&self, at_least: u64) -> Result<Arc<SnapshotToSend>, SnapshotFailure> {
        let maker = self.0.maker.get().ok_or(SnapshotFailure::Stopped)?;
        loop {
            match maker.create_for_follower().await {
                Ok(stored) if stored.index >= at_least => {
                    let snapshot = open(&stored)
                        .map_err(|error| SnapshotFailure::Folder(std::io::Error::other(error)))?;
                    if !self.refused().contains(&snapshot.id) {
                        return Ok(Arc::new(snapshot));
                    }
                    // What is there under this index is damaged: the next attempt writes it anew.
                    maker.folder().remove(stored.index).map_err(SnapshotFailure::Folder)?;
                }
                // One that was begun before.
                Ok(_) => {}
                Err(SnapshotFailure::InProgress) => tokio::time::sleep(WRITING_LOOK_INTERVAL).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// A peer found a file unsound.
    pub fn refuse(&self, snapshot: &SnapshotToSend) {
        let mut refused = self.refused();
        if refused.len() >= REFUSED_MAX {
            refused.pop_first();
        }
        refused.insert(snapshot.id);
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<Hash>> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a file, and looks at the ends of what was opened.
fn open(stored: &StoredSnapshot) -> Result<SnapshotToSend, SnapshotError> {
    let file = File::open(&stored.path).map_err(SnapshotError::Io)?;
    let summary = summarise(&file)?;
    let applied = summary.header.applied;
    Ok(SnapshotToSend {
        file: Arc::new(file),
        id: summary.sha256,
        bytes: summary.file_bytes,
        last: LogId { term: applied.term, node: 0, index: applied.index },
        membership: Bytes::from(summary.header.membership),
    })
}

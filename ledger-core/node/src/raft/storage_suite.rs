//! The engine's own suite for log stores, run on [`Log`] with its writer thread.
//!
//! The suite pairs a log with a state machine and installs snapshots on it. Ours refuses those, so the
//! pair here is the plainest state machine that the suite accepts; ours is tested through the façade.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, OptionalSend, StorageError};

use super::log::Log;
use super::{
    Clid, EngineLogId, LedgerRaft, Member, NodeId, SnapshotMeta, StoredMembershipOf, with_randomness,
};
use crate::counters::CounterCells;
use crate::failure::FailureCell;
use crate::log_writer::{LogWriter, LogWriterParts};
use crate::worker::{Threads, Worker};

type PlainSnapshot = openraft::Snapshot<Clid, NodeId, Member, SnapshotMeta>;

/// Remembers positions and nothing else.
#[derive(Debug, Clone, Default)]
struct Positions {
    applied: Option<EngineLogId>,
    membership: StoredMembershipOf,
    snapshot: Option<SnapshotMeta>,
}

impl RaftStateMachine<LedgerRaft> for Positions {
    type SnapshotData = SnapshotMeta;
    type SnapshotBuilder = BuiltFrom;

    async fn applied_state(&mut self) -> Result<(Option<EngineLogId>, StoredMembershipOf), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<LedgerRaft>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembershipOf::new(Some(entry.log_id), membership);
            }
            if let Some(responder) = responder {
                responder.send(None);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<BuiltFrom> {
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        self.snapshot = Some(meta.clone());
        Some(BuiltFrom(meta))
    }

    async fn get_snapshot_builder(&mut self) -> BuiltFrom {
        BuiltFrom(SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() })
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _data: SnapshotMeta) -> Result<(), io::Error> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<PlainSnapshot>, io::Error> {
        Ok(self.snapshot.clone().map(|meta| PlainSnapshot { snapshot: meta.clone(), meta }))
    }
}

struct BuiltFrom(SnapshotMeta);

impl RaftSnapshotBuilder<LedgerRaft> for BuiltFrom {
    type SnapshotData = SnapshotMeta;

    async fn build_snapshot(&mut self) -> Result<PlainSnapshot, io::Error> {
        Ok(PlainSnapshot { meta: self.0.clone(), snapshot: self.0.clone() })
    }
}

/// Ends the writer's thread with the test.
struct WriterThread {
    writer: LogWriter,
    thread: Option<Worker>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.writer.finish();
        if let Some(Worker::Thread(thread)) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct OnMemoryDisk;

impl StoreBuilder<LedgerRaft, Log, Positions, WriterThread> for OnMemoryDisk {
    async fn build(&self) -> Result<(WriterThread, Log, Positions), StorageError<LedgerRaft>> {
        let store = Arc::new(MemoryLogStore::open(&MemoryLogDisk::default()));
        let writer = LogWriter::new();
        let log =
            Log::open(store.clone(), writer.clone()).map_err(|error| StorageError::read(error_of(&error)))?;
        let parts = LogWriterParts {
            store,
            counters: Arc::new(CounterCells::default()),
            failure: FailureCell::default(),
            on_durable: log.on_durable(),
        };
        let thread =
            writer.start(parts, Threads::Own).map_err(|error| StorageError::write(error_of(&error)))?;
        Ok((WriterThread { writer, thread: Some(thread) }, log, Positions::default()))
    }
}

fn error_of(error: &(impl std::error::Error + 'static)) -> openraft::impls::BoxedErrorSource {
    use openraft::errors::ErrorSource;
    openraft::impls::BoxedErrorSource::from_error(error)
}

#[test]
fn the_log_keeps_every_promise_that_the_engine_relies_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let outcome = runtime.map(|runtime| runtime.block_on(with_randomness(1, Suite::test_all(OnMemoryDisk))));
    assert!(matches!(outcome, Ok(Ok(()))), "{outcome:?}");
}

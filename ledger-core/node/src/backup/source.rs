//! What a running node gives to a backup: the bytes of a snapshot, or of an increment, in chunks. The reader's pace is the
//! pace; a reader that takes nothing is given up, because a view of the store costs room for as long as it is held.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger_core::backup::{BackupError, Gathered};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::failure::BackupFailure;
use crate::ledger::Ledger;
use crate::snapshots::SnapshotMaker;

/// Bytes of a chunk.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Chunks that wait for the reader.
const CHUNKS_WAITING: usize = 8;
/// One more has room for why there are no more.
const CHANNEL_ITEMS: usize = CHUNKS_WAITING + 1;
/// Backups that are read from a node at once.
pub(crate) const BACKUPS_AT_ONCE: usize = 2;
/// A reader that takes nothing for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// How often a writer that waits for its reader looks whether the node stops.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a node that is behind the backup has to catch up.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// The bytes of one file of a backup.
#[derive(Debug)]
pub struct BackupChunks(mpsc::Receiver<Result<Bytes, BackupFailure>>);

impl BackupChunks {
    /// The next bytes; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes, BackupFailure>> {
        self.0.recv().await
    }
}

impl Ledger {
    /// The bytes of a snapshot of this node, which becomes a base.
    ///
    /// # Errors
    ///
    /// When there is no such snapshot, or as many backups are read as may be at once.
    pub async fn stream_snapshot(&self, index: u64) -> Result<BackupChunks, BackupFailure> {
        let permit = self.backup_permit()?;
        let folder = self.snapshots();
        let found = tokio::task::spawn_blocking(move || folder.list()).await;
        let listed = found.map_err(|_| BackupFailure::Stopped)?;
        let listed = listed.map_err(BackupFailure::io("read", self.snapshots().path()))?;
        let stored = listed.into_iter().find(|stored| stored.index == index && stored.summary.is_ok());
        let path = stored.ok_or(BackupFailure::NoSnapshot { index })?.path;
        self.begin_stream(permit, move |sink| copy(&path, sink))
    }

    /// The bytes of an increment: everything since the log entry `after`.
    ///
    /// # Errors
    ///
    /// When as many backups are read as may be at once. Later errors end the stream: a new base is needed, the node is
    /// behind, a vault is fenced, or a store fails.
    pub async fn stream_increment(&self, after: u64) -> Result<BackupChunks, BackupFailure> {
        let permit = self.backup_permit()?;
        self.hear_of_the_newest().await;
        // One that does not catch up says so itself.
        let _ = tokio::time::timeout(CATCH_UP_MAX, self.shared.handles.ledger.wait_applied(after)).await;
        let maker = self.shared.handles.snapshots.clone();
        let runtime = tokio::runtime::Handle::current();
        self.begin_stream(permit, move |sink| {
            let (view, outline) = runtime.block_on(maker.begin())?;
            let gathered = Gathered::since(view.as_ref(), outline, after)?;
            gathered.write(sink, &mut |_| ControlFlow::Continue(()))?;
            Ok(())
        })
    }

    /// Waits until this node has applied what was acknowledged anywhere by now. Without a leader there is nobody to ask: what
    /// this node has is worth keeping all the same.
    pub(crate) async fn hear_of_the_newest(&self) {
        if !matches!(tokio::time::timeout(CATCH_UP_MAX, self.shared.handles.barrier.pass()).await, Ok(Ok(())))
        {
            tracing::warn!(
                "the newest writes may be missing here: the leader does not say how far the ledger is"
            );
        }
    }

    fn backup_permit(&self) -> Result<OwnedSemaphorePermit, BackupFailure> {
        Arc::clone(&self.shared.backups).try_acquire_owned().map_err(|_| BackupFailure::InProgress)
    }

    fn begin_stream(
        &self,
        permit: OwnedSemaphorePermit,
        write: impl FnOnce(&mut ChunkSink) -> Result<(), BackupFailure> + Send + 'static,
    ) -> Result<BackupChunks, BackupFailure> {
        let (sender, receiver) = mpsc::channel(CHANNEL_ITEMS);
        let maker = self.shared.handles.snapshots.clone();
        let body = move || {
            let mut sink =
                ChunkSink { sender, chunk: Vec::with_capacity(CHUNK_BYTES), maker, stalled: false };
            let written = write(&mut sink).and_then(|()| Ok(sink.send_rest()?));
            if let Err(failure) = written {
                // A reader that is gone needs no reason, and one that took nothing finds the file cut off.
                let _ = sink.sender.try_send(Err(sink.said(failure)));
            }
            drop(permit);
        };
        let spawned = std::thread::Builder::new().name("ledger-backup".to_owned()).spawn(body);
        spawned.map_err(BackupFailure::io("start", "a thread"))?;
        Ok(BackupChunks(receiver))
    }
}

fn copy(path: &Path, sink: &mut ChunkSink) -> Result<(), BackupFailure> {
    let mut file = File::open(path).map_err(BackupFailure::io("open", path))?;
    let mut piece = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut piece).map_err(BackupFailure::io("read", path))?;
        if read == 0 {
            return Ok(());
        }
        sink.write_all(piece.get(..read).unwrap_or_default()).map_err(BackupError::Io)?;
    }
}

/// Cuts what is written into chunks and waits for room.
struct ChunkSink {
    sender: mpsc::Sender<Result<Bytes, BackupFailure>>,
    chunk: Vec<u8>,
    maker: SnapshotMaker,
    stalled: bool,
}

impl ChunkSink {
    fn send_rest(&mut self) -> Result<(), BackupError> {
        if !self.chunk.is_empty() {
            let rest = std::mem::take(&mut self.chunk);
            self.offer(rest.into())?;
        }
        Ok(())
    }

    /// Waits for room: the reader's pace is the pace.
    fn offer(&mut self, chunk: Bytes) -> io::Result<()> {
        let began = Instant::now();
        loop {
            if self.sender.is_closed() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if self.sender.capacity() > 1 {
                return self.sender.try_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into());
            }
            if self.maker.is_stopping() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if began.elapsed() >= STALL_MAX {
                self.stalled = true;
                return Err(io::ErrorKind::TimedOut.into());
            }
            // Room comes within a round trip; a thread that waits for it costs nobody anything.
            std::thread::sleep(LOOK_INTERVAL.min(began.elapsed().max(Duration::from_micros(200))));
        }
    }

    /// What the reader is told.
    fn said(&self, failure: BackupFailure) -> BackupFailure {
        if self.stalled {
            BackupFailure::Stalled { seconds: STALL_MAX.as_secs() }
        } else if self.maker.is_stopping() {
            BackupFailure::Stopped
        } else {
            failure
        }
    }
}

impl Write for ChunkSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK_BYTES.saturating_sub(self.chunk.len()).min(bytes.len());
        let now = bytes.get(..room).unwrap_or_default();
        self.chunk.extend_from_slice(now);
        if self.chunk.len() >= CHUNK_BYTES {
            let full = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
            // `Interrupted` would be tried again by whoever writes.
            self.offer(full.into()).map_err(|error| match error.kind() {
                io::ErrorKind::Interrupted => io::Error::other("the node stops"),
                _ => error,
            })?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

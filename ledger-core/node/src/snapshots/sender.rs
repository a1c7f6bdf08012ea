//! Sending a snapshot to a peer: offer, chunk by chunk as they are acknowledged, install.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ledger_core::ports::LogId;
use ledger_verify::Hash;
use ledger_verify::hash::sha256;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::receiver::CHUNK_BYTES_MAX;
use crate::blocking_work::BlockingWork;
use crate::counters::{CounterCells, add};
use crate::peers::messages::{
    self, MessageError, SnapshotChunk, SnapshotChunkAnswer, SnapshotInstall, SnapshotInstallAnswer,
    SnapshotOffer, SnapshotOfferAnswer, WireLogId, WireVote,
};
use crate::peers::{PeerError, PeerMethod, PeerRefusal};

/// How long the answer to an offer may take. It is short on purpose, like that of an install: an offer that a broken
/// network has swallowed keeps a cluster waiting that needs this member for its quorum, also when the network is whole
/// again. One that is repeated goes on where the other was.
const OFFER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the answer to a chunk may take: the receiver syncs its file now and then.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to an install may take; the receiver answers at least every second how it stands.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests that fail one after the other before the transfer is given up; the engine begins it anew.
const FAILURES_MAX: u32 = 8;
/// Rests between them: the first, and the longest.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(2);
/// Times that a receiver may ask for bytes that it had acknowledged before; each costs a chunk at most.
const STEPS_BACK_MAX: u32 = 64;

/// A file that can be sent: open, so that it may lose its name meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotToSend {
    pub file: Arc<File>,
    /// The SHA-256 at its end.
    pub id: Hash,
    /// Its bytes.
    pub bytes: u64,
    /// The last log entry in it.
    pub last: LogId,
    /// The membership at that entry.
    pub membership: Bytes,
}

/// A snapshot was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the peer does not take the snapshot: {0}")]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the peer refused the snapshot: {reason}")]
    Refused { reason: String },
    #[error("the peer asks for the same bytes again and again")]
    NoProgress,
    #[error("the snapshot cannot be read: {0}")]
    File(#[from] io::Error),
}

/// A way to one peer.
pub(crate) trait SnapshotPeer: Sync {
    fn call(
        &self,
        method: PeerMethod,
        body: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, PeerError>> + Send;
}

/// Sends a snapshot and waits until it is installed; answers the peer's vote. One that is above `vote` means that the
/// peer did not take it.
pub(crate) async fn send(
    peer: &impl SnapshotPeer,
    vote: WireVote,
    snapshot: &SnapshotToSend,
    (counters, blocking): (&CounterCells, BlockingWork),
) -> Result<WireVote, SendError> {
    let mut transfer = Transfer { peer, vote, snapshot, counters, blocking, failures: 0, steps_back: 0 };
    loop {
        match transfer.attempt().await {
            Ok(vote) => return Ok(vote),
            Err(error) if !is_passing(&error) => return Err(error),
            Err(error) => {
                transfer.failures += 1;
                if transfer.failures > FAILURES_MAX {
                    return Err(error);
                }
                add(&counters.snapshot_retries, 1);
                let doublings = transfer.failures.min(16) - 1;
                tokio::time::sleep(REST_MIN.saturating_mul(1 << doublings).min(REST_MAX)).await;
            }
        }
    }
}

/// Whether the same request may be answered another time.
fn is_passing(error: &SendError) -> bool {
    match error {
        SendError::Peer(PeerError::Refused { refusal, .. }) => {
            matches!(refusal, PeerRefusal::Busy | PeerRefusal::NotReady { .. })
        }
        SendError::Peer(PeerError::Untrusted { .. }) => false,
        SendError::Peer(_) => true,
        _ => false,
    }
}

struct Transfer<'t, P> {
    peer: &'t P,
    vote: WireVote,
    snapshot: &'t SnapshotToSend,
    counters: &'t CounterCells,
    blocking: BlockingWork,
    /// Requests that failed since the last one that was answered.
    failures: u32,
    steps_back: u32,
}

impl<P: SnapshotPeer> Transfer<'_, P> {
    /// From the offer, which tells what is there, to the end.
    async fn attempt(&mut self) -> Result<WireVote, SendError> {
        let SnapshotToSend { id, bytes, last, .. } = *self.snapshot;
        let last = WireLogId { term: last.term, index: last.index };
        let offer = SnapshotOffer { vote: self.vote, id, bytes, last };
        let mut from = match self.call(PeerMethod::SnapshotOffer, &offer, OFFER_TIMEOUT).await? {
            SnapshotOfferAnswer::SendFrom(from) => from,
            SnapshotOfferAnswer::NotNeeded(vote) | SnapshotOfferAnswer::HigherVote(vote) => return Ok(vote),
            SnapshotOfferAnswer::Refused(reason) => return Err(SendError::Refused { reason }),
        };
        loop {
            while from < bytes {
                match self.chunk(from).await? {
                    SnapshotChunkAnswer::SendFrom(next) => from = self.step(from, next)?,
                    // The receiver was restarted, or another leader offers something else.
                    SnapshotChunkAnswer::Unknown => return self.again(),
                }
            }
            let install = SnapshotInstall { vote: self.vote, id };
            match self.call(PeerMethod::SnapshotInstall, &install, INSTALL_TIMEOUT).await? {
                SnapshotInstallAnswer::Working => {}
                SnapshotInstallAnswer::Installed(vote) | SnapshotInstallAnswer::HigherVote(vote) => {
                    return Ok(vote);
                }
                SnapshotInstallAnswer::SendFrom(next) => from = self.step(from, next)?,
                SnapshotInstallAnswer::Unknown => return self.again(),
                SnapshotInstallAnswer::Refused(reason) => return Err(SendError::Refused { reason }),
            }
        }
    }

    /// Where the receiver wants to go on; how often it may go back is bounded.
    fn step(&mut self, from: u64, next: u64) -> Result<u64, SendError> {
        if next <= from {
            self.steps_back += 1;
            if self.steps_back > STEPS_BACK_MAX {
                return Err(SendError::NoProgress);
            }
        }
        Ok(next.min(self.snapshot.bytes))
    }

    fn again<T>(&mut self) -> Result<T, SendError> {
        let address = String::new();
        let refusal =
            PeerRefusal::NotReady { reason: "it does not receive this snapshot any more".to_owned() };
        Err(SendError::Peer(PeerError::Refused { address, refusal }))
    }

    async fn chunk(&mut self, offset: u64) -> Result<SnapshotChunkAnswer, SendError> {
        let room = usize::try_from(self.snapshot.bytes - offset).unwrap_or(usize::MAX);
        let length = room.min(CHUNK_BYTES_MAX);
        let (file, id) = (Arc::clone(&self.snapshot.file), self.snapshot.id);
        let read = move || -> io::Result<SnapshotChunk> {
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, offset)?;
            Ok(SnapshotChunk { id, offset, sha256: sha256(&[&data]), data: data.into() })
        };
        let chunk = self.blocking.short(read).await.map_err(io::Error::from)??;
        let body = messages::encode_with_room(&chunk, length + CHUNK_OVERHEAD_BYTES)?;
        let answer = self.send(PeerMethod::SnapshotChunk, body, CHUNK_TIMEOUT).await?;
        add(&self.counters.snapshot_chunks_sent, 1);
        Ok(answer)
    }

    async fn call<A: DeserializeOwned>(
        &mut self,
        method: PeerMethod,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<A, SendError> {
        self.send(method, messages::encode(request)?, timeout).await
    }

    async fn send<A: DeserializeOwned>(
        &mut self,
        method: PeerMethod,
        body: Bytes,
        timeout: Duration,
    ) -> Result<A, SendError> {
        let answer = self.peer.call(method, body, timeout).await?;
        let answer = messages::decode(&answer)?;
        self.failures = 0;
        Ok(answer)
    }
}

/// What an encoded chunk has beside its data.
const CHUNK_OVERHEAD_BYTES: usize = 128;

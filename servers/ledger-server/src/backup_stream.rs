//! The stream of a backup: chunk by chunk as its reader takes them.

use std::pin::Pin;

use futures::Stream;
use ledger_node::Ledger;
use ledger_node::backup::BackupChunks;
use ledger_proto::v1;
use ledger_proto::v1::stream_backup_request::Part;
use tonic::{Response, Status};

use crate::errors;
use crate::watch_stream::Closing;
use crate::wire::required;

/// The messages of a backup.
pub(crate) type BackupPieces = Pin<Box<dyn Stream<Item = Result<v1::StreamBackupResponse, Status>> + Send>>;

pub(crate) async fn begin(
    ledger: &Ledger,
    request: v1::StreamBackupRequest,
    closing: Closing,
) -> Result<Response<BackupPieces>, Status> {
    let chunks = match required(request.part, "part")? {
        Part::SnapshotIndex(index) => ledger.stream_snapshot(index).await,
        Part::IncrementAfter(after) => ledger.stream_increment(after).await,
    };
    let chunks = chunks.map_err(errors::backup_failed)?;
    let source = Some(Source { chunks, closing });
    let pieces = futures::stream::unfold(source, |source| async {
        let mut source = source?;
        match source.next().await? {
            Ok(piece) => Some((Ok(piece), Some(source))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(Response::new(Box::pin(pieces)))
}

struct Source {
    chunks: BackupChunks,
    closing: Closing,
}

impl Source {
    async fn next(&mut self) -> Option<Result<v1::StreamBackupResponse, Status>> {
        tokio::select! {
            biased;
            () = self.closing.requested() => Some(Err(errors::draining())),
            chunk = self.chunks.next() => {
                let chunk = chunk?.map_err(errors::backup_failed);
                Some(chunk.map(|chunk| v1::StreamBackupResponse { chunk }))
            }
        }
    }
}

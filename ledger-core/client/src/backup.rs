//! The bytes of a backup from a running server.

use std::time::Duration;

use bytes::Bytes;
use ledger_proto::v1;
use ledger_proto::v1::admin_service_client::AdminServiceClient;
use ledger_proto::v1::stream_backup_request::Part;
use tonic::Streaming;

use crate::client::LedgerClient;
use crate::error::{ClientError, Refusal};
use crate::nodes::Destination;

/// A server that sends nothing for so long is given up; it begins within seconds and goes on as fast as it reads.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Which part of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupPart {
    /// The snapshot of the server whose last log entry has this index: a base.
    Snapshot {
        /// The index.
        index: u64,
    },
    /// Everything after a log entry: an increment.
    Increment {
        /// The index of the entry.
        after: u64,
    },
}

/// The bytes of one file of a backup, as they come.
pub struct BackupPieces(Streaming<v1::StreamBackupResponse>);

impl LedgerClient {
    /// Opens the stream of one file of a backup. It is not mended when it breaks: whoever gets less than the file says so
    /// by its hash, and begins anew.
    ///
    /// # Errors
    ///
    /// When the server refuses or cannot be reached.
    pub async fn stream_backup(&self, part: BackupPart) -> Result<BackupPieces, ClientError> {
        let part = match part {
            BackupPart::Snapshot { index } => Part::SnapshotIndex(index),
            BackupPart::Increment { after } => Part::IncrementAfter(after),
        };
        let request = v1::StreamBackupRequest { part: Some(part) };
        // Snapshots are of one node: all that belong to a backup are asked of the same.
        let node = self.inner.nodes.choose(Destination::Leader, &[])?;
        let opened = self
            .open_stream(&node, request, |channel, request| async move {
                AdminServiceClient::new(channel).stream_backup(request).await
            })
            .await?;
        Ok(BackupPieces(opened?))
    }
}

impl BackupPieces {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    ///
    /// When the server breaks it off, or says nothing for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match tokio::time::timeout(SILENCE_MAX, self.0.message()).await {
            Ok(Ok(message)) => Ok(message.map(|message| message.chunk)),
            Ok(Err(status)) => Err(Refusal::from_status(&status).into()),
            Err(_) => Err(Refusal::deadline(SILENCE_MAX).into()),
        }
    }
}

//! Snapshots as they go over the wire.

use ledger_node::StoredSnapshot;
use ledger_proto::v1;

/// A snapshot of a folder.
pub(crate) fn snapshot_answer(stored: &StoredSnapshot) -> v1::Snapshot {
    let file_name = stored.path.file_name().map(|name| name.to_string_lossy().into_owned());
    let named = v1::Snapshot {
        file_name: file_name.unwrap_or_default(),
        path: stored.path.display().to_string(),
        applied_index: stored.index,
        ..Default::default()
    };
    match &stored.summary {
        Err(problem) => v1::Snapshot { problem: problem.to_string(), ..named },
        Ok(summary) => v1::Snapshot {
            applied_term: summary.header.applied.term,
            created_at_ms: summary.header.created_at_ms,
            file_bytes: summary.file_bytes,
            sha256: summary.sha256.to_vec().into(),
            vault_count: summary.header.vaults.len() as u64,
            key_count: summary.trailer.key_count(),
            row_count: summary.trailer.row_count(),
            ..named
        },
    }
}

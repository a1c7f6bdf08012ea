//! What checks and recoveries ask, and what they answer.

use bytes::Bytes;
use ledger_core::command::Fence;
use ledger_core::ledger_state::{IntegrityDepth, IntegrityIssue, IntegrityReport, Recovered};
use ledger_proto::v1;

use super::read::hash_answer;

/// Longest description of an issue, in bytes: names of keys are longer than people read.
const WHAT_BYTES_MAX: usize = 2_048;

pub(crate) fn depth(full: bool) -> IntegrityDepth {
    if full { IntegrityDepth::Full } else { IntegrityDepth::Quick }
}

pub(crate) fn fence_answer(fence: Fence) -> v1::VaultFence {
    v1::VaultFence {
        height: fence.height,
        expected_root: hash_answer(&fence.expected_root),
        computed_root: fence.computed_root.as_ref().map_or_else(Bytes::new, hash_answer),
        what: shortened(fence.what),
        since_ms: fence.since_ms,
    }
}

pub(crate) fn report_answer(report: IntegrityReport) -> v1::CheckIntegrityResponse {
    v1::CheckIntegrityResponse {
        height: report.height,
        blocks: report.blocks,
        rows: report.rows,
        issues: report.issues.into_iter().map(issue_answer).collect(),
        issue_count: report.issue_count,
        fenced: report.fence.is_some() || report.state_is_wrong,
    }
}

fn issue_answer(issue: IntegrityIssue) -> v1::IntegrityIssue {
    v1::IntegrityIssue {
        kind: issue.kind.as_str().to_owned(),
        height: issue.height,
        what: shortened(issue.what),
    }
}

pub(crate) fn recovered_answer(recovered: Recovered) -> v1::RecoverVaultResponse {
    v1::RecoverVaultResponse {
        height: recovered.height,
        state_root: hash_answer(&recovered.state_root),
        blocks: recovered.blocks,
        rows_repaired: recovered.rows_repaired,
        entries_resumed: recovered.entries_resumed,
        from_node_id: recovered.from_node.unwrap_or(0),
    }
}

fn shortened(mut text: String) -> String {
    let end = (0..=WHAT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

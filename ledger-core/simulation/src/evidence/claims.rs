//! Each promise can be broken in a way that is found: what is right is shown first, then one thing is made wrong.

use bytes::Bytes;
use ledger_core::command::{OperationResult, Receipt};
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use ledger_core::names::VaultId;
use ledger_core::ports::{LogChange, LogId, LogKind};
use std::sync::Arc;

use super::*;
use crate::register::{Answer, Operation};
use crate::workload::WriteRecord;

const NODES: [Endpoint; 2] = [Endpoint(0), Endpoint(1)];

fn key(number: u8) -> IdempotencyKey {
    IdempotencyKey::from_parts(1_800_000_000_000, [number; 10])
}

/// A block of one transaction.
fn block(number: u8) -> SeenBlock {
    let transaction = SeenTransaction { idempotency_key: key(number), version: u64::from(number) + 1 };
    SeenBlock { by: NODES[0], leaf: [number; 32], transactions: vec![transaction] }
}

fn receipt(number: u8) -> Receipt {
    Receipt {
        vault: VaultId([0; 16]),
        height: u64::from(number),
        version: u64::from(number) + 1,
        index_in_block: 0,
        block_hash: [number; 32],
        time_ms: 0,
        results: vec![OperationResult::Created],
        replayed: false,
    }
}

/// Two puts to one key, one after the other, both answered.
fn records() -> Records {
    let mut records = Records::default();
    for number in 0..2 {
        let call = records.history.begin(1, 0, Operation::Put(u64::from(number)));
        records.history.answer(call, Answer::Done { existed: number > 0 });
        records.writes.insert(key(number), WriteRecord { call, receipt: Some(receipt(number)) });
    }
    records
}

fn chain(numbers: &[u8]) -> Evidence {
    let mut evidence = Evidence::default();
    for (height, number) in (0..).zip(numbers) {
        evidence.saw_block(NODES[0], height, block(*number));
    }
    evidence
}

fn found(mut evidence: Evidence, records: &Records) -> Vec<Violation> {
    evidence.judge(records);
    evidence.violations().to_vec()
}

#[test]
fn what_is_right_is_no_violation() {
    assert_eq!(found(chain(&[0, 1]), &records()), []);
}

#[test]
fn two_leaders_of_one_term_are_found() {
    let mut evidence = Evidence::default();
    evidence.saw_leader(NODES[0], 3);
    evidence.saw_leader(NODES[0], 3);
    evidence.saw_leader(NODES[1], 4);
    assert_eq!(evidence.violations(), []);
    evidence.saw_leader(NODES[1], 3);
    assert!(matches!(evidence.violations(), [Violation::TwoLeaders { term: 3, .. }]));
}

#[test]
fn another_block_at_an_equal_height_is_found() {
    let mut evidence = chain(&[0, 1]);
    evidence.saw_block(NODES[1], 1, block(1));
    assert_eq!(evidence.violations(), []);
    evidence.saw_block(NODES[1], 1, block(7));
    assert!(matches!(evidence.violations(), [Violation::Fork { height: 1, .. }]));
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    let lost = found(chain(&[0]), &records());
    assert!(matches!(lost.as_slice(), [Violation::LostWrite { .. }]), "{lost:?}");
    let mut elsewhere = records();
    if let Some(receipt) = elsewhere.writes.get_mut(&key(1)).and_then(|write| write.receipt.as_mut()) {
        receipt.version = 9;
    }
    let moved = found(chain(&[0, 1]), &elsewhere);
    assert!(matches!(moved.as_slice(), [Violation::LostWrite { .. }]), "{moved:?}");
}

#[test]
fn a_transaction_that_is_there_twice_is_found() {
    let mut evidence = chain(&[0, 1]);
    let again = SeenBlock { leaf: [9; 32], ..block(1) };
    evidence.saw_block(NODES[0], 2, again);
    let twice = found(evidence, &records());
    assert!(matches!(twice.as_slice(), [Violation::AppliedTwice { .. }]), "{twice:?}");
}

#[test]
fn a_transaction_that_was_withdrawn_is_found() {
    let mut records = records();
    let call = records.history.begin(2, 0, Operation::Put(5));
    records.history.withdraw(call);
    records.writes.insert(key(2), WriteRecord { call, receipt: None });
    let phantom = found(chain(&[0, 1, 2]), &records);
    assert!(matches!(phantom.as_slice(), [Violation::Phantom { version: 3, .. }]), "{phantom:?}");
}

#[test]
fn versions_against_the_order_of_time_are_found() {
    let mut records = records();
    let swap = |number: u8, other: u8| Receipt { version: u64::from(other) + 1, ..receipt(number) };
    for (number, other) in [(0, 1), (1, 0)] {
        if let Some(write) = records.writes.get_mut(&key(number)) {
            write.receipt = Some(swap(number, other));
        }
    }
    let mut evidence = Evidence::default();
    for (height, (number, other)) in [(0, 1_u64), (1, 0)].into_iter().enumerate() {
        let transaction = SeenTransaction { idempotency_key: key(number), version: other + 1 };
        let seen = SeenBlock { transactions: vec![transaction], ..block(number) };
        evidence.saw_block(NODES[0], height as u64, seen);
    }
    let order = found(evidence, &records);
    assert!(matches!(order.as_slice(), [Violation::OutOfOrder { earlier: 1, later: 2 }]), "{order:?}");
}

#[test]
fn an_answer_that_nothing_explains_is_found() {
    let mut records = records();
    let call = records.history.begin(2, 0, Operation::Get);
    records.history.answer(call, Answer::Found(Some(0)));
    let stale = found(chain(&[0, 1]), &records);
    assert!(matches!(stale.as_slice(), [Violation::NotLinearizable(_)]), "{stale:?}");
}

#[test]
fn checkpoints_that_conflict_with_each_other_or_the_log_are_found() {
    let of = |root: Hash, size: u64| CheckpointRecord { size, root };
    let root = root_of(&[[0; 32], [1; 32]]);
    let with = |checkpoints: Vec<CheckpointRecord>| {
        let mut records = records();
        records.checkpoints = checkpoints;
        found(chain(&[0, 1]), &records)
    };
    assert_eq!(with(vec![of(root, 2), of(root, 2)]), []);
    let each_other = with(vec![of(root, 2), of([5; 32], 2)]);
    assert!(matches!(each_other.as_slice(), [Violation::CheckpointConflict { size: 2, .. }]));
    let the_log = with(vec![of([5; 32], 1)]);
    assert!(matches!(the_log.as_slice(), [Violation::CheckpointConflict { size: 1, with: "the log" }]));
    let not_there = with(vec![of(root, 3)]);
    assert!(matches!(not_there.as_slice(), [Violation::CheckpointConflict { size: 3, .. }]));
}

#[test]
fn logs_that_differ_where_both_are_committed_are_found() {
    let log = |payloads: &[&'static str], committed: u64| -> Arc<dyn LogStore> {
        let store = MemoryLogStore::open(&MemoryLogDisk::default());
        let id = |index| LogId { term: 1, node: 1, index };
        let mut changes: Vec<LogChange> = (0..)
            .zip(payloads)
            .map(|(index, payload)| {
                let payload = Bytes::from_static(payload.as_bytes());
                LogChange::Append(LogRecord { id: id(index), kind: LogKind::Proposal, payload })
            })
            .collect();
        changes.push(LogChange::SaveCommitted(id(committed)));
        store.commit(&changes).unwrap();
        Arc::new(store)
    };
    let compare = |committed| {
        let mut evidence = Evidence::default();
        let logs = [(NODES[0], log(&["a", "b"], 1)), (NODES[1], log(&["a", "c"], committed))];
        evidence.compare_logs(&logs);
        evidence.violations().to_vec()
    };
    assert_eq!(compare(0), [], "what is not committed may differ");
    assert_eq!(compare(2), [], "a snapshot has taken the place of the whole log");
    assert!(matches!(compare(1).as_slice(), [Violation::LogMismatch { index: 1, .. }]));
}

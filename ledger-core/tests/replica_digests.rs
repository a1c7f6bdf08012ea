//! Claims about what replicas are compared by beside blocks: equal where they remember the same, whatever happened to
//! each of them, and different as soon as one record is missing.

use std::sync::Arc;

use ledger_core::command::{Command, Outcome, Proposal, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{LedgerState, Progress, ReplicaDigests, VaultRecovery};
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};

const T0: u64 = 1_800_000_000_000;
const MAIN: VaultId = VaultId([7; 16]);
const OTHER: VaultId = VaultId([8; 16]);
const DAY_MS: u64 = 86_400_000;

struct Replica {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
}

impl Replica {
    fn new(log: &[Proposal]) -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut replica = Self { store, state };
        replica.apply(log);
        replica
    }

    fn apply(&mut self, log: &[Proposal]) {
        let from = self.state.last_applied().map_or(0, |at| at.index as usize + 1);
        for (index, proposal) in log.iter().enumerate().skip(from) {
            let at = LogId { term: 1, node: 0, index: index as u64 };
            if let Outcome::Writes(answers) = self.state.apply(at, proposal).unwrap() {
                assert!(answers.iter().all(Result::is_ok) || self.state.fenced_count() > 0, "{answers:?}");
            }
        }
    }

    fn flush(&mut self) {
        if let Some(job) = self.state.start_flush() {
            self.store.commit(&job.batch()).unwrap();
            self.state.finish_flush();
        }
    }

    fn restart(&mut self, log: &[Proposal]) {
        self.state = LedgerState::load(self.store.clone()).unwrap();
        self.apply(log);
    }

    fn now(&self) -> ReplicaDigests {
        self.state.replica_digests().pop().expect("no vault is fenced")
    }
}

fn write(vault: VaultId, number: u64, time_ms: u64) -> Proposal {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let value = EntityValue::new(number.to_be_bytes().to_vec()).unwrap();
    let key = EntityKey::new(&format!("key:{}", number % 5)).unwrap();
    let action = Action::SetEntity { key, value, expires_at_ms: 0 };
    let operations = vec![Operation { action, condition: None }];
    let transaction = Transaction::new(IdempotencyKey::from_parts(time_ms, random), operations).unwrap();
    let submissions = vec![Submission { vault, actor: Actor::new("client:test").unwrap(), transaction }];
    Proposal { time_ms, command: Command::Write { submissions } }
}

/// Two vaults, and so many writes to each, `step_ms` apart.
fn log(writes: u64, step_ms: u64) -> Vec<Proposal> {
    let commands = [
        Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] },
        Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() },
        Command::CreateVault { vault: "acme/main".parse().unwrap(), id: MAIN },
        Command::CreateVault { vault: "acme/other".parse().unwrap(), id: OTHER },
    ];
    let mut log: Vec<Proposal> =
        commands.into_iter().map(|command| Proposal { time_ms: T0, command }).collect();
    for number in 0..writes {
        let vault = if number % 2 == 0 { MAIN } else { OTHER };
        log.push(write(vault, number, T0 + number * step_ms));
    }
    log
}

#[test]
fn replicas_agree_at_every_common_point_also_when_one_was_restarted_or_is_behind() {
    let log = log(40, 300);
    let ahead = Replica::new(&log);
    let mut other = Replica::new(&log[..20]);
    other.flush();
    other.restart(&log[..30]);
    let points = ahead.state.replica_digests();
    let common: Vec<ReplicaDigests> =
        other.state.replica_digests().into_iter().filter(|point| points.contains(point)).collect();
    assert!(common.len() >= 2, "{points:?} {:?}", other.state.replica_digests());
    let known = |index| points.iter().any(|point| point.index == index);
    assert!(
        other
            .state
            .replica_digests()
            .iter()
            .filter(|point| known(point.index))
            .all(|point| points.contains(point))
    );
    other.apply(&log);
    assert_eq!(other.now(), ahead.now());
    assert_eq!(ahead.now().vaults.len(), 2);
}

#[test]
fn what_is_forgotten_leaves_the_digest() {
    let mut log = log(20, 100);
    let before = Replica::new(&log).now();
    // Everything of before is too old, and of the second vault nothing is remembered any more.
    log.push(write(MAIN, 1_000, T0 + 2 * DAY_MS));
    let mut one = Replica::new(&log);
    let mut other = Replica::new(&log[..10]);
    other.flush();
    other.restart(&log);
    assert_eq!(one.now(), other.now());
    assert_ne!(one.now().idempotency(), before.idempotency());
    assert_eq!(one.now().vaults.len(), 1, "{:?}", one.now());
    one.flush();
    one.restart(&log);
    assert_eq!(one.now(), other.now());
}

#[test]
fn a_record_that_is_missing_changes_the_digest_of_its_vault_alone() {
    let log = log(12, 100);
    let whole = Replica::new(&log);
    let mut other = Replica::new(&log);
    other.flush();
    let mut rows = Vec::new();
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    other
        .store
        .scan(Table::Idempotency, &everything, &mut |key, _| {
            rows.push(RowChange { table: Table::Idempotency, key: key.to_vec(), value: None });
            true
        })
        .unwrap();
    assert_eq!(rows.len(), 12);
    let applied = other.store.applied().unwrap().unwrap();
    let batch = StateBatch { dropped_vaults: Vec::new(), rows: vec![rows.swap_remove(3)], applied };
    other.store.commit(&batch).unwrap();
    other.restart(&log);
    let (whole, other) = (whole.now(), other.now());
    assert_ne!(whole.idempotency(), other.idempotency());
    let differ = whole.vaults.iter().zip(&other.vaults).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 1);
    assert_eq!(whole.membership, other.membership);
}

#[test]
fn a_vault_that_was_fenced_has_no_points_and_agrees_again_once_it_is_recovered() {
    let log = log(30, 300);
    let whole = Replica::new(&log);
    let mut fenced = Replica::new(&log[..20]);
    fenced.state.fence_vault(MAIN, "for this test").unwrap();
    fenced.apply(&log);
    let newest = fenced.state.replica_digests().last().map(|point| point.index);
    assert!(newest < Some(20), "{newest:?}");
    let mut recovery = VaultRecovery::start(&fenced.state, MAIN).unwrap();
    while recovery.is_replaying() {
        recovery.replay(&fenced.state).unwrap();
    }
    while recovery.repair(&mut fenced.state).unwrap() == Progress::More {}
    fenced.flush();
    let recovered = recovery.finish(&mut fenced.state, None).unwrap();
    assert_eq!(recovered.entries_resumed, 7);
    assert_eq!(fenced.now(), whole.now());
    assert_eq!(fenced.state.tip(MAIN).unwrap(), whole.state.tip(MAIN).unwrap());
}

#[test]
fn a_deleted_vault_is_not_compared() {
    let mut log = log(10, 100);
    let command = Command::DeleteVault { vault: "acme/main".parse().unwrap() };
    log.push(Proposal { time_ms: T0 + 5_000, command });
    let now = Replica::new(&log).now();
    assert_eq!(now.vaults.len(), 1);
}

#[test]
fn the_membership_is_compared_as_it_is_encoded() {
    let log = log(4, 100);
    let (mut one, mut other) = (Replica::new(&log), Replica::new(&log));
    let at = LogId { term: 1, node: 0, index: log.len() as u64 };
    one.state.apply_membership(at, bytes::Bytes::from_static(b"three"));
    other.state.apply_membership(at, bytes::Bytes::from_static(b"four"));
    assert_ne!(one.now().membership, other.now().membership);
    assert_eq!(one.now().idempotency(), other.now().idempotency());
}

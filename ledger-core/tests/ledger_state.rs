//! The state machine through its façade: what transactions do, what they answer, and that every replica
//! and every restart agrees.

use std::sync::Arc;

use bytes::Bytes;
use ledger_core::command::{
    AdminRefusal, Command, ConditionFailure, OperationResult, Outcome, Proposal, Receipt, Submission,
    WriteRefusal,
};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{LedgerState, PageRequest, RelationshipFilter};
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, StateStore};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{
    Action, Actor, AssertTarget, Condition, IdempotencyKey, Operation, Transaction,
};
use ledger_core::{codec, doctor};
use ledger_verify::hash::STATE_EMPTY;
use ledger_verify::log;
use ledger_verify::state::{LeafValue, StateKey};

const T0: u64 = 1_800_000_000_000;
const VAULT: VaultId = VaultId([7; 16]);
const DAY_MS: u64 = 86_400_000;

/// A ledger on the memory store with one vault, and the log that led there.
struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    log: Vec<(LogId, Bytes)>,
    next_key: u64,
    time_ms: u64,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self { store, state, log: Vec::new(), next_key: 0, time_ms: T0 };
        fixture.apply(Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: VAULT });
        fixture
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 9, index: self.log.len() as u64 };
        let proposal = Proposal { time_ms: self.time_ms, command };
        self.log.push((at, codec::encode_proposal(&proposal).unwrap()));
        self.state.apply(at, &proposal).unwrap()
    }

    fn key(&mut self) -> IdempotencyKey {
        self.next_key += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.next_key.to_be_bytes());
        IdempotencyKey::from_parts(self.time_ms, random)
    }

    fn submission(&mut self, operations: Vec<Operation>) -> Submission {
        let transaction = Transaction::new(self.key(), operations).unwrap();
        Submission { vault: VAULT, actor: Actor::new("client:test").unwrap(), transaction }
    }

    fn write_all(&mut self, submissions: Vec<Submission>) -> Vec<Result<Receipt, WriteRefusal>> {
        match self.apply(Command::Write { submissions }) {
            Outcome::Writes(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, operations: Vec<Operation>) -> Result<Receipt, WriteRefusal> {
        let submission = self.submission(operations);
        self.write_all(vec![submission]).remove(0)
    }

    fn root(&self) -> [u8; 32] {
        self.state.tip(VAULT).unwrap().header.state_root
    }

    fn flush(&mut self) {
        if let Some(job) = self.state.start_flush() {
            self.store.commit(&job.batch()).unwrap();
            self.state.finish_flush();
        }
    }

    /// Loads what was flushed and applies the rest of the log again, as a restart does.
    fn restart(&mut self) {
        self.state = LedgerState::load(self.store.clone()).unwrap();
        let from = self.state.last_applied().map_or(0, |at| at.index as usize + 1);
        for (at, encoded) in &self.log[from..] {
            self.state.apply(*at, &codec::decode_proposal(encoded).unwrap()).unwrap();
        }
    }
}

fn operation(action: Action) -> Operation {
    Operation { action, condition: None }
}

fn conditional(action: Action, condition: Condition) -> Operation {
    Operation { action, condition: Some(condition) }
}

fn set(key: &str, value: &str) -> Action {
    set_expiring(key, value, 0)
}

fn set_expiring(key: &str, value: &str, expires_at_ms: u64) -> Action {
    let value = EntityValue::new(value.as_bytes().to_vec()).unwrap();
    Action::SetEntity { key: entity(key), value, expires_at_ms }
}

fn entity(key: &str) -> EntityKey {
    EntityKey::new(key).unwrap()
}

fn tuple(resource: &str, relation: &str, subject: &str) -> Relationship {
    Relationship {
        resource: Resource::new(resource).unwrap(),
        relation: Relation::new(relation).unwrap(),
        subject: Subject::new(subject).unwrap(),
    }
}

fn all() -> PageRequest {
    PageRequest { after: None, limit: 1_000, bytes_max: 1 << 22 }
}

#[test]
fn writing_a_relationship_changes_the_root_and_deleting_it_restores_the_root() {
    let mut f = Fixture::new();
    assert_eq!(f.root(), STATE_EMPTY);
    f.write(vec![operation(set("a", "1"))]).unwrap();
    let before = f.root();
    let t = tuple("doc:1", "viewer", "user:ada");
    let receipt = f.write(vec![operation(Action::CreateRelationship(t.clone()))]).unwrap();
    assert_eq!(receipt.results, [OperationResult::Created]);
    assert_ne!(f.root(), before);
    let again = f.write(vec![operation(Action::CreateRelationship(t.clone()))]).unwrap();
    assert_eq!(again.results, [OperationResult::AlreadyExists]);
    let gone = f.write(vec![operation(Action::DeleteRelationship(t.clone()))]).unwrap();
    assert_eq!(gone.results, [OperationResult::Deleted]);
    assert_eq!(f.root(), before);
    let nothing = f.write(vec![operation(Action::DeleteRelationship(t))]).unwrap();
    assert_eq!(nothing.results, [OperationResult::NotFound]);
}

#[test]
fn operations_answer_created_updated_deleted_not_found() {
    let mut f = Fixture::new();
    let delete = || operation(Action::DeleteEntity { key: entity("k") });
    let results = |r: Result<Receipt, WriteRefusal>| r.unwrap().results;
    assert_eq!(results(f.write(vec![delete()])), [OperationResult::NotFound]);
    assert_eq!(results(f.write(vec![operation(set("k", "1"))])), [OperationResult::Created]);
    assert_eq!(results(f.write(vec![operation(set("k", "2"))])), [OperationResult::Updated]);
    assert_eq!(
        results(f.write(vec![delete(), delete(), operation(set("k", "3")), operation(set("k", "4"))])),
        [
            OperationResult::Deleted,
            OperationResult::NotFound,
            OperationResult::Created,
            OperationResult::Updated
        ]
    );
    assert_eq!(f.state.entity(VAULT, &entity("k"), 0).unwrap().unwrap().value, "4");
}

#[test]
fn a_failed_condition_changes_nothing_and_says_what_is_there() {
    let mut f = Fixture::new();
    let first = f.write(vec![operation(set("k", "1"))]).unwrap();
    let tip = f.state.tip(VAULT).unwrap();
    let refused = |f: &mut Fixture, condition| {
        f.write(vec![operation(set("other", "x")), conditional(set("k", "2"), condition)]).unwrap_err()
    };
    let expected = |failure| WriteRefusal::ConditionFailed {
        op_index: 1,
        failure,
        current_version: Some(first.version),
        current_value: Some(Bytes::from_static(b"1")),
    };
    assert_eq!(refused(&mut f, Condition::MustNotExist), expected(ConditionFailure::Exists));
    assert_eq!(refused(&mut f, Condition::VersionEquals(99)), expected(ConditionFailure::VersionDiffers));
    let other = EntityValue::new("9").unwrap();
    assert_eq!(refused(&mut f, Condition::ValueEquals(other)), expected(ConditionFailure::ValueDiffers));
    let absent = f.write(vec![conditional(set("none", "2"), Condition::MustExist)]).unwrap_err();
    assert_eq!(
        absent,
        WriteRefusal::ConditionFailed {
            op_index: 0,
            failure: ConditionFailure::DoesNotExist,
            current_version: None,
            current_value: None
        }
    );
    assert_eq!(f.state.tip(VAULT).unwrap(), tip, "a refused transaction makes no block");
    assert_eq!(f.state.entity(VAULT, &entity("other"), 0).unwrap(), None);
    f.write(vec![conditional(set("k", "2"), Condition::VersionEquals(first.version))]).unwrap();
    f.write(vec![conditional(set("k", "3"), Condition::ValueEquals(EntityValue::new("2").unwrap()))])
        .unwrap();
}

#[test]
fn a_large_current_value_is_not_sent_back_with_a_refusal() {
    let mut f = Fixture::new();
    f.write(vec![operation(set("k", &"x".repeat(1_025)))]).unwrap();
    let refusal = f.write(vec![conditional(set("k", "2"), Condition::MustNotExist)]).unwrap_err();
    assert!(matches!(
        refusal,
        WriteRefusal::ConditionFailed { current_value: None, current_version: Some(1), .. }
    ));
}

#[test]
fn an_assertion_holds_or_stops_the_transaction_and_writes_nothing() {
    let mut f = Fixture::new();
    f.write(vec![operation(set("k", "1"))]).unwrap();
    let root = f.root();
    let assert = |target, condition| conditional(Action::Assert(target), condition);
    let held = f.write(vec![assert(AssertTarget::Entity(entity("k")), Condition::VersionEquals(1))]).unwrap();
    assert_eq!(held.results, [OperationResult::Held]);
    assert_eq!(f.root(), root);
    let t = tuple("doc:1", "viewer", "user:ada");
    let stops = vec![operation(set("l", "1")), assert(AssertTarget::Relationship(t), Condition::MustExist)];
    assert!(f.write(stops).is_err());
    assert_eq!(f.state.entity(VAULT, &entity("l"), 0).unwrap(), None);
}

#[test]
fn two_puts_of_a_key_in_one_block_then_a_compare_and_set_with_the_first_receipt_fails() {
    let mut f = Fixture::new();
    let both =
        vec![f.submission(vec![operation(set("k", "1"))]), f.submission(vec![operation(set("k", "2"))])];
    let receipts: Vec<_> = f.write_all(both).into_iter().map(Result::unwrap).collect();
    assert_eq!(receipts[0].height, receipts[1].height);
    assert_eq!(receipts[0].block_hash, receipts[1].block_hash);
    assert_ne!(receipts[0].version, receipts[1].version);
    let stale = conditional(set("k", "3"), Condition::VersionEquals(receipts[0].version));
    assert!(matches!(f.write(vec![stale]), Err(WriteRefusal::ConditionFailed { .. })));
    let fresh = conditional(set("k", "3"), Condition::VersionEquals(receipts[1].version));
    assert!(f.write(vec![fresh]).is_ok());
}

#[test]
fn a_repeated_key_gets_its_own_first_answer_also_after_a_restart() {
    let mut f = Fixture::new();
    let one = f.submission(vec![operation(set("k", "1"))]);
    let two = f.submission(vec![operation(set("k", "2"))]);
    let first = f.write_all(vec![one.clone()]).remove(0).unwrap();
    let second = f.write_all(vec![two.clone()]).remove(0).unwrap();
    for round in 0..3 {
        let tip = f.state.tip(VAULT).unwrap();
        let again = f.write_all(vec![one.clone(), two.clone()]);
        assert_eq!(again[0], Ok(Receipt { replayed: true, ..first.clone() }), "round {round}");
        assert_eq!(again[1], Ok(Receipt { replayed: true, ..second.clone() }), "round {round}");
        assert_eq!(f.state.tip(VAULT).unwrap(), tip, "no second block");
        if round == 1 {
            f.flush();
        }
        f.restart();
    }
    assert_eq!(f.state.entity(VAULT, &entity("k"), 0).unwrap().unwrap().value, "2");
}

#[test]
fn a_repeated_key_inside_one_batch_is_applied_once() {
    let mut f = Fixture::new();
    let one = f.submission(vec![operation(set("k", "1"))]);
    let answers = f.write_all(vec![one.clone(), one]);
    let first = answers[0].clone().unwrap();
    assert_eq!(answers[1], Ok(Receipt { replayed: true, ..first }));
    assert_eq!(f.state.tip(VAULT).unwrap().header.tx_count, 1);
}

#[test]
fn a_repeated_key_with_another_payload_or_actor_is_told_apart() {
    let mut f = Fixture::new();
    let one = f.submission(vec![operation(set("k", "1"))]);
    f.write_all(vec![one.clone()]).remove(0).unwrap();
    let key = one.transaction.idempotency_key();
    let other_payload = Transaction::new(key, vec![operation(set("k", "2"))]).unwrap();
    let changed = Submission { transaction: other_payload, ..one.clone() };
    assert_eq!(f.write_all(vec![changed]).remove(0), Err(WriteRefusal::IdempotencyMismatch));
    let other_actor = Submission { actor: Actor::new("client:other").unwrap(), ..one };
    let receipt = f.write_all(vec![other_actor]).remove(0).unwrap();
    assert!(!receipt.replayed);
}

#[test]
fn a_failed_condition_leaves_no_record_of_its_key() {
    let mut f = Fixture::new();
    let one = f.submission(vec![conditional(set("k", "1"), Condition::MustExist)]);
    assert!(f.write_all(vec![one.clone()]).remove(0).is_err());
    f.write(vec![operation(set("k", "0"))]).unwrap();
    let receipt = f.write_all(vec![one]).remove(0).unwrap();
    assert!(!receipt.replayed);
}

#[test]
fn keys_behind_the_floor_or_far_ahead_are_refused_and_never_applied_again() {
    let mut f = Fixture::new();
    let old = f.submission(vec![operation(set("k", "1"))]);
    f.write_all(vec![old.clone()]).remove(0).unwrap();
    f.time_ms = T0 + DAY_MS + 4 * 60_000;
    assert!(f.write_all(vec![old.clone()]).remove(0).unwrap().replayed, "still remembered");
    let unseen = Submission {
        transaction: Transaction::new(
            IdempotencyKey::from_parts(T0, [9; 10]),
            vec![operation(set("z", "1"))],
        )
        .unwrap(),
        ..old.clone()
    };
    let floor_ms = f.time_ms - DAY_MS;
    assert_eq!(f.write_all(vec![unseen]).remove(0), Err(WriteRefusal::IdempotencyKeyExpired { floor_ms }));
    f.time_ms = T0 + DAY_MS + 6 * 60_000;
    let floor_ms = f.time_ms - DAY_MS;
    assert_eq!(f.write_all(vec![old]).remove(0), Err(WriteRefusal::IdempotencyKeyExpired { floor_ms }));
    let ahead = IdempotencyKey::from_parts(f.time_ms + 5 * 60_000 + 1, [9; 10]);
    let ahead = Submission {
        transaction: Transaction::new(ahead, vec![operation(set("z", "1"))]).unwrap(),
        vault: VAULT,
        actor: Actor::new("client:test").unwrap(),
    };
    let log_time_ms = f.time_ms;
    assert_eq!(f.write_all(vec![ahead]).remove(0), Err(WriteRefusal::IdempotencyKeyInFuture { log_time_ms }));
}

#[test]
fn time_never_goes_back() {
    let mut f = Fixture::new();
    f.write(vec![operation(set("k", "1"))]).unwrap();
    f.time_ms = T0 - 1_000;
    let receipt = f.write(vec![operation(set("k", "2"))]).unwrap();
    assert_eq!(receipt.time_ms, T0);
}

#[test]
fn an_expired_entity_is_hidden_stays_in_the_root_and_goes_with_garbage_collection() {
    let mut f = Fixture::new();
    f.write(vec![operation(set_expiring("k", "1", T0 + 10))]).unwrap();
    let with_key = f.root();
    assert!(f.state.entity(VAULT, &entity("k"), T0 + 10).unwrap().is_some());
    assert_eq!(f.state.entity(VAULT, &entity("k"), T0 + 11).unwrap(), None);
    assert_eq!(f.state.entities(VAULT, "", &all(), T0 + 11).unwrap().items, []);
    assert_eq!(f.state.expired(T0 + 10, 10).unwrap(), []);
    assert_eq!(f.state.expired(T0 + 11, 10).unwrap(), [(VAULT, entity("k"))]);
    assert_eq!(f.root(), with_key);

    let expire = vec![operation(Action::ExpireEntity { key: entity("k") })];
    assert_eq!(f.write(expire.clone()), Err(WriteRefusal::ExpireForbidden { op_index: 0 }));
    let mut collect = f.submission(expire);
    collect.actor = Actor::garbage_collector();
    assert_eq!(
        f.write_all(vec![collect.clone()]).remove(0).unwrap().results,
        [OperationResult::NotFound],
        "not yet"
    );
    f.time_ms = T0 + 11;
    collect.transaction = Transaction::new(f.key(), collect.transaction.operations().to_vec()).unwrap();
    assert_eq!(f.write_all(vec![collect]).remove(0).unwrap().results, [OperationResult::Deleted]);
    assert_eq!(f.root(), STATE_EMPTY);
    assert_eq!(f.state.expired(u64::MAX, 10).unwrap(), []);
}

#[test]
fn an_expired_entity_counts_as_absent_for_conditions_and_a_new_expiry_replaces_the_old() {
    let mut f = Fixture::new();
    f.write(vec![operation(set_expiring("k", "1", T0 + 10))]).unwrap();
    f.time_ms = T0 + 20;
    let receipt =
        f.write(vec![conditional(set_expiring("k", "2", T0 + 30), Condition::MustNotExist)]).unwrap();
    assert_eq!(receipt.results, [OperationResult::Created]);
    assert_eq!(f.state.expired(T0 + 20, 10).unwrap(), []);
    assert_eq!(f.state.expired(T0 + 31, 10).unwrap().len(), 1);
    f.write(vec![operation(set("k", "3"))]).unwrap();
    assert_eq!(f.state.expired(u64::MAX, 10).unwrap(), []);
}

#[test]
fn lists_are_complete_ordered_and_paged_across_overlay_and_store() {
    let mut f = Fixture::new();
    for n in 0..25 {
        let t = tuple(
            &format!("doc:{}", n % 3),
            if n % 2 == 0 { "viewer" } else { "editor" },
            &format!("user:{n:02}"),
        );
        f.write(vec![operation(set(&format!("k/{n:02}"), "v")), operation(Action::CreateRelationship(t))])
            .unwrap();
        if n % 5 == 4 {
            f.flush();
        }
    }
    f.write(vec![operation(Action::DeleteEntity { key: entity("k/03") })]).unwrap();
    f.write(vec![operation(Action::DeleteRelationship(tuple("doc:0", "viewer", "user:00")))]).unwrap();
    let expected: Vec<_> = (0..25).filter(|n| *n != 3).map(|n| format!("k/{n:02}")).collect();
    for limit in [1, 2, 7, 24, 25, 1_000] {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = PageRequest { after: after.take(), limit, bytes_max: 1 << 20 };
            let page = f.state.entities(VAULT, "k/", &page, 0).unwrap();
            assert!(page.items.len() <= limit);
            keys.extend(page.items.into_iter().map(|(key, _)| key.as_str().to_owned()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(keys, expected, "limit {limit}");
    }
    let by = |resource: &str, relation: Option<&str>| RelationshipFilter::ByResource {
        resource: Resource::new(resource).unwrap(),
        relation: relation.map(|r| Relation::new(r).unwrap()),
    };
    let count = |f: &Fixture, by| f.state.relationships(VAULT, &by, &all()).unwrap().items.len();
    assert_eq!(count(&f, by("doc:0", None)), (0..25).filter(|n| n % 3 == 0 && *n != 0).count());
    assert_eq!(count(&f, by("doc:0", Some("viewer"))), (0..25).filter(|n| n % 6 == 0 && *n != 0).count());
    assert_eq!(count(&f, by("doc:00", None)), 0, "an id that only begins alike");
    let subject = RelationshipFilter::BySubject { subject: Subject::new("user:07").unwrap(), relation: None };
    assert_eq!(
        f.state.relationships(VAULT, &subject, &all()).unwrap().items,
        [tuple("doc:1", "editor", "user:07")]
    );
}

#[test]
fn every_block_commits_to_its_transactions_and_continues_the_one_before() {
    let mut f = Fixture::new();
    for n in 0..600_u32 {
        f.write(vec![operation(set(&format!("k{}", n % 10), &n.to_string()))]).unwrap();
        if n % 100 == 50 {
            f.flush();
        }
    }
    let tip = f.state.tip(VAULT).unwrap();
    assert_eq!(tip.header.height, 600);
    let mut leaves = Vec::new();
    let mut previous = [0; 32];
    for height in 0..=600 {
        let block = f.state.block(VAULT, height).unwrap().unwrap();
        assert_eq!(block.header.previous, previous);
        previous = block.header.leaf_hash();
        leaves.push(previous);
        let hashes: Vec<_> = block.transactions.iter().map(|t| ledger_verify::hash::log_leaf(t)).collect();
        assert_eq!(block.header.tx_root, log::root_of(&hashes));
    }
    assert_eq!(f.state.block(VAULT, 601).unwrap(), None);
    assert_eq!(tip.log_root, log::root_of(&leaves));
    for height in [0, 1, 255, 256, 511, 512, 600] {
        for size in [height + 1, 601] {
            let path = f.state.inclusion_path(VAULT, height, size).unwrap();
            let root = log::root_of(&leaves[..size as usize]);
            assert_eq!(f.state.log_root_at(VAULT, size).unwrap(), root);
            log::verify_inclusion(&leaves[height as usize], height, size, &path, &root).unwrap();
        }
    }
}

#[test]
fn evidence_proves_presence_and_absence_to_the_newest_state_root() {
    let mut f = Fixture::new();
    let t = tuple("doc:1", "viewer", "user:ada");
    f.write(vec![operation(set("k", "1")), operation(Action::CreateRelationship(t.clone()))]).unwrap();
    for key in [StateKey::Entity { key: "k" }, StateKey::Relationship(t.as_ref())] {
        let evidence = f.state.state_evidence(VAULT, &key).unwrap();
        let leaf = evidence.leaf.unwrap();
        assert_eq!(LeafValue::decode(&leaf).unwrap().version, 1);
        let value_hash = ledger_verify::hash::sha256(&[&leaf]);
        evidence.proof.verify_presence(&evidence.header.state_root, &key.hash(), &value_hash).unwrap();
    }
    let absent = StateKey::Entity { key: "absent" };
    let evidence = f.state.state_evidence(VAULT, &absent).unwrap();
    assert_eq!(evidence.leaf, None);
    evidence.proof.verify_absence(&evidence.header.state_root, &absent.hash()).unwrap();
}

/// Restarted at any point, flushed or not, a ledger has the root it had, and the next write gives the
/// root that a ledger without restarts has.
#[test]
fn a_restart_keeps_the_root_and_so_does_the_write_after_it() {
    let (mut restarted, mut steady) = (Fixture::new(), Fixture::new());
    for n in 0..40_u32 {
        let t = tuple(&format!("doc:{}", n % 4), "viewer", &format!("user:{}", n % 7));
        let relate = if n % 3 == 0 { Action::DeleteRelationship(t) } else { Action::CreateRelationship(t) };
        let write = |f: &mut Fixture| {
            f.write(vec![operation(set(&format!("k{}", n % 9), &n.to_string())), operation(relate.clone())])
                .unwrap()
        };
        assert_eq!(write(&mut restarted), write(&mut steady));
        if n % 4 == 1 {
            restarted.flush();
        }
        let tip = restarted.state.tip(VAULT).unwrap();
        restarted.restart();
        assert_eq!(restarted.state.tip(VAULT).unwrap(), tip, "after write {n}");
        assert_eq!(tip, steady.state.tip(VAULT).unwrap());
    }
}

#[test]
fn replaying_one_log_twice_gives_the_same_rows_and_roots() {
    let mut f = Fixture::new();
    for n in 0..30_u32 {
        let batch =
            (0..5).map(|m| f.submission(vec![operation(set(&format!("k{}", (n + m) % 11), "v"))])).collect();
        f.write_all(batch);
    }
    let rows = |log: &[(LogId, Bytes)]| {
        let store = Arc::new(MemoryStateStore::default());
        let mut state = LedgerState::load(store).unwrap();
        for (at, encoded) in log {
            state.apply(*at, &codec::decode_proposal(encoded).unwrap()).unwrap();
        }
        let batch = state.start_flush().unwrap().batch();
        (batch, state.tip(VAULT).unwrap())
    };
    assert_eq!(rows(&f.log), rows(&f.log));
    assert_eq!(rows(&f.log).1, f.state.tip(VAULT).unwrap());
}

#[test]
fn namespaces_and_vaults_are_created_listed_and_deleted() {
    let mut f = Fixture::new();
    let name = |n: &str| n.to_owned().try_into().unwrap();
    let exists = f.apply(Command::CreateNamespace { name: name("acme") });
    assert_eq!(exists, Outcome::Namespace(Err(AdminRefusal::NamespaceExists(name("acme")))));
    let not_empty = f.apply(Command::DeleteNamespace { name: name("acme") });
    assert!(matches!(
        not_empty,
        Outcome::Namespace(Err(AdminRefusal::NamespaceNotEmpty { vault_count: 1, .. }))
    ));
    let reused = f.apply(Command::CreateVault { vault: "acme/two".parse().unwrap(), id: VAULT });
    assert_eq!(reused, Outcome::Vault(Err(AdminRefusal::VaultIdUsed(VAULT))));
    f.write(vec![operation(set("k", "1"))]).unwrap();
    f.flush();
    let deleted = f.apply(Command::DeleteVault { vault: "acme/main".parse().unwrap() });
    assert!(matches!(deleted, Outcome::Vault(Ok(_))));
    assert_eq!(f.write(vec![operation(set("k", "1"))]), Err(WriteRefusal::VaultNotFound));
    let again = f.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: VAULT });
    assert_eq!(again, Outcome::Vault(Err(AdminRefusal::VaultIdUsed(VAULT))));
    let fresh = VaultId([8; 16]);
    f.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: fresh });
    f.flush();
    f.restart();
    assert_eq!(f.state.entity(fresh, &entity("k"), 0).unwrap(), None);
    let reused = f.apply(Command::CreateVault { vault: "acme/two".parse().unwrap(), id: VAULT });
    assert_eq!(reused, Outcome::Vault(Err(AdminRefusal::VaultIdUsed(VAULT))), "remembered after a restart");
    assert_eq!(f.state.vaults(None, None, 10).len(), 1);
}

#[test]
fn the_doctor_finds_a_sound_store_sound_and_names_vault_and_key_of_a_changed_row() {
    let mut f = Fixture::new();
    let t = tuple("doc:1", "viewer", "user:ada");
    f.write(vec![
        operation(set("a", "1")),
        operation(set("b", "2")),
        operation(Action::CreateRelationship(t)),
    ])
    .unwrap();
    f.write(vec![operation(set("a", "3")), operation(Action::DeleteEntity { key: entity("b") })]).unwrap();
    f.flush();
    let report = doctor::inspect(f.store.clone()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.vaults[0].keys, report.vaults[0].blocks), (2, 3));

    let table = ledger_core::ports::Table::Entities;
    let mut key = 1_u64.to_be_bytes().to_vec();
    key.push(b'a');
    let mut row = f.store.get(table, &key).unwrap().unwrap().to_vec();
    *row.last_mut().unwrap() = b'4';
    let applied = f.store.applied().unwrap().unwrap();
    let change = ledger_core::ports::RowChange { table, key, value: Some(row.into()) };
    f.store
        .commit(&ledger_core::ports::StateBatch { dropped_vaults: vec![], rows: vec![change], applied })
        .unwrap();
    let report = doctor::inspect(f.store.clone()).unwrap();
    assert_eq!(report.vaults[0].vault, "acme/main");
    let named = doctor::Problem::RowChanged { key: "a".into(), version: 2 };
    assert_eq!(report.vaults[0].problems, [named, doctor::Problem::StateRootDiffers { height: 2 }]);
    let opened = LedgerState::load(f.store.clone()).unwrap();
    assert!(opened.fence(VAULT).is_some(), "a changed vault is not served");
}

/// The memory store with one row that fails its checksum, as an adapter reports it.
struct OneCorruptRow {
    store: Arc<MemoryStateStore>,
    row_key: Vec<u8>,
}

impl OneCorruptRow {
    fn error(&self) -> ledger_core::ports::StoreError {
        let key = self.row_key.iter().map(|byte| format!("{byte:02x}")).collect();
        ledger_core::ports::StoreError::Corrupt { table: "entities", key }
    }
}

impl StateStore for OneCorruptRow {
    fn applied(&self) -> Result<Option<ledger_core::ports::AppliedState>, ledger_core::ports::StoreError> {
        self.store.applied()
    }

    fn get(
        &self,
        table: ledger_core::ports::Table,
        key: &[u8],
    ) -> Result<Option<Bytes>, ledger_core::ports::StoreError> {
        if key == self.row_key { Err(self.error()) } else { self.store.get(table, key) }
    }

    fn scan(
        &self,
        table: ledger_core::ports::Table,
        range: &ledger_core::ports::ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), ledger_core::ports::StoreError> {
        let mut corrupt = false;
        self.store.scan(table, range, &mut |key, row| {
            corrupt = key == self.row_key;
            !corrupt && visit(key, row)
        })?;
        if corrupt { Err(self.error()) } else { Ok(()) }
    }

    fn commit(&self, batch: &ledger_core::ports::StateBatch) -> Result<(), ledger_core::ports::StoreError> {
        self.store.commit(batch)
    }

    fn view(&self) -> Result<Box<dyn ledger_core::ports::StateView>, ledger_core::ports::StoreError> {
        self.store.view()
    }

    fn begin_install(
        &self,
    ) -> Result<Box<dyn ledger_core::ports::StateInstall>, ledger_core::ports::StoreError> {
        self.store.begin_install()
    }
}

#[test]
fn the_doctor_names_the_key_of_a_row_without_its_checksum_and_goes_on() {
    let mut f = Fixture::new();
    f.write(vec![operation(set("a", "1")), operation(set("b", "2")), operation(set("c", "3"))]).unwrap();
    f.flush();
    let row_key = [1_u64.to_be_bytes().as_slice(), b"b"].concat();
    let report = doctor::inspect(Arc::new(OneCorruptRow { store: f.store, row_key })).unwrap();
    let corrupt = doctor::Problem::RowCorrupt { key: "b".into() };
    assert_eq!(report.vaults[0].problems, [corrupt, doctor::Problem::StateRootDiffers { height: 1 }]);
    assert_eq!(report.vaults[0].keys, 2);
}

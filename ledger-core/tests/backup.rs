//! Backups through their façade: what a chain covers can be made again, byte for byte, and nothing else passes.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use ledger_core::backup::{
    BackupError, ChainCheck, ChainVault, Continuity, Gathered, Increment, IncrementHeader, Reach, Record,
    Replay, Witness,
};
use ledger_core::command::{Command, Outcome, Proposal, Retention, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::LedgerState;
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, NamespaceName, VaultId};
use ledger_core::ports::{AppliedState, LogId, RowChange, ScanRange, StateBatch, StateStore, Table};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::snapshot::{self, Header};
use ledger_core::transaction::{Action, Actor, Condition, IdempotencyKey, Operation, Transaction};
use ledger_verify::Hash;
use ledger_verify::header::HEADER_VERSION;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey, VerifierKey};

const T0: u64 = 1_800_000_000_000;
const MAIN: VaultId = VaultId([7; 16]);
const SECOND: VaultId = VaultId([8; 16]);
const THIRD: VaultId = VaultId([9; 16]);

/// A ledger on the memory store, whose every entry takes a millisecond.
struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    next: u64,
    random: u64,
    salt: u8,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self { store, state, next: 0, random: 1, salt: 0 };
        fixture.apply(Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: namespace("acme") });
        fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: MAIN });
        fixture
    }

    /// The same ledger from here on, with another future when `salt` differs.
    fn copy(&self, salt: u8) -> Self {
        let store = store_of(&self.store);
        let state = LedgerState::load(store.clone()).unwrap();
        Self { store, state, next: self.next, random: self.random, salt }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1 + self.next / 50, node: 3, index: self.next };
        self.next += 1;
        self.state.apply(at, &Proposal { time_ms: T0 + at.index, command }).unwrap()
    }

    fn submission(&mut self, vault: VaultId, operations: Vec<Operation>) -> Submission {
        self.random += 1;
        let mut random = [self.salt; 10];
        random[2..].copy_from_slice(&self.random.to_be_bytes());
        let key = IdempotencyKey::from_parts(T0, random);
        let transaction = Transaction::new(key, operations).unwrap();
        Submission { vault, actor: Actor::new("client:test").unwrap(), transaction }
    }

    fn write(&mut self, submissions: Vec<Submission>) {
        match self.apply(Command::Write { submissions }) {
            Outcome::Writes(answers) => assert!(answers.iter().all(Result::is_ok), "{answers:?}"),
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, vault: VaultId, key: &str, value: &str) {
        let submission = self.submission(vault, vec![set(key, value, None)]);
        self.write(vec![submission]);
    }

    /// Several entries of every kind: commands, single and mixed batches, refused writes, conditions, expiries.
    fn live(&mut self, rounds: u64) {
        for round in 0..rounds {
            let number = self.random % 40;
            let both = [
                self.submission(MAIN, vec![set(&format!("key-{number}"), &format!("{round}"), None)]),
                self.submission(MAIN, vec![relate(&format!("doc:{}", number % 5), &format!("user:{round}"))]),
                self.submission(MAIN, vec![delete(&format!("key-{}", number / 2))]),
            ];
            self.write(both.to_vec());
            let refused =
                self.submission(MAIN, vec![set("key-0", "x", Some(Condition::VersionEquals(77_777)))]);
            self.apply(Command::Write { submissions: vec![refused] });
            if self.state.vault_id(&"acme/second".parse().unwrap()).is_some() {
                let there = self.submission(SECOND, vec![set("only", &format!("{round}"), None)]);
                let here = self.submission(MAIN, vec![set("only", "both", None)]);
                self.write(vec![there, here]);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(job) = self.state.start_flush() {
            self.store.commit(&job.batch()).unwrap();
            self.state.finish_flush();
        }
    }

    fn outline(&mut self, key: Option<&SigningKey>) -> Header {
        self.flush();
        let mut header = snapshot::outline(self.store.view().unwrap().as_ref(), T0 + self.next).unwrap();
        let Some(key) = key else { return header };
        for entry in &mut header.vaults {
            let tip = self.state.tip(entry.id).unwrap();
            let origin = format!("{}/{}", key.name(), entry.id);
            let checkpoint = Checkpoint { origin, size: tip.size, root: tip.log_root };
            entry.checkpoint = Some(SignedCheckpoint::sign(&checkpoint, key));
        }
        header
    }

    fn base(&mut self) -> Vec<u8> {
        self.base_signed(None)
    }

    fn base_signed(&mut self, key: Option<&SigningKey>) -> Vec<u8> {
        let header = self.outline(key);
        let mut file = Vec::new();
        let view = self.store.view().unwrap();
        snapshot::write(view.as_ref(), &header, &mut file, &mut |_| ControlFlow::Continue(())).unwrap();
        file
    }

    fn increment(&mut self, after: u64) -> Result<Vec<u8>, BackupError> {
        self.increment_signed(after, None)
    }

    fn increment_signed(&mut self, after: u64, key: Option<&SigningKey>) -> Result<Vec<u8>, BackupError> {
        let header = self.outline(key);
        let view = self.store.view().unwrap();
        let gathered = Gathered::since(view.as_ref(), header, after)?;
        let mut file = Vec::new();
        let written = gathered.write(&mut file, &mut |_| ControlFlow::Continue(()))?;
        assert_eq!(written.file_bytes, file.len() as u64);
        Ok(file)
    }

    fn last(&self) -> u64 {
        self.next - 1
    }

    fn witness(&self, vault: VaultId) -> Witness {
        let tip = self.state.tip(vault).unwrap();
        Witness { name: "kept.checkpoint".to_owned(), vault, size: tip.size, root: tip.log_root }
    }
}

fn namespace(name: &str) -> NamespaceName {
    NamespaceName::new(name).unwrap()
}

fn set(key: &str, value: &str, condition: Option<Condition>) -> Operation {
    let value = EntityValue::new(value.as_bytes().to_vec()).unwrap();
    Operation { action: Action::SetEntity { key: entity(key), value, expires_at_ms: 0 }, condition }
}

fn delete(key: &str) -> Operation {
    Operation { action: Action::DeleteEntity { key: entity(key) }, condition: None }
}

fn entity(key: &str) -> EntityKey {
    EntityKey::new(key).unwrap()
}

fn relate(resource: &str, subject: &str) -> Operation {
    let tuple = Relationship {
        resource: Resource::new(resource).unwrap(),
        relation: Relation::new("viewer").unwrap(),
        subject: Subject::new(subject).unwrap(),
    };
    Operation { action: Action::CreateRelationship(tuple), condition: None }
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

fn rows(store: &MemoryStateStore, table: Table) -> Rows {
    let mut rows = Vec::new();
    let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
    let mut collect = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    };
    store.scan(table, &everything, &mut collect).unwrap();
    rows
}

fn store_of(source: &MemoryStateStore) -> Arc<MemoryStateStore> {
    let row =
        |table| move |(key, value): (Vec<u8>, Vec<u8>)| RowChange { table, key, value: Some(value.into()) };
    let rows = Table::ALL.into_iter().flat_map(|table| rows(source, table).into_iter().map(row(table)));
    let applied = source.applied().unwrap().unwrap();
    let store = Arc::new(MemoryStateStore::default());
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows: rows.collect(), applied }).unwrap();
    store
}

fn state_of_base(file: &[u8]) -> (Arc<MemoryStateStore>, LedgerState) {
    let mut rows: Vec<RowChange> = Vec::new();
    let mut keep = |_: &Header, row| {
        rows.push(row);
        Ok(())
    };
    let verified = snapshot::restore(file, &[], &mut keep, &mut |_| ControlFlow::Continue(())).unwrap();
    let applied = AppliedState { last_applied: verified.header.applied, membership: Vec::new().into() };
    let store = Arc::new(MemoryStateStore::default());
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    let state = LedgerState::load(store.clone()).unwrap();
    (store, state)
}

/// Replays the records up to an entry.
fn replay(state: &mut LedgerState, file: &[u8], until: u64) -> Result<u64, BackupError> {
    let mut increment = Increment::open(file)?;
    let header: IncrementHeader = increment.header().clone();
    let mut replay = Replay::new(state, &header)?;
    while let Some(record) = increment.next_record()? {
        if record.index() <= until {
            replay.record(record)?;
        }
    }
    increment.finish()?;
    replay.finish((until >= header.applied.index).then_some(header.applied))
}

fn check(base: &[u8], increments: &[&[u8]], witnesses: &[Witness]) -> Result<Vec<ChainVault>, BackupError> {
    check_with(base, increments, witnesses, &[])
}

fn check_with(
    base: &[u8],
    increments: &[&[u8]],
    witnesses: &[Witness],
    keys: &[VerifierKey],
) -> Result<Vec<ChainVault>, BackupError> {
    let (mut check, _) = ChainCheck::base(base, keys, witnesses, &mut |_| ControlFlow::Continue(()))?;
    for increment in increments {
        check.increment(*increment, keys, &mut |_| ControlFlow::Continue(()))?;
    }
    let held = check.compare(witnesses, Reach::All)?;
    assert!(held.iter().all(|held| *held));
    Ok(check.finish())
}

fn continuity_of_base(file: &[u8]) -> Continuity {
    let verified = snapshot::verify(file, &[], &mut |_| ControlFlow::Continue(())).unwrap();
    let header = verified.header;
    Continuity::of(header.ledger_id, header.applied.index, &header.vaults).unwrap()
}

/// Roots of every vault there is.
fn tips(state: &LedgerState) -> BTreeMap<VaultId, (Hash, Hash, Hash)> {
    let vaults = state.vaults(None, None, usize::MAX);
    let tip = |id| {
        let tip = state.tip(id).unwrap();
        (tip.block_hash, tip.header.state_root, tip.log_root)
    };
    vaults.into_iter().map(|info| (info.id, tip(info.id))).collect()
}

/// A ledger with a base, then everything that can happen: new and deleted vaults and namespaces, a raised header version,
/// other retention, writes in one and in two vaults.
fn eventful() -> (Fixture, Vec<u8>, u64) {
    let mut fixture = Fixture::new();
    fixture.live(3);
    let base = fixture.base();
    let after = fixture.last();
    fixture.live(2);
    fixture.apply(Command::RaiseHeaderVersion { version: HEADER_VERSION });
    fixture.apply(Command::CreateNamespace { name: namespace("short") });
    fixture.apply(Command::CreateVault { vault: "acme/second".parse().unwrap(), id: SECOND });
    fixture.live(4);
    let retention = Retention::Compacted { blocks: 50.try_into().unwrap() };
    fixture.apply(Command::CreateVaultRetaining {
        vault: "acme/third".parse().unwrap(),
        id: THIRD,
        retention,
    });
    fixture.apply(Command::SetRetention { vault: "acme/third".parse().unwrap(), retention: Retention::Full });
    fixture.apply(Command::DeleteVault { vault: "acme/third".parse().unwrap() });
    fixture.apply(Command::DeleteNamespace { name: namespace("short") });
    fixture.live(3);
    (fixture, base, after)
}

#[test]
fn a_base_and_its_increments_make_every_row_again() {
    let (mut fixture, base, after) = eventful();
    let first = fixture.increment(after).unwrap();
    let middle = fixture.last();
    fixture.live(2);
    let second = fixture.increment(middle).unwrap();

    let (store, mut state) = state_of_base(&base);
    assert!(replay(&mut state, &first, u64::MAX).unwrap() > 10);
    assert!(replay(&mut state, &second, u64::MAX).unwrap() > 2);
    let job = state.start_flush().unwrap();
    store.commit(&job.batch()).unwrap();
    state.finish_flush();
    for table in Table::ALL {
        assert_eq!(rows(&store, table), rows(&fixture.store, table), "{}", table.name());
    }
    assert_eq!(tips(&state), tips(&fixture.state));
    assert_eq!(state.last_applied(), fixture.state.last_applied());
}

#[test]
fn every_entry_that_a_chain_covers_can_be_restored_with_the_roots_that_it_had() {
    let mut fixture = Fixture::new();
    fixture.live(2);
    let base = fixture.base();
    let after = fixture.last();
    let mut expected = BTreeMap::from([(after, tips(&fixture.state))]);
    for step in 0..25_u64 {
        match step {
            5 => drop(
                fixture.apply(Command::CreateVault { vault: "acme/second".parse().unwrap(), id: SECOND }),
            ),
            9 => drop(fixture.apply(Command::RaiseHeaderVersion { version: HEADER_VERSION })),
            _ => {
                let (main, second) = (
                    fixture.submission(
                        MAIN,
                        vec![set("k", &format!("{step}"), None), relate("doc:1", &format!("user:{step}"))],
                    ),
                    fixture.submission(SECOND, vec![set("k", &format!("{step}"), None)]),
                );
                let submissions = if step > 5 { vec![main, second] } else { vec![main] };
                fixture.write(submissions);
            }
        }
        expected.insert(fixture.last(), tips(&fixture.state));
    }
    let increment = fixture.increment(after).unwrap();
    for (index, roots) in &expected {
        let (_, mut state) = state_of_base(&base);
        replay(&mut state, &increment, *index).unwrap();
        assert_eq!(tips(&state), *roots, "entry {index}");
    }
    assert_eq!(expected.len(), 26);
}

#[test]
fn a_restored_ledger_refuses_the_keys_that_were_used_and_goes_on() {
    let (mut fixture, base, after) = eventful();
    let submission = fixture.submission(MAIN, vec![set("once", "1", None)]);
    fixture.write(vec![submission.clone()]);
    let increment = fixture.increment(after).unwrap();
    let (_, mut state) = state_of_base(&base);
    replay(&mut state, &increment, u64::MAX).unwrap();
    let at = LogId { term: 9, node: 4, index: fixture.next };
    let command = Command::Write { submissions: vec![submission] };
    let outcome = state.apply(at, &Proposal { time_ms: T0 + 10_000, command }).unwrap();
    let Outcome::Writes(answers) = outcome else { panic!("{outcome:?}") };
    assert!(answers[0].as_ref().unwrap().replayed, "{answers:?}");
}

#[test]
fn a_chain_check_finds_what_the_ledger_has() {
    let key = SigningKey::from_seed(&format!("strongroom/{}", LedgerId([1; 16])), &[5; 32]).unwrap();
    let (mut fixture, _, _) = eventful();
    let early = fixture.witness(MAIN);
    let base = fixture.base_signed(Some(&key));
    let after = fixture.last();
    fixture.live(3);
    let between = fixture.witness(SECOND);
    fixture.live(1);
    let increment = fixture.increment_signed(after, Some(&key)).unwrap();
    let witnesses = [early, between, fixture.witness(MAIN)];
    let keys = [key.verifier_key()];
    let vaults = check_with(&base, &[&increment], &witnesses, &keys).unwrap();
    let found: BTreeMap<_, _> =
        vaults.iter().map(|v| (v.id, (v.block_hash, v.state_root, v.log_root))).collect();
    assert_eq!(found, tips(&fixture.state));
    let keys_of = |info: &ledger_core::command::VaultInfo| (info.id, info.key_count);
    let expected: BTreeMap<_, _> = fixture.state.vaults(None, None, 9).iter().map(keys_of).collect();
    assert_eq!(vaults.iter().map(|v| (v.id, v.keys)).collect::<BTreeMap<_, _>>(), expected);
    assert!(vaults.iter().all(|vault| vault.signed_by == Some(key.verifier_key())));

    let other = SigningKey::from_seed(key.name(), &[6; 32]).unwrap().verifier_key();
    let refused = check_with(&base, &[&increment], &[], &[other]);
    assert!(matches!(refused, Err(BackupError::Base(_))), "{refused:?}");
    let unsigned = fixture.increment(after).unwrap();
    let refused = check_with(&base, &[&unsigned], &[], &keys);
    assert!(matches!(refused, Err(BackupError::Unsigned { .. })), "{refused:?}");
}

#[test]
fn a_checkpoint_of_another_history_is_a_fork_and_one_beyond_the_backup_is_not_reached() {
    let mut fixture = Fixture::new();
    fixture.live(2);
    let base = fixture.base();
    let after = fixture.last();
    let mut other = fixture.copy_after_flush(1);
    fixture.live(2);
    other.live(2);
    let increment = fixture.increment(after).unwrap();
    let forked = check(&base, &[&increment], &[other.witness(MAIN)]);
    assert!(matches!(&forked, Err(BackupError::Fork { vault, .. }) if vault == "acme/main"), "{forked:?}");
    fixture.live(1);
    let short = check(&base, &[&increment], &[fixture.witness(MAIN)]);
    assert!(matches!(short, Err(BackupError::Short { .. })), "{short:?}");
    let unknown = Witness { vault: SECOND, ..fixture.witness(MAIN) };
    let refused = check(&base, &[&increment], &[unknown]);
    assert!(matches!(refused, Err(BackupError::UnknownVault { .. })), "{refused:?}");
}

#[test]
fn an_increment_or_a_base_of_another_history_does_not_go_on_with_a_backup() {
    let mut fixture = Fixture::new();
    fixture.live(2);
    let mut other = fixture.copy_after_flush(1);
    fixture.live(2);
    let base = fixture.base();
    let after = fixture.last();
    let continuity = continuity_of_base(&base);
    other.live(3);
    assert!(other.last() > after);
    let increment = other.increment(after).unwrap();
    let forked = continuity.increment(increment.as_slice(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(forked, Err(BackupError::Fork { .. })), "{forked:?}");
    let forked = continuity.base(other.base().as_slice(), &mut |_| ControlFlow::Continue(()));
    assert!(matches!(forked, Err(BackupError::Fork { .. })), "{forked:?}");

    fixture.live(2);
    let increment = fixture.increment(after).unwrap();
    let whole = continuity.increment(increment.as_slice(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(whole.trailer.blocks > 0);
    let later = continuity.base(fixture.base().as_slice(), &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(later.applied.index, fixture.last());
}

impl Fixture {
    fn copy_after_flush(&mut self, salt: u8) -> Self {
        self.flush();
        self.copy(salt)
    }
}

#[test]
fn no_flipped_bit_of_an_increment_passes() {
    let (mut fixture, base, after) = eventful();
    let increment = fixture.increment(after).unwrap();
    check(&base, &[&increment], &[]).unwrap();
    let step = (increment.len() / 400).max(1);
    let mut refused = 0;
    for at in (0..increment.len()).step_by(step) {
        let mut changed = increment.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(Increment::open(changed.as_slice()).and_then(Increment::finish).is_err(), "byte {at}");
        refused += 1;
    }
    assert!(refused >= 400);
    for end in (0..increment.len()).step_by(step) {
        assert!(Increment::open(&increment[..end]).and_then(Increment::finish).is_err(), "{end} bytes");
    }
}

#[test]
fn a_block_that_was_changed_under_a_right_checksum_is_refused_by_the_check_and_by_the_replay() {
    let mut fixture = Fixture::new();
    fixture.live(1);
    let base = fixture.base();
    let after = fixture.last();
    let mut other = fixture.copy_after_flush(0);
    fixture.put(MAIN, "door", "locked");
    other.put(MAIN, "door", "opened");
    // Same idempotency key, same place: only the value differs. The files go on from the same base.
    let honest = fixture.increment(after).unwrap();
    let forged = other.increment(after).unwrap();
    let vaults = check(&base, &[&honest], &[fixture.witness(MAIN)]).unwrap();
    assert_eq!(vaults[0].height, 2);
    let refused = check(&base, &[&forged], &[fixture.witness(MAIN)]);
    assert!(matches!(refused, Err(BackupError::Fork { .. })), "{refused:?}");

    // The record of the forged block in front of the honest header.
    let mut increment = Increment::open(honest.as_slice()).unwrap();
    let header = increment.header().clone();
    let Some(Record::Block(mut block)) = increment.next_record().unwrap() else { panic!("a block") };
    let mut increment = Increment::open(forged.as_slice()).unwrap();
    let Some(Record::Block(other)) = increment.next_record().unwrap() else { panic!("a block") };
    block.transactions = other.transactions;
    let (_, mut state) = state_of_base(&base);
    let mut replay = Replay::new(&mut state, &header).unwrap();
    replay.record(Record::Block(block)).unwrap();
    let refused = replay.finish(None);
    assert!(matches!(refused, Err(BackupError::Vault { .. })), "{refused:?}");
}

#[test]
fn what_a_deleted_vault_took_with_it_is_named_and_the_rest_is_restored() {
    let mut fixture = Fixture::new();
    fixture.apply(Command::CreateVault { vault: "acme/second".parse().unwrap(), id: SECOND });
    fixture.put(SECOND, "a", "1");
    let base = fixture.base();
    let after = fixture.last();
    fixture.put(SECOND, "a", "2");
    fixture.put(MAIN, "a", "2");
    fixture.apply(Command::DeleteVault { vault: "acme/second".parse().unwrap() });
    let deleted_at = fixture.last();
    fixture.put(MAIN, "a", "3");
    let increment = fixture.increment(after).unwrap();
    let lost = Increment::open(increment.as_slice()).unwrap().header().lost.clone();
    assert_eq!(lost.len(), 1);
    assert_eq!((lost[0].id, lost[0].deleted_at, lost[0].label.as_str()), (SECOND, deleted_at, "acme/second"));
    let vaults = check(&base, &[&increment], &[]).unwrap();
    assert_eq!(vaults.len(), 1);
    let (_, mut state) = state_of_base(&base);
    replay(&mut state, &increment, u64::MAX).unwrap();
    assert_eq!(tips(&state), tips(&fixture.state));
    let continuity = continuity_of_base(&base);
    continuity.increment(increment.as_slice(), &mut |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn dropped_transactions_an_unknown_past_and_a_ledger_that_is_behind_are_told_apart() {
    let mut fixture = Fixture::new();
    fixture.put(MAIN, "a", "1");
    let after = fixture.last();
    fixture.flush();
    let behind = fixture.increment(after + 1);
    assert!(matches!(behind, Err(BackupError::Behind { .. })), "{behind:?}");
    let retention = Retention::Compacted { blocks: 2.try_into().unwrap() };
    fixture.apply(Command::SetRetention { vault: "acme/main".parse().unwrap(), retention });
    for number in 0..8 {
        fixture.put(MAIN, "a", &format!("{number}"));
    }
    let needs_base = fixture.increment(after);
    assert!(matches!(needs_base, Err(BackupError::NeedsBase { .. })), "{needs_base:?}");
    let recent = fixture.last() - 1;
    fixture.increment(recent).unwrap();
    let again = fixture.increment(fixture.last()).unwrap();
    assert_eq!(Increment::open(again.as_slice()).unwrap().finish().unwrap().trailer, Default::default());
}

#[test]
fn a_ledger_of_an_older_program_needs_a_base_from_after_its_journal_began() {
    let mut fixture = Fixture::new();
    fixture.put(MAIN, "a", "1");
    fixture.flush();
    // Rows as a program without a journal leaves them.
    let applied = fixture.store.applied().unwrap().unwrap();
    let without: Vec<_> = rows(&fixture.store, Table::Ledger)
        .into_iter()
        .filter(|(key, _)| key.starts_with(b"journal"))
        .map(|(key, _)| RowChange { table: Table::Ledger, key, value: None })
        .collect();
    assert!(without.len() >= 3, "{}", without.len());
    fixture.store.commit(&StateBatch { dropped_vaults: Vec::new(), rows: without, applied }).unwrap();
    fixture.state = LedgerState::load(fixture.store.clone()).unwrap();
    let before = fixture.last();
    let refused = fixture.increment(before - 1);
    assert!(matches!(refused, Err(BackupError::NeedsBase { .. })), "{refused:?}");
    fixture.put(MAIN, "a", "2");
    fixture.increment(before).unwrap();
    let refused = fixture.increment(before - 1);
    assert!(matches!(refused, Err(BackupError::NeedsBase { .. })), "{refused:?}");
}

//! One vault's rows are damaged on disk: that vault is fenced, the others serve, and recovery brings back what
//! its blocks say, or refuses.

use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::codec;
use ledger_core::command::{Command, Outcome, Proposal, Receipt, Retention, Submission, WriteRefusal};
use ledger_core::doctor;
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{
    IntegrityCheck, IntegrityDepth, IntegrityReport, IssueKind, LedgerState, PageRequest, Progress,
    ReadError, Recovered, RecoveryRefusal, RelationshipFilter, Tip, VaultRecovery,
};
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{
    AppliedState, LogId, RowChange, ScanRange, StateBatch, StateInstall, StateStore, StateView, StoreError,
    Table,
};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_verify::header::HEADER_VERSION;

const T0: u64 = 1_800_000_000_000;
const MAIN: VaultId = VaultId([7; 16]);
const OTHER: VaultId = VaultId([8; 16]);
/// Enough for a full tile of the log.
const BLOCKS: u64 = 300;

/// A store whose disk can be told to corrupt rows: they fail until they are written again.
#[derive(Default)]
struct Disk {
    rows: MemoryStateStore,
    corrupt: std::sync::Mutex<Vec<(Table, Vec<u8>)>>,
}

impl Disk {
    fn check(&self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        if self.corrupt.lock().unwrap().iter().any(|(t, k)| *t == table && k == key) {
            let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(StoreError::Corrupt { table: table.name(), key });
        }
        Ok(())
    }
}

impl StateStore for Disk {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        self.rows.applied()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.check(table, key)?;
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        self.rows.scan(table, range, &mut |key, value| {
            outcome = self.check(table, key);
            outcome.is_ok() && visit(key, value)
        })?;
        outcome
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        let written = |t: &Table, k: &Vec<u8>| batch.rows.iter().any(|row| row.table == *t && row.key == *k);
        self.corrupt.lock().unwrap().retain(|(table, key)| !written(table, key));
        self.rows.commit(batch)
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.rows.view()
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        self.rows.begin_install()
    }
}

/// What somebody does to the disk.
type Damage = fn(&World);

/// Two vaults, the log that made them, and what they held before anything was damaged.
struct World {
    disk: Arc<Disk>,
    state: LedgerState,
    log: Vec<(LogId, Bytes)>,
    receipts: Vec<Receipt>,
}

impl World {
    /// Blocks up to `flushed` are in the store, the others in the log only.
    fn new(flushed: u64) -> Self {
        Self::with_lists_from(100, flushed)
    }

    /// Headers cover lists from the block after `raised` on.
    fn with_lists_from(raised: u64, flushed: u64) -> Self {
        let disk = Arc::new(Disk::default());
        let state = LedgerState::load(disk.clone()).unwrap();
        let mut world = Self { disk, state, log: Vec::new(), receipts: Vec::new() };
        world.apply(Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] });
        world.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        world.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: MAIN });
        world.apply(Command::CreateVault { vault: "acme/other".parse().unwrap(), id: OTHER });
        for number in 1..=BLOCKS {
            let outcome = world.write(number);
            world.receipts.push(outcome.into_iter().next().unwrap().unwrap());
            if number == raised {
                world.apply(Command::RaiseHeaderVersion { version: HEADER_VERSION });
            }
            if number == flushed {
                world.flush();
            }
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 9, index: self.log.len() as u64 };
        let proposal = Proposal { time_ms: T0 + at.index, command };
        self.log.push((at, codec::encode_proposal(&proposal).unwrap()));
        self.state.apply(at, &proposal).unwrap()
    }

    /// Sends transaction `number` to both vaults in one entry.
    fn write(&mut self, number: u64) -> Vec<Result<Receipt, WriteRefusal>> {
        let submission = |vault| Submission {
            vault,
            actor: Actor::new(&format!("client:{}", number % 3)).unwrap(),
            transaction: transaction(number),
        };
        match self.apply(Command::Write { submissions: vec![submission(MAIN), submission(OTHER)] }) {
            Outcome::Writes(answers) => answers,
            other => panic!("{other:?}"),
        }
    }

    fn flush(&mut self) {
        while let Some(job) = self.state.start_flush() {
            self.disk.commit(&job.batch()).unwrap();
            self.state.finish_flush();
        }
    }

    /// Loads what was flushed and applies the rest of the log again.
    fn restart(&mut self) {
        self.state = LedgerState::load(self.disk.clone()).unwrap();
        let from = self.state.last_applied().map_or(0, |at| at.index as usize + 1);
        for (at, encoded) in &self.log[from..] {
            self.state.apply(*at, &codec::decode_proposal(encoded).unwrap()).unwrap();
        }
    }

    /// Writes or removes a row as someone with access to the disk would.
    fn tamper(&self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) {
        let applied = self.disk.applied().unwrap().unwrap();
        let rows = vec![RowChange { table, key, value: value.map(Bytes::from) }];
        self.disk.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).unwrap();
    }

    fn corrupt(&self, table: Table, key: Vec<u8>) {
        assert!(self.disk.get(table, &key).unwrap().is_some(), "there is such a row");
        self.disk.corrupt.lock().unwrap().push((table, key));
    }

    /// The key of the first row of a table whose key, without the vault's number, contains `text`.
    fn row(&self, table: Table, text: &str) -> (Vec<u8>, Vec<u8>) {
        let mut found = None;
        let range = ScanRange { prefix: 1_u64.to_be_bytes().to_vec(), start: Vec::new() };
        self.disk
            .scan(table, &range, &mut |key, value| {
                let rest = key.get(8..).unwrap();
                let contains = rest.windows(text.len()).any(|window| window == text.as_bytes());
                if contains && found.is_none() {
                    found = Some((key.to_vec(), value.to_vec()));
                }
                found.is_none()
            })
            .unwrap();
        found.unwrap_or_else(|| panic!("{} has no row with {text}", table.name()))
    }

    fn change_byte(&self, table: Table, text: &str) {
        let (key, mut value) = self.row(table, text);
        *value.last_mut().unwrap() ^= 1;
        self.tamper(table, key, Some(value));
    }

    fn recover(&mut self) -> Result<Recovered, RecoveryRefusal> {
        let mut recovery = VaultRecovery::start(&self.state, MAIN)?;
        while recovery.is_replaying() {
            recovery.replay(&self.state)?;
        }
        while recovery.repair(&mut self.state)? == Progress::More {}
        self.flush();
        recovery.finish(&mut self.state, None)
    }

    fn check(&self, vault: VaultId, depth: IntegrityDepth) -> IntegrityReport {
        let mut check = IntegrityCheck::start(&self.state, vault, depth).unwrap();
        while check.step(&self.state).unwrap() == Progress::More {}
        check.into_report()
    }

    fn describe(
        &self,
        vault: VaultId,
    ) -> (Tip, Vec<(EntityKey, ledger_core::entity::Entity)>, Vec<Relationship>) {
        let page = PageRequest { after: None, limit: 1_000, bytes_max: 1 << 22 };
        let entities = self.state.entities(vault, "", &page, 0).unwrap().items;
        let by_subject =
            RelationshipFilter::BySubject { subject: Subject::new("user:1").unwrap(), relation: None };
        let relationships = self.state.relationships(vault, &by_subject, &page).unwrap().items;
        (self.state.tip(vault).unwrap(), entities, relationships)
    }

    /// The rows of the past that a vault keeps: undo rows and deletions.
    fn past(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        for table in [Table::Undo, Table::Tombstones] {
            let range = ScanRange { prefix: 1_u64.to_be_bytes().to_vec(), start: Vec::new() };
            self.disk
                .scan(table, &range, &mut |key, value| {
                    rows.push((table, key.to_vec(), value.to_vec()));
                    true
                })
                .unwrap();
        }
        rows
    }

    fn header_key(height: u64) -> Vec<u8> {
        [1_u64.to_be_bytes().as_slice(), &height.to_be_bytes(), &[0]].concat()
    }

    fn body_key(height: u64) -> Vec<u8> {
        [1_u64.to_be_bytes().as_slice(), &height.to_be_bytes(), &[1]].concat()
    }
}

fn transaction(number: u64) -> Transaction {
    let mut random = [3; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let key = IdempotencyKey::from_parts(T0 + number, random);
    let set = |name: String, expires_at_ms| Action::SetEntity {
        key: EntityKey::new(&name).unwrap(),
        value: EntityValue::new(format!("value {number}").into_bytes()).unwrap(),
        expires_at_ms,
    };
    let tuple = |resource: u64| Relationship {
        resource: Resource::new(&format!("doc:{resource}")).unwrap(),
        relation: Relation::new("viewer").unwrap(),
        subject: Subject::new("user:1").unwrap(),
    };
    let mut actions = vec![set(format!("key-{:03}", number % 120), 0)];
    if number.is_multiple_of(10) {
        actions.push(set(format!("short-{number:03}"), T0 + 1_000_000 + number));
        actions.push(Action::CreateRelationship(tuple(number)));
    }
    if number.is_multiple_of(40) {
        actions.push(Action::DeleteRelationship(tuple(number - 10)));
        let gone = format!("short-{:03}", number - 20);
        actions.push(Action::DeleteEntity { key: EntityKey::new(&gone).unwrap() });
    }
    let operations = actions.into_iter().map(|action| Operation { action, condition: None }).collect();
    Transaction::new(key, operations).unwrap()
}

fn kinds(report: &IntegrityReport) -> Vec<IssueKind> {
    report.issues.iter().map(|issue| issue.kind).collect()
}

#[test]
fn a_damaged_vault_is_fenced_alone_and_recovery_restores_the_exact_state() {
    let mut world = World::new(BLOCKS);
    let before = world.describe(MAIN);
    let other = world.describe(OTHER);
    world.change_byte(Table::Entities, "key-007");
    let (removed, _) = world.row(Table::Entities, "key-011");
    world.tamper(Table::Entities, removed, None);
    let (mut added, value) = world.row(Table::Entities, "key-012");
    added.extend_from_slice(b"-forged");
    world.tamper(Table::Entities, added, Some(value));
    let (by_subject, _) = world.row(Table::RelationshipsBySubject, "doc:100");
    world.tamper(Table::RelationshipsBySubject, by_subject, None);
    let (expiry, _) = world.row(Table::Expiries, "short-050");
    world.tamper(Table::Expiries, expiry, None);
    world.corrupt(Table::Relationships, world.row(Table::Relationships, "doc:200").0);
    world.corrupt(Table::Tiles, [1_u64.to_be_bytes().as_slice(), &[0], &0_u64.to_be_bytes()].concat());
    let (client, _) = world.row(Table::Clients, "client:2");
    world.tamper(Table::Clients, client, None);
    world.restart();

    let fence = world.state.fence(MAIN).expect("the damaged vault is fenced");
    assert_eq!((fence.height, fence.expected_root), (BLOCKS, before.0.header.state_root));
    assert_eq!(world.state.fenced_count(), 1);
    let key = EntityKey::new("key-001").unwrap();
    assert!(matches!(world.state.entity(MAIN, &key, 0), Err(ReadError::VaultDiverged(_))));
    assert!(matches!(world.state.tip(MAIN), Err(ReadError::VaultDiverged(_))));
    assert_eq!(world.describe(OTHER), other);

    let report = world.check(MAIN, IntegrityDepth::Full);
    assert!(report.state_is_wrong && report.fence.is_some());
    assert!(kinds(&report).contains(&IssueKind::ReadError), "{:?}", report.issues);
    let named = |text: &str| report.issues.iter().any(|issue| issue.what.contains(text));
    for text in
        ["key-007", "key-011 is missing", "key-012-forged", "doc:200", "short-050 is missing", "tile 0"]
    {
        assert!(named(text), "{text}: {:?}", report.issues);
    }

    let recovered = world.recover().unwrap();
    assert_eq!(recovered.height, BLOCKS);
    assert_eq!(recovered.state_root, before.0.header.state_root);
    assert_eq!(world.describe(MAIN), before);
    assert_eq!(world.state.fenced_count(), 0);
    assert!(world.state.last_transaction(MAIN, &Actor::new("client:2").unwrap()).unwrap().is_some());
    world.flush();
    world.restart();
    assert_eq!(world.describe(MAIN), before, "also after a restart");
    for vault in [MAIN, OTHER] {
        assert_eq!(world.check(vault, IntegrityDepth::Full).issues, []);
        assert_eq!(world.check(vault, IntegrityDepth::Quick).issues, []);
    }
    let answers = world.write(BLOCKS + 1);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[test]
fn writes_that_were_acknowledged_before_the_misfit_was_found_come_back_with_the_recovery() {
    let mut world = World::new(BLOCKS - 40);
    let before = world.describe(MAIN);
    let other = world.describe(OTHER);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    assert!(world.state.fence(MAIN).is_some());
    assert_eq!(world.describe(OTHER), other, "the other vault has its newest writes");
    // A crash in between: the writes that wait are stored.
    world.flush();
    world.restart();
    let recovered = world.recover().unwrap();
    assert_eq!((recovered.height, recovered.entries_resumed), (BLOCKS, 40));
    assert_eq!(world.describe(MAIN), before, "height, headers and roots are the same to the byte");
    let receipts = world.receipts.clone();
    for (number, first) in (1..).zip(receipts) {
        let again = world.write(number).remove(0).unwrap();
        assert_eq!(again, Receipt { replayed: true, ..first });
    }
    world.flush();
    world.restart();
    assert_eq!(world.describe(MAIN), before);
    assert_eq!(world.check(MAIN, IntegrityDepth::Full).issues, []);
}

#[test]
fn a_write_to_a_fenced_vault_is_undecided_and_others_are_written() {
    let mut world = World::new(BLOCKS);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    let answers = world.write(BLOCKS + 1);
    assert!(matches!(answers[0], Err(WriteRefusal::VaultDiverged { height: BLOCKS, .. })), "{answers:?}");
    assert!(answers[1].is_ok());
    let remembered = world.write(5);
    assert_eq!(
        remembered[0],
        Ok(Receipt { replayed: true, ..world.receipts[4].clone() }),
        "a known key is answered"
    );
    assert_eq!(world.recover().unwrap().height, BLOCKS + 1);
    assert!(world.write(BLOCKS + 1)[0].as_ref().is_ok_and(|receipt| receipt.replayed));
}

#[test]
fn a_recovery_that_was_interrupted_leaves_the_fence() {
    let mut world = World::new(BLOCKS);
    let before = world.describe(MAIN);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    let mut recovery = VaultRecovery::start(&world.state, MAIN).unwrap();
    while recovery.is_replaying() {
        recovery.replay(&world.state).unwrap();
    }
    while recovery.repair(&mut world.state).unwrap() == Progress::More {}
    world.flush();
    world.restart();
    assert!(world.state.fence(MAIN).is_some(), "the rows fit again, but nobody has said so");
    world.recover().unwrap();
    assert_eq!(world.describe(MAIN), before);
}

#[test]
fn a_vault_whose_blocks_are_damaged_too_is_not_recovered() {
    let cases: [(&str, Damage); 4] = [
        ("missing_entry", |world| world.tamper(Table::Blocks, World::body_key(17), None)),
        ("archive_error", |world| {
            let mut body = world.disk.get(Table::Blocks, &World::body_key(17)).unwrap().unwrap().to_vec();
            *body.last_mut().unwrap() ^= 1;
            world.tamper(Table::Blocks, World::body_key(17), Some(body));
        }),
        ("read_error", |world| world.corrupt(Table::Blocks, World::body_key(17))),
        ("missing_block", |world| world.tamper(Table::Blocks, World::header_key(17), None)),
    ];
    for (kind, damage) in cases {
        let mut world = World::new(BLOCKS);
        world.change_byte(Table::Entities, "key-007");
        damage(&world);
        world.restart();
        let refused = world.recover().unwrap_err();
        assert!(
            matches!(&refused, RecoveryRefusal::BlockUnusable { height: 17, kind: found, .. } if found.as_str() == kind),
            "{kind}: {refused}"
        );
        assert!(world.state.fence(MAIN).is_some());
        assert_eq!(world.state.fenced_count(), 1);
    }
}

#[test]
fn a_forged_chain_of_blocks_is_no_recovery() {
    let mut world = World::new(BLOCKS);
    let header = world.disk.get(Table::Blocks, &World::header_key(17)).unwrap().unwrap();
    let mut forged = header.to_vec();
    forged[120] ^= 1;
    world.tamper(Table::Blocks, World::header_key(17), Some(forged));
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    let refused = world.recover().unwrap_err();
    assert!(matches!(refused, RecoveryRefusal::BlockUnusable { height: 17, .. }), "{refused}");
}

#[test]
fn only_a_fenced_vault_is_recovered() {
    let mut world = World::new(BLOCKS);
    assert!(matches!(world.recover(), Err(RecoveryRefusal::NotFenced)));
    let unknown = VaultRecovery::start(&world.state, VaultId([99; 16]));
    assert!(matches!(unknown, Err(RecoveryRefusal::VaultNotFound)));
}

#[test]
fn a_check_names_each_kind_of_damage_and_finds_nothing_in_a_sound_vault() {
    let sound = World::new(BLOCKS);
    for depth in [IntegrityDepth::Quick, IntegrityDepth::Full] {
        let report = sound.check(MAIN, depth);
        assert_eq!((report.issues, report.issue_count, report.state_is_wrong), (vec![], 0, false));
    }
    let full = sound.check(MAIN, IntegrityDepth::Full);
    assert!(full.blocks == BLOCKS + 1 && full.rows > 150, "{full:?}");

    // Damage after the ledger was opened: nothing notices before it is looked for.
    let cases: [(IssueKind, bool, Damage); 5] = [
        (IssueKind::StateDivergence, true, |world| world.change_byte(Table::Entities, "key-007")),
        (IssueKind::ReadError, true, |world| {
            world.corrupt(Table::Relationships, world.row(Table::Relationships, "doc:200").0);
        }),
        (IssueKind::MissingEntry, false, |world| world.tamper(Table::Blocks, World::body_key(17), None)),
        (IssueKind::MissingBlock, false, |world| world.tamper(Table::Blocks, World::header_key(17), None)),
        (IssueKind::ChainBreak, false, |world| {
            let header = world.disk.get(Table::Blocks, &World::header_key(16)).unwrap().unwrap();
            world.tamper(Table::Blocks, World::header_key(17), Some(header.to_vec()));
        }),
    ];
    for (kind, state_is_wrong, damage) in cases {
        let mut world = World::new(BLOCKS);
        // The overlay holds nothing any more.
        world.flush();
        damage(&world);
        let report = world.check(MAIN, IntegrityDepth::Full);
        assert!(kinds(&report).contains(&kind), "{kind:?}: {:?}", report.issues);
        assert_eq!(report.state_is_wrong, state_is_wrong, "{:?}", report.issues);
        assert_eq!(world.check(OTHER, IntegrityDepth::Full).issues, []);
        if state_is_wrong {
            world.state.fence_vault(MAIN, "a check found wrong rows").unwrap();
            world.recover().unwrap();
            assert_eq!(world.check(MAIN, IntegrityDepth::Full).issues, []);
        }
    }
}

#[test]
fn a_quick_check_reads_the_newest_blocks_only() {
    let mut world = World::new(BLOCKS);
    world.flush();
    world.tamper(Table::Blocks, World::header_key(2), None);
    assert_eq!(world.check(MAIN, IntegrityDepth::Quick).issues, []);
    world.tamper(Table::Blocks, World::header_key(BLOCKS - 2), None);
    let report = world.check(MAIN, IntegrityDepth::Quick);
    assert!(kinds(&report).contains(&IssueKind::MissingBlock), "{:?}", report.issues);
}

#[test]
fn writes_during_a_check_never_look_like_damage() {
    let mut world = World::new(BLOCKS);
    let mut check = IntegrityCheck::start(&world.state, MAIN, IntegrityDepth::Full).unwrap();
    let mut number = BLOCKS;
    while check.step(&world.state).unwrap() == Progress::More {
        for _ in 0..30 {
            number += 1;
            world.write(number);
        }
        world.flush();
    }
    assert_eq!(check.into_report().issues, []);
    assert!(number > BLOCKS + 100, "there were writes between the steps");
}

#[test]
fn the_doctor_names_derived_rows_tiles_and_the_fence() {
    let mut world = World::new(BLOCKS);
    world.flush();
    let sound = doctor::inspect(world.disk.clone()).unwrap();
    assert!(sound.is_sound(), "{sound:?}");
    let (by_subject, _) = world.row(Table::RelationshipsBySubject, "doc:100");
    world.tamper(Table::RelationshipsBySubject, by_subject, None);
    let (mut expiry, _) = world.row(Table::Expiries, "short-050");
    expiry.extend_from_slice(b"-forged");
    world.tamper(Table::Expiries, expiry, Some(Vec::new()));
    world.corrupt(Table::Tiles, [1_u64.to_be_bytes().as_slice(), &[0], &0_u64.to_be_bytes()].concat());
    let named = |report: &doctor::Report| -> Vec<String> {
        assert_eq!(report.vaults[1].problem_count, 0, "the other vault is sound");
        report.vaults[0].problems.iter().map(ToString::to_string).collect()
    };
    let problems = named(&doctor::inspect(world.disk.clone()).unwrap());
    let expected = [
        "tile 0 of level 0 of the log does not have its checksum",
        "the expiry of short-050-forged, which follows from other rows, does not follow from any",
        "the row by subject of doc:100 viewer user:1, which follows from other rows, is missing",
    ];
    assert_eq!(problems, expected);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    world.flush();
    let problems = named(&doctor::inspect(world.disk.clone()).unwrap());
    assert!(problems.iter().any(|problem| problem.contains("fenced since its block 300")), "{problems:?}");
    world.recover().unwrap();
    world.flush();
    let sound = doctor::inspect(world.disk.clone()).unwrap();
    assert!(sound.is_sound(), "{sound:?}");
}

#[test]
fn blocks_that_waited_get_the_header_version_of_their_time() {
    let mut world = World::with_lists_from(BLOCKS - 20, BLOCKS - 40);
    let before = world.describe(MAIN);
    assert_eq!(before.0.header.version, HEADER_VERSION);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    assert!(world.state.fence(MAIN).is_some());
    assert_eq!(world.recover().unwrap().entries_resumed, 40);
    assert_eq!(world.describe(MAIN), before, "blocks of both versions are the same to the byte");
    let resource = Resource::new("doc:290").unwrap();
    assert!(world.state.list_head(MAIN, &resource).unwrap().leaf.is_some());
    assert_eq!(world.check(MAIN, IntegrityDepth::Full).issues, []);
}

#[test]
fn a_check_names_damaged_rows_of_the_past_and_recovery_makes_them_anew() {
    let mut world = World::new(BLOCKS);
    let past = world.past();
    assert!(past.iter().any(|(table, _, _)| *table == Table::Tombstones), "there are deletions");
    let undo = |height: u64| [1_u64.to_be_bytes(), height.to_be_bytes()].concat();
    let mut changed = world.disk.get(Table::Undo, &undo(200)).unwrap().unwrap().to_vec();
    *changed.last_mut().unwrap() ^= 1;
    world.tamper(Table::Undo, undo(200), Some(changed));
    world.tamper(Table::Undo, undo(50), None);
    world.corrupt(Table::Undo, undo(60));
    let (_, deletion, _) = past.last().unwrap().clone();
    world.tamper(Table::Tombstones, deletion.clone(), None);
    let mut forged = deletion;
    *forged.last_mut().unwrap() ^= 1;
    world.tamper(Table::Tombstones, forged, Some(Vec::new()));
    let report = world.check(MAIN, IntegrityDepth::Full);
    let found: Vec<(u64, &str)> =
        report.issues.iter().map(|issue| (issue.height, issue.what.as_str())).collect();
    for expected in [
        (50, "its undo row is missing"),
        (60, "its undo row does not have its checksum"),
        (200, "its undo row is not what the blocks make of it"),
        (BLOCKS, "a row of tombstones is of no deletion"),
    ] {
        assert!(found.contains(&expected), "{expected:?}: {found:?}");
    }
    assert!(found.iter().any(|(_, what)| *what == "the row of a deletion is missing"), "{found:?}");
    assert!(report.state_is_wrong);
    world.state.fence_vault(MAIN, "a check found wrong rows").unwrap();
    assert_eq!(world.recover().unwrap().rows_repaired, 5);
    world.flush();
    assert_eq!(world.past(), past);
    assert_eq!(world.check(MAIN, IntegrityDepth::Full).issues, []);
}

#[test]
fn a_vault_that_dropped_old_blocks_is_sound_but_not_recovered() {
    let mut world = World::new(BLOCKS);
    let retention = Retention::Compacted { blocks: NonZeroU64::new(50).unwrap() };
    world.apply(Command::SetRetention { vault: "acme/main".parse().unwrap(), retention });
    world.apply(Command::Compact);
    world.flush();
    world.restart();
    for depth in [IntegrityDepth::Quick, IntegrityDepth::Full] {
        let report = world.check(MAIN, depth);
        assert_eq!((report.issues, report.state_is_wrong), (vec![], false));
    }
    assert!(doctor::inspect(world.disk.clone()).unwrap().is_sound());
    world.change_byte(Table::Entities, "key-007");
    let report = world.check(MAIN, IntegrityDepth::Full);
    assert!(report.state_is_wrong && report.issues.iter().any(|issue| issue.what.contains("key-007")));
    world.restart();
    let refused = world.recover().unwrap_err();
    let first_height = BLOCKS + 1 - 50;
    assert!(
        matches!(refused, RecoveryRefusal::Compacted { first_height: first } if first == first_height),
        "{refused}"
    );
    assert!(world.state.fence(MAIN).is_some());
}

#[test]
fn a_fenced_vault_drops_no_block_that_its_recovery_needs() {
    let mut world = World::new(BLOCKS);
    let before = world.describe(MAIN);
    world.change_byte(Table::Entities, "key-007");
    world.restart();
    let retention = Retention::Compacted { blocks: NonZeroU64::new(50).unwrap() };
    world.apply(Command::SetRetention { vault: "acme/main".parse().unwrap(), retention });
    world.apply(Command::Compact);
    assert_eq!(world.state.compaction_backlog(), 0, "nothing is due while it is fenced");
    world.recover().unwrap();
    assert_eq!(world.describe(MAIN), before);
    assert!(world.state.compaction_backlog() > 0);
    world.apply(Command::Compact);
    assert_eq!(world.state.compaction_backlog(), 0);
    assert_eq!(world.check(MAIN, IntegrityDepth::Full).issues, []);
}

//! The past of a vault against a model that keeps every state: values, proofs and versions at every
//! height, over restarts, and what compaction leaves.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger_core::command::{
    AdminRefusal, Command, CompactionProgress, OperationResult, Outcome, Proposal, Receipt, Retention,
    Submission,
};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{
    HistoryLimit, KeyChange, KeyVersion, LastChange, LedgerState, ReadError, Rewind,
};
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, ScanRange, StateStore, Table};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::state_tree::StateTree;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_verify::hash::sha256;
use ledger_verify::state::{LeafKind, LeafValue, StateKey};

const T0: u64 = 1_800_000_000_000;
const VAULT: VaultId = VaultId([7; 16]);
const NAME: &str = "acme/main";

/// A key as the model names it: an entity, or the subject of a relationship of one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Entity(String),
    Related(String),
}

impl Name {
    fn tuple(subject: &str) -> Relationship {
        Relationship {
            resource: Resource::new("doc:1").unwrap(),
            relation: Relation::new("viewer").unwrap(),
            subject: Subject::new(subject).unwrap(),
        }
    }

    /// Calls with the state tree's key.
    fn with<T>(&self, call: impl FnOnce(&StateKey<'_>) -> T) -> T {
        match self {
            Self::Entity(key) => call(&StateKey::Entity { key }),
            Self::Related(subject) => call(&StateKey::Relationship(Self::tuple(subject).as_ref())),
        }
    }
}

type State = BTreeMap<Name, Vec<u8>>;

/// A ledger on the memory store, and what it should remember.
struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    next_index: u64,
    next_key: u64,
    time_ms: u64,
    /// By height.
    states: Vec<State>,
    versions: BTreeMap<Name, Vec<KeyVersion>>,
}

impl Fixture {
    fn new(retention: Option<Retention>) -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self {
            store,
            state,
            next_index: 0,
            next_key: 0,
            time_ms: T0,
            states: vec![State::new()],
            versions: BTreeMap::new(),
        };
        fixture.apply(Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        let vault = NAME.parse().unwrap();
        fixture.apply(match retention {
            None => Command::CreateVault { vault, id: VAULT },
            Some(retention) => Command::CreateVaultRetaining { vault, id: VAULT, retention },
        });
        fixture
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 9, index: self.next_index };
        self.next_index += 1;
        self.state.apply(at, &Proposal { time_ms: self.time_ms, command }).unwrap()
    }

    fn tip(&self) -> u64 {
        self.state.tip(VAULT).unwrap().header.height
    }

    /// Writes transactions as one block and enters in the model what their receipts say.
    fn write(&mut self, transactions: Vec<(Actor, Vec<Operation>)>) {
        let submissions = transactions.into_iter().map(|(actor, operations)| {
            self.next_key += 1;
            let mut random = [0; 10];
            random[2..].copy_from_slice(&self.next_key.to_be_bytes());
            let key = IdempotencyKey::from_parts(self.time_ms, random);
            Submission { vault: VAULT, actor, transaction: Transaction::new(key, operations).unwrap() }
        });
        let submissions: Vec<Submission> = submissions.collect();
        let Outcome::Writes(answers) = self.apply(Command::Write { submissions: submissions.clone() }) else {
            panic!("a write is answered with receipts");
        };
        let mut state = self.states.last().unwrap().clone();
        for (submission, receipt) in submissions.iter().zip(answers) {
            self.enter(&mut state, submission, &receipt.unwrap());
        }
        self.states.push(state);
        assert_eq!(self.states.len() as u64, self.tip() + 1, "one block a write");
    }

    fn enter(&mut self, state: &mut State, submission: &Submission, receipt: &Receipt) {
        let mut changed = BTreeMap::new();
        for (operation, result) in submission.transaction.operations().iter().zip(&receipt.results) {
            let (name, change) = match &operation.action {
                Action::SetEntity { key, value, expires_at_ms } => {
                    let value = value.as_bytes().to_vec().into();
                    (
                        Name::Entity(key.as_str().into()),
                        KeyChange::Set { value, expires_at_ms: *expires_at_ms },
                    )
                }
                Action::DeleteEntity { key } => (Name::Entity(key.as_str().into()), KeyChange::Deleted),
                Action::ExpireEntity { key } => (Name::Entity(key.as_str().into()), KeyChange::Expired),
                Action::CreateRelationship(tuple) => {
                    (Name::Related(tuple.subject.as_str().into()), KeyChange::Related)
                }
                Action::DeleteRelationship(tuple) => {
                    (Name::Related(tuple.subject.as_str().into()), KeyChange::Deleted)
                }
                Action::Assert(_) => continue,
            };
            if !matches!(result, OperationResult::AlreadyExists | OperationResult::NotFound) {
                changed.insert(name, change);
            }
        }
        for (name, change) in changed {
            let leaf = |kind, expires_at_ms, value: &[u8]| {
                let (modified_height, version) = (receipt.height, receipt.version);
                LeafValue { kind, modified_height, version, expires_at_ms, value }.encode()
            };
            match &change {
                KeyChange::Set { value, expires_at_ms } => {
                    state.insert(name.clone(), leaf(LeafKind::Entity, *expires_at_ms, value));
                }
                KeyChange::Related => {
                    state.insert(name.clone(), leaf(LeafKind::Relationship, 0, &[]));
                }
                _ => {
                    state.remove(&name);
                }
            }
            self.versions.entry(name).or_default().push(KeyVersion {
                height: receipt.height,
                version: receipt.version,
                index_in_block: receipt.index_in_block,
                time_ms: receipt.time_ms,
                actor: submission.actor.as_str().to_owned(),
                change,
            });
        }
    }

    fn flush(&mut self) {
        if let Some(job) = self.state.start_flush() {
            self.store.commit(&job.batch()).unwrap();
            self.state.finish_flush();
        }
    }

    fn restart(&mut self) {
        self.flush();
        self.state = LedgerState::load(self.store.clone()).unwrap();
    }

    /// What the key held at a height, by as many calls as it takes.
    fn leaf_at(&self, name: &Name, height: u64) -> Result<Option<Vec<u8>>, ReadError> {
        name.with(|key| {
            let mut from = None;
            loop {
                match self.state.last_change(VAULT, key, height, from)? {
                    LastChange::GoOn(next) => from = Some(next),
                    LastChange::Found(None) => return Ok(None),
                    LastChange::Found(Some(changed)) => {
                        return self.state.leaf_written_by(VAULT, key, changed);
                    }
                }
            }
        })
    }

    fn history(&self, name: &Name, page: usize) -> (Vec<KeyVersion>, Option<u64>) {
        let (mut versions, mut from) = (Vec::new(), None);
        let limit = HistoryLimit { versions: page, bytes: 1 << 20 };
        loop {
            let found = name.with(|key| self.state.key_history(VAULT, key, from, limit)).unwrap();
            assert!(found.versions.len() <= page);
            versions.extend(found.versions);
            match found.next {
                Some(next) => from = Some(next),
                None => return (versions, found.cut_at),
            }
        }
    }

    fn way_to(&self, height: u64) -> Result<Rewind, ReadError> {
        let mut way = self.state.rewind(VAULT, height)?;
        while !self.state.rewind_on(&mut way, u64::MAX, 3)? {}
        Ok(way)
    }

    /// Values and proofs of all keys at a height are those of the model.
    fn check_height(&self, names: &[Name], height: u64) {
        let expected = &self.states[height as usize];
        let header = self.state.header(VAULT, height).unwrap().unwrap();
        let way = self.way_to(height).unwrap();
        let mut tree = self.state.tree_copy(VAULT).unwrap();
        way.clone().apply_to(&mut tree);
        self.state.check_root(VAULT, height, &tree.root()).unwrap();
        for name in names {
            let leaf = expected.get(name);
            let key_hash = name.with(|key| key.hash());
            let in_place = self.state.rewound_proof(&way, &key_hash).unwrap();
            assert_eq!(in_place, tree.prove(&key_hash), "both ways of going back agree");
            match leaf {
                Some(leaf) => in_place.verify_presence(&header.state_root, &key_hash, &sha256(&[leaf])),
                None => in_place.verify_absence(&header.state_root, &key_hash),
            }
            .unwrap();
            assert_eq!(self.leaf_at(name, height).unwrap().as_ref(), leaf, "{name:?} at {height}");
        }
    }

    fn rows_of(&self, table: Table) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let all = ScanRange { prefix: Vec::new(), start: Vec::new() };
        self.store
            .scan(table, &all, &mut |key, _| {
                keys.push(key.to_vec());
                true
            })
            .unwrap();
        keys
    }
}

/// A small generator of random numbers (xorshift), so that a seed names a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn names() -> Vec<Name> {
    let entities = (0..12).map(|number| Name::Entity(format!("key-{number}")));
    entities.chain((0..6).map(|number| Name::Related(format!("user:{number}")))).collect()
}

fn client() -> Actor {
    Actor::new("client:test").unwrap()
}

fn set(key: &str, value: &str) -> Operation {
    set_until(key, value, 0)
}

fn set_until(key: &str, value: &str, expires_at_ms: u64) -> Operation {
    let (key, value) = (EntityKey::new(key).unwrap(), EntityValue::new(value.as_bytes().to_vec()).unwrap());
    Operation { action: Action::SetEntity { key, value, expires_at_ms }, condition: None }
}

fn delete(key: &str) -> Operation {
    Operation { action: Action::DeleteEntity { key: EntityKey::new(key).unwrap() }, condition: None }
}

fn expire(key: &str) -> Operation {
    Operation { action: Action::ExpireEntity { key: EntityKey::new(key).unwrap() }, condition: None }
}

fn random_operation(random: &mut Random, time_ms: u64, names: &[Name]) -> Operation {
    match &names[random.below(names.len() as u64) as usize] {
        Name::Entity(key) => match random.below(4) {
            0 => delete(key),
            1 => set_until(key, &format!("{}", random.below(1 << 40)), time_ms + random.below(5_000) + 1),
            _ => set(key, &format!("{}", random.below(1 << 40))),
        },
        Name::Related(subject) => {
            let tuple = Name::tuple(subject);
            let action = match random.below(2) {
                0 => Action::DeleteRelationship(tuple),
                _ => Action::CreateRelationship(tuple),
            };
            Operation { action, condition: None }
        }
    }
}

/// One block of random transactions; the ledger's own collector expires keys in some of them.
fn random_block(fixture: &mut Fixture, random: &mut Random, names: &[Name]) {
    fixture.time_ms += random.below(2_000);
    let mut transactions = Vec::new();
    for _ in 0..=random.below(3) {
        let count = random.below(5) + 1;
        let operations = (0..count).map(|_| random_operation(random, fixture.time_ms, names)).collect();
        transactions.push((client(), operations));
    }
    if random.below(3) == 0 {
        let keys = names.iter().filter_map(|name| match name {
            Name::Entity(key) => Some(expire(key)),
            Name::Related(_) => None,
        });
        transactions.push((Actor::garbage_collector(), keys.collect()));
    }
    fixture.write(transactions);
}

#[test]
fn every_height_reads_and_proves_as_a_model_that_keeps_every_state() {
    let names = names();
    let mut deletions = 0;
    for seed in 1..=6 {
        let mut random = Random(seed * 7_919);
        let mut fixture = Fixture::new(None);
        for _ in 0..60 {
            random_block(&mut fixture, &mut random, &names);
            match random.below(8) {
                0 => fixture.flush(),
                1 => fixture.restart(),
                _ => {}
            }
        }
        for height in 0..=fixture.tip() {
            fixture.check_height(&names, height);
        }
        fixture.restart();
        for name in &names {
            let mut expected = fixture.versions.get(name).cloned().unwrap_or_default();
            deletions += expected
                .iter()
                .filter(|v| matches!(v.change, KeyChange::Deleted | KeyChange::Expired))
                .count();
            expected.reverse();
            for page in [1, 3, 1_000] {
                assert_eq!(fixture.history(name, page), (expected.clone(), None), "{name:?} seed {seed}");
            }
        }
        for height in [0, 1, 30, fixture.tip()] {
            fixture.check_height(&names, height);
        }
    }
    assert!(deletions > 100, "the runs deleted and expired keys: {deletions}");
}

#[test]
fn a_height_that_does_not_exist_yet_is_refused() {
    let mut fixture = Fixture::new(None);
    fixture.write(vec![(client(), vec![set("k", "1")])]);
    let key = Name::Entity("k".into());
    assert!(matches!(fixture.leaf_at(&key, 2), Err(ReadError::HeightUnavailable { asked: 2, height: 1 })));
    assert!(matches!(fixture.way_to(2), Err(ReadError::HeightUnavailable { asked: 2, height: 1 })));
    assert_eq!(fixture.state.header(VAULT, 2).unwrap(), None);
}

#[test]
fn a_way_back_that_blocks_have_overtaken_goes_on_and_an_old_one_is_refused() {
    let mut fixture = Fixture::new(None);
    for number in 0..5 {
        fixture.write(vec![(client(), vec![set(&format!("k{number}"), "old")])]);
    }
    let key = Name::Entity("k0".into()).with(|key| key.hash());
    let mut way = fixture.way_to(3).unwrap();
    fixture.write(vec![(client(), vec![set("k0", "new")])]);
    assert!(fixture.state.rewound_proof(&way, &key).is_err(), "a block has come since");
    while !fixture.state.rewind_on(&mut way, u64::MAX, 1).unwrap() {}
    let proof = fixture.state.rewound_proof(&way, &key).unwrap();
    let header = fixture.state.header(VAULT, 3).unwrap().unwrap();
    let leaf = fixture.leaf_at(&Name::Entity("k0".into()), 3).unwrap().unwrap();
    proof.verify_presence(&header.state_root, &key, &sha256(&[&leaf])).unwrap();
    assert_eq!(way.changed_keys(), 3, "k3, k4 and k0");
}

#[test]
fn a_compacted_vault_keeps_headers_and_the_newest_blocks_and_says_what_is_gone() {
    const KEPT: u64 = 10;
    let names = names();
    let retention = "compacted:10".parse::<Retention>().unwrap();
    let mut fixture = Fixture::new(Some(retention));
    let mut random = Random(77);
    fixture.write(vec![(client(), vec![set("lasting", "never changed")])]);
    for number in 0..80 {
        random_block(&mut fixture, &mut random, &names);
        if number % 16 == 3 {
            fixture.restart();
        }
    }
    let tip = fixture.tip();
    let first = tip + 1 - KEPT;
    let info = fixture.state.vault(&NAME.parse().unwrap()).unwrap();
    assert_eq!((info.retention, info.first_height), (retention, first));

    let lasting = Name::Entity("lasting".into());
    let mut lost = 0;
    for height in first..=tip {
        // The state of every kept height is proved; a value is there unless its block is gone and it was
        // overwritten since.
        let way = fixture.way_to(height).unwrap();
        assert_eq!(
            fixture.leaf_at(&lasting, height).unwrap().as_ref(),
            fixture.states[height as usize].get(&lasting)
        );
        for name in &names {
            fixture.state.rewound_proof(&way, &name.with(|key| key.hash())).unwrap();
            match fixture.leaf_at(name, height) {
                Ok(leaf) => assert_eq!(leaf.as_ref(), fixture.states[height as usize].get(name)),
                Err(ReadError::Compacted { asked, first: named }) => {
                    assert!(asked < first && named == first, "it names the block and the first height");
                    lost += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(lost > 0, "some values went with their blocks");
    for height in 0..first {
        assert!(fixture.state.header(VAULT, height).unwrap().is_some(), "headers stay");
        fixture.state.inclusion_path(VAULT, height, tip + 1).unwrap();
        assert!(matches!(fixture.leaf_at(&lasting, height), Err(ReadError::Compacted { .. })));
        assert!(matches!(fixture.way_to(height), Err(ReadError::Compacted { .. })));
        if height > 0 {
            assert!(matches!(fixture.state.block(VAULT, height), Err(ReadError::Compacted { .. })));
        }
    }
    assert_eq!(fixture.state.block(VAULT, 0).unwrap().unwrap().transactions.len(), 0, "genesis has no body");
    fixture.flush();
    let report = ledger_core::doctor::inspect(fixture.store.clone()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let bodies = fixture.rows_of(Table::Blocks).into_iter().filter(|key| key.last() == Some(&1)).count();
    assert_eq!((bodies as u64, fixture.rows_of(Table::Undo).len() as u64), (KEPT, KEPT));
    let tombstone_height = |key: &Vec<u8>| !u64::from_be_bytes(key[40..48].try_into().unwrap());
    assert!(fixture.rows_of(Table::Tombstones).iter().all(|key| tombstone_height(key) >= first));

    for name in &names {
        let (found, cut) = fixture.history(name, 2);
        let all = fixture.versions.get(name).cloned().unwrap_or_default();
        let mut expected: Vec<_> = all.iter().filter(|version| version.height >= first).cloned().collect();
        expected.reverse();
        assert_eq!(found, expected, "{name:?}");
        assert_eq!(cut, Some(first), "older versions may be gone");
    }
}

#[test]
fn a_lowered_retention_drops_the_rest_in_bounded_steps() {
    let mut fixture = Fixture::new(None);
    let total = 5_000;
    for number in 0..total {
        fixture
            .write(vec![(client(), vec![set("k", &number.to_string()), set("gone", "x"), delete("gone")])]);
    }
    let set_retention = |retention: &str| Command::SetRetention {
        vault: NAME.parse().unwrap(),
        retention: retention.parse().unwrap(),
    };
    let Outcome::Vault(Ok(info)) = fixture.apply(set_retention("compacted:3")) else { panic!("it is there") };
    assert_eq!((info.retention.to_string().as_str(), info.first_height), ("compacted:3", 0), "not yet");
    assert_eq!(fixture.state.compaction_backlog(), total - 2);
    let mut rounds = 0;
    while fixture.state.compaction_backlog() > 0 {
        let Outcome::Compacted(progress) = fixture.apply(Command::Compact) else { panic!("it compacts") };
        assert!(progress.dropped > 0 && progress.dropped <= 2_048, "{progress:?}");
        assert_eq!(progress.left, fixture.state.compaction_backlog());
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    fixture.restart();
    assert_eq!(fixture.rows_of(Table::Undo).len(), 3);
    assert_eq!(fixture.rows_of(Table::Tombstones).len(), 3);
    assert_eq!(fixture.apply(Command::Compact), Outcome::Compacted(CompactionProgress::default()));
    fixture.check_height(&[Name::Entity("k".into())], total);

    // Keeping everything from now on brings nothing back.
    fixture.apply(set_retention("full"));
    fixture.write(vec![(client(), vec![set("k", "after")])]);
    let info = fixture.state.vault(&NAME.parse().unwrap()).unwrap();
    assert_eq!((info.retention, info.first_height), (Retention::Full, total - 2));
    let unknown = Command::SetRetention { vault: "acme/none".parse().unwrap(), retention: Retention::Full };
    let refused = AdminRefusal::VaultNotFound("acme/none".parse().unwrap());
    assert_eq!(fixture.apply(unknown), Outcome::Vault(Err(refused)));
}

#[test]
fn a_deleted_vault_leaves_no_undo_rows_and_no_tombstones() {
    let mut fixture = Fixture::new(None);
    fixture.write(vec![(client(), vec![set("k", "1")])]);
    fixture.write(vec![(client(), vec![delete("k")])]);
    fixture.flush();
    assert_eq!((fixture.rows_of(Table::Undo).len(), fixture.rows_of(Table::Tombstones).len()), (2, 1));
    fixture.apply(Command::DeleteVault { vault: NAME.parse().unwrap() });
    fixture.flush();
    assert_eq!((fixture.rows_of(Table::Undo).len(), fixture.rows_of(Table::Tombstones).len()), (0, 0));
}

#[test]
fn a_proof_after_changes_is_the_proof_of_the_changed_tree() {
    let mut random = Random(5);
    let key = |number: u64| sha256(&[&number.to_be_bytes()]);
    for size in [0, 1, 2, 3, 50, 400] {
        let tree =
            StateTree::from_leaves((0..size).map(|number| (key(number), key(number + 1_000))).collect());
        for count in [0, 1, 2, 7, size + 3] {
            let mut changes = BTreeMap::new();
            for _ in 0..count {
                let value = (random.below(2) == 0).then(|| key(random.below(1 << 30)));
                changes.insert(key(random.below(size + 5)), value);
            }
            let changes: Vec<_> = changes.into_iter().collect();
            let mut changed = tree.clone();
            changed.update(changes.clone());
            for number in 0..size + 8 {
                let (root, proof) = tree.prove_changed(&changes, &key(number));
                assert_eq!(root, changed.root(), "{size} keys, {count} changes");
                assert_eq!(proof, changed.prove(&key(number)), "{size} keys, {count} changes, key {number}");
            }
        }
    }
}

#[test]
fn retentions_are_written_as_they_are_read() {
    for text in ["full", "compacted:1", "compacted:18446744073709551615"] {
        assert_eq!(text.parse::<Retention>().unwrap().to_string(), text);
    }
    for wrong in
        ["", "Full", "compacted", "compacted:", "compacted:0", "compacted:-1", "full:1", "compacted:1:2"]
    {
        assert!(wrong.parse::<Retention>().is_err(), "{wrong}");
    }
}

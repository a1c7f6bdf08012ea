//! Lists through the state machine: their leaves follow the relationships in every state and after every restart,
//! and their pages prove exactly what a naive model holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::command::{Command, OperationResult, Outcome, Proposal, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{
    Collected, LIST_BLOCKS_MAX, LedgerState, ListCollector, ReadError, StateError,
};
use ledger_core::list_snapshot::{ListPageLimits, ListSnapshot};
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::ports::{LogId, StateStore};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
use ledger_core::{codec, doctor};
use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, sha256, state_leaf, state_node};
use ledger_verify::header::{HEADER_VERSION, HEADER_VERSION_WITHOUT_LISTS};
use ledger_verify::list::{
    self, KeyRange, ListEvidence, ListLeaf, ListPage, ListSubject, member_key, member_value_hash, successor,
};
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey};
use ledger_verify::proof::{Evidence, log_key_name, log_origin};
use ledger_verify::state::{LeafKind, LeafValue, StateKey};
use proptest::prelude::*;

const T0: u64 = 1_800_000_000_000;
const LEDGER: LedgerId = LedgerId([1; 16]);
const VAULT: VaultId = VaultId([7; 16]);
const SMALL_PAGES: ListPageLimits = ListPageLimits { members_max: 3, bytes_max: 1 << 20 };

/// A ledger on the memory store with one vault, and the log that led there.
struct Fixture {
    store: Arc<MemoryStateStore>,
    state: LedgerState,
    log: Vec<Bytes>,
    next_key: u64,
}

impl Fixture {
    fn new() -> Self {
        let mut fixture = Self::of_an_older_program();
        fixture.raise();
        fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: VAULT });
        fixture
    }

    /// The ledger before it was told to write newer headers, without a vault.
    fn of_an_older_program() -> Self {
        let store = Arc::new(MemoryStateStore::default());
        let state = LedgerState::load(store.clone()).unwrap();
        let mut fixture = Self { store, state, log: Vec::new(), next_key: 0 };
        fixture.apply(Command::Initialise { ledger_id: LEDGER, page_key: [2; 32] });
        fixture.apply(Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() });
        fixture
    }

    fn raise(&mut self) {
        let outcome = self.apply(Command::RaiseHeaderVersion { version: HEADER_VERSION });
        assert_eq!(outcome, Outcome::HeaderVersion(HEADER_VERSION));
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let at = LogId { term: 1, node: 9, index: self.log.len() as u64 };
        let proposal = Proposal { time_ms: T0, command };
        self.log.push(codec::encode_proposal(&proposal).unwrap());
        self.state.apply(at, &proposal).unwrap()
    }

    fn submission(&mut self, actions: Vec<Action>) -> Submission {
        self.next_key += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.next_key.to_be_bytes());
        let operations = actions.into_iter().map(|action| Operation { action, condition: None }).collect();
        let transaction = Transaction::new(IdempotencyKey::from_parts(T0, random), operations).unwrap();
        Submission { vault: VAULT, actor: Actor::new("client:test").unwrap(), transaction }
    }

    /// One block of as many transactions.
    fn block(&mut self, transactions: Vec<Vec<Action>>) -> Vec<Vec<OperationResult>> {
        let submissions = transactions.into_iter().map(|actions| self.submission(actions)).collect();
        match self.apply(Command::Write { submissions }) {
            Outcome::Writes(answers) => answers.into_iter().map(|answer| answer.unwrap().results).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn height(&self) -> u64 {
        self.state.tip(VAULT).unwrap().header.height
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
        let from = self.state.last_applied().map_or(0, |at| at.index + 1);
        for index in from..self.log.len() as u64 {
            let at = LogId { term: 1, node: 9, index };
            let proposal = codec::decode_proposal(&self.log[index as usize]).unwrap();
            self.state.apply(at, &proposal).unwrap();
        }
    }

    fn snapshot(&self, name: &str, height: u64) -> ListSnapshot {
        let mut collector = ListCollector::new(VAULT, resource(name), height);
        while collector.step(&self.state).unwrap() == Collected::Partly {}
        collector.finish()
    }

    /// A list of the newest block as a reader gets it.
    fn list(&self, subject: &ListSubject, limits: ListPageLimits) -> ListEvidence {
        let head = self.state.list_head(VAULT, &resource(&subject.resource)).unwrap();
        let pages = match &head.leaf {
            None => Vec::new(),
            Some(leaf) => {
                let snapshot = self.snapshot(&subject.resource, head.header.height);
                assert_eq!(snapshot.leaf().as_ref(), Some(leaf));
                pages(&snapshot, subject.range(), limits)
            }
        };
        let tip = self.state.tip(VAULT).unwrap();
        let checkpoint =
            Checkpoint { origin: log_origin(&LEDGER.0, &VAULT.0), size: tip.size, root: tip.log_root };
        let head = Evidence {
            leaf: head.leaf.map(|leaf| leaf.encode().to_vec()),
            state_proof: head.proof,
            header: head.header.encode().to_vec(),
            inclusion_path: self.state.inclusion_path(VAULT, head.header.height, tip.size).unwrap(),
            checkpoint: SignedCheckpoint::sign(&checkpoint, &key()),
        };
        ListEvidence { head, pages }
    }

    fn verified(&self, subject: &ListSubject, limits: ListPageLimits) -> BTreeSet<(String, String)> {
        let evidence = self.list(subject, limits);
        let claim = list::verify(subject, &evidence, &[key().verifier_key()]).unwrap();
        claim.members.into_iter().map(|member| (member.relation, member.subject)).collect()
    }
}

fn pages(snapshot: &ListSnapshot, mut range: KeyRange, limits: ListPageLimits) -> Vec<ListPage> {
    let mut pages = Vec::new();
    loop {
        let page = snapshot.page(&range, limits);
        let last_key = page.last_key;
        pages.push(page);
        if last_key == range.last {
            return pages;
        }
        range.first = successor(&last_key).unwrap();
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&log_key_name(&LEDGER.0), &[5; 32]).unwrap()
}

fn resource(text: &str) -> Resource {
    Resource::new(text).unwrap()
}

fn tuple(resource: &str, relation: &str, subject: &str) -> Relationship {
    Relationship {
        resource: Resource::new(resource).unwrap(),
        relation: Relation::new(relation).unwrap(),
        subject: Subject::new(subject).unwrap(),
    }
}

fn relate(resource: &str, relation: &str, subject: &str) -> Action {
    Action::CreateRelationship(tuple(resource, relation, subject))
}

fn unrelate(resource: &str, relation: &str, subject: &str) -> Action {
    Action::DeleteRelationship(tuple(resource, relation, subject))
}

fn of(resource: &str, relation: Option<&str>) -> ListSubject {
    ListSubject { resource: resource.to_owned(), relation: relation.map(str::to_owned) }
}

/// Every relationship with height and version of its leaf: all that the state root depends on.
type Model = BTreeMap<(String, String, String), (u64, u64)>;

/// The root of a tree by its definition.
fn naive_root(leaves: &BTreeMap<Hash, Hash>, depth: usize) -> Hash {
    if leaves.len() < 2 {
        return leaves.iter().next().map_or(STATE_EMPTY, |(key, value)| state_leaf(key, value));
    }
    let goes_right = |key: &Hash| key[depth / 8] >> (7 - depth % 8) & 1 == 1;
    let (right, left) = leaves.iter().partition(|(key, _)| goes_right(key));
    state_node(&naive_root(&left, depth + 1), &naive_root(&right, depth + 1))
}

fn naive_state_root(model: &Model) -> Hash {
    let mut leaves = BTreeMap::new();
    let mut sets: BTreeMap<&str, BTreeMap<Hash, Hash>> = BTreeMap::new();
    for ((resource, relation, subject), (modified_height, version)) in model {
        let key = StateKey::Relationship(ledger_verify::transaction::RelationshipRef {
            resource,
            relation,
            subject,
        });
        let leaf = LeafValue {
            kind: LeafKind::Relationship,
            modified_height: *modified_height,
            version: *version,
            expires_at_ms: 0,
            value: b"",
        };
        leaves.insert(key.hash(), leaf.hash());
        let member = (member_key(relation, subject), member_value_hash(relation, subject));
        sets.entry(resource).or_default().extend([member]);
    }
    for (resource, set) in sets {
        let leaf = ListLeaf { count: set.len() as u64, root: naive_root(&set, 0) };
        leaves.insert(list::state_key_hash(resource), sha256(&[&leaf.encode()]));
    }
    naive_root(&leaves, 0)
}

fn members_of(model: &Model, subject: &ListSubject) -> BTreeSet<(String, String)> {
    let wanted = |relation: &str| subject.relation.as_deref().is_none_or(|asked| asked == relation);
    model
        .keys()
        .filter(|(resource, relation, _)| *resource == subject.resource && wanted(relation))
        .map(|(_, relation, subject)| (relation.clone(), subject.clone()))
        .collect()
}

/// What happens to one tuple of a small world, so that much is created, repeated and deleted.
fn any_change() -> impl Strategy<Value = (bool, usize, usize, usize)> {
    (any::<bool>(), 0..3_usize, 0..2_usize, 0..30_usize)
}

fn name_of(change: &(bool, usize, usize, usize)) -> (String, String, String) {
    let (_, resource, relation, subject) = change;
    let relation = ["viewer", "editor"][*relation];
    (format!("doc:{resource}"), relation.to_owned(), format!("user:{subject}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn roots_and_proven_lists_are_those_of_the_model_also_after_a_restart(
        blocks in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any_change(), 1..40), 1..4), 1..8),
        flush_after in 0..8_usize,
    ) {
        let mut fixture = Fixture::new();
        let mut model = Model::new();
        let mut version = 0;
        for (index, block) in blocks.iter().enumerate() {
            let actions = block.iter().map(|transaction| transaction.iter().map(|change| {
                let (resource, relation, subject) = name_of(change);
                if change.0 { relate(&resource, &relation, &subject) } else { unrelate(&resource, &relation, &subject) }
            }).collect()).collect();
            fixture.block(actions);
            for transaction in block {
                version += 1;
                for change in transaction {
                    if change.0 {
                        model.entry(name_of(change)).or_insert((fixture.height(), version));
                    } else {
                        model.remove(&name_of(change));
                    }
                }
            }
            let tip = fixture.state.tip(VAULT).unwrap();
            prop_assert_eq!(tip.header.state_root, naive_state_root(&model));
            prop_assert_eq!(tip.header.version, HEADER_VERSION);
            let info = fixture.state.vault(&"acme/main".parse().unwrap()).unwrap();
            prop_assert_eq!(info.key_count, model.len() as u64, "lists are not counted as keys");
            if index == flush_after {
                fixture.flush();
            }
        }
        for subject in [of("doc:0", None), of("doc:1", Some("viewer")), of("doc:2", Some("none")), of("doc:9", None)] {
            prop_assert_eq!(fixture.verified(&subject, SMALL_PAGES), members_of(&model, &subject));
        }
        let tip = fixture.state.tip(VAULT).unwrap();
        fixture.restart();
        prop_assert_eq!(fixture.state.tip(VAULT).unwrap(), tip);
        fixture.flush();
        let reloaded = LedgerState::load(fixture.store.clone()).unwrap();
        prop_assert_eq!(reloaded.tip(VAULT).unwrap(), tip);
        prop_assert!(doctor::inspect(fixture.store.clone()).unwrap().is_sound());
    }
}

#[test]
fn a_list_as_of_an_older_block_is_rebuilt_while_the_ledger_goes_on() {
    let mut fixture = Fixture::new();
    let subject = |number: usize| format!("user:{number:05}");
    // More rows than one step reads.
    for chunk in 0..3 {
        let numbers = chunk * 1_000..(chunk + 1) * 1_000;
        fixture.block(vec![numbers.map(|number| relate("doc:1", "viewer", &subject(number))).collect()]);
    }
    let height = fixture.height();
    let asked = of("doc:1", None);
    let expected = fixture.verified(&asked, ListPageLimits { members_max: 10_000, bytes_max: 1 << 22 });
    let leaf = fixture.state.list_head(VAULT, &resource("doc:1")).unwrap().leaf.unwrap();
    assert_eq!((expected.len(), leaf.count), (3_000, 3_000));

    // Between the steps members that were read go, come back and come anew, and so do some that were not read.
    let mut collector = ListCollector::new(VAULT, resource("doc:1"), height);
    let mut round = 0;
    while collector.step(&fixture.state).unwrap() == Collected::Partly {
        round += 1;
        if round > 12 {
            continue;
        }
        let gone = [5, 1_500, 2_990].map(|number| unrelate("doc:1", "viewer", &subject(number + round)));
        let back = [4, 1_499].map(|number| relate("doc:1", "viewer", &subject(number + round)));
        let new = [relate("doc:1", "editor", &subject(round)), relate("doc:2", "viewer", &subject(round))];
        fixture.block(vec![gone.into(), back.into(), new.into()]);
    }
    assert!(round >= 3, "the test interleaved {round} steps");
    let snapshot = collector.finish();
    assert_eq!(snapshot.leaf(), Some(leaf));
    assert_eq!(fixture.snapshot("doc:1", height).leaf(), Some(leaf), "also when nothing happens meanwhile");
    assert_ne!(fixture.snapshot("doc:1", fixture.height()).leaf(), Some(leaf));
}

#[test]
fn a_list_that_the_vault_left_too_far_behind_is_not_available() {
    let mut fixture = Fixture::new();
    fixture.block(vec![vec![relate("doc:1", "viewer", "user:ada")]]);
    let height = fixture.height();
    let set = |number: u64| Action::SetEntity {
        key: EntityKey::new("counter").unwrap(),
        value: EntityValue::new(number.to_be_bytes().to_vec()).unwrap(),
        expires_at_ms: 0,
    };
    for number in 0..LIST_BLOCKS_MAX {
        fixture.block(vec![vec![set(number)]]);
    }
    assert_eq!(fixture.snapshot("doc:1", height).leaf().unwrap().count, 1);
    fixture.block(vec![vec![set(0)]]);
    let refused = ListCollector::new(VAULT, resource("doc:1"), height).step(&fixture.state);
    assert!(matches!(refused, Err(ReadError::ListHeightGone { .. })), "{refused:?}");
}

#[test]
fn a_vault_of_an_older_program_proves_lists_from_its_next_block_on() {
    let mut fixture = Fixture::of_an_older_program();
    fixture.apply(Command::CreateVault { vault: "acme/main".parse().unwrap(), id: VAULT });
    fixture.block(vec![vec![relate("doc:1", "viewer", "user:ada"), relate("doc:2", "viewer", "user:bob")]]);
    fixture.flush();
    let old = fixture.state.tip(VAULT).unwrap();
    assert_eq!(old.header.version, HEADER_VERSION_WITHOUT_LISTS);
    let refused = fixture.state.list_head(VAULT, &resource("doc:1"));
    assert!(matches!(refused, Err(ReadError::ListsNotCovered { height: 1 })), "{refused:?}");

    // A newer program applies the log's rest: what the older one made stays as it was.
    fixture.block(vec![vec![relate("doc:1", "viewer", "user:eve")]]);
    let unflushed = fixture.state.tip(VAULT).unwrap();
    fixture.restart();
    assert_eq!(fixture.state.tip(VAULT).unwrap(), unflushed);

    fixture.raise();
    assert_eq!(fixture.state.tip(VAULT).unwrap(), unflushed, "no block without a write");
    assert!(fixture.state.list_head(VAULT, &resource("doc:1")).is_err());
    fixture.restart();
    fixture.block(vec![vec![unrelate("doc:2", "viewer", "user:bob")]]);
    let tip = fixture.state.tip(VAULT).unwrap();
    assert_eq!((tip.header.version, tip.header.previous), (HEADER_VERSION, unflushed.block_hash));
    let model = [("user:ada", (1, 1)), ("user:eve", (2, 2))]
        .map(|(subject, leaf)| (("doc:1".to_owned(), "viewer".to_owned(), subject.to_owned()), leaf));
    let model = Model::from(model);
    assert_eq!(tip.header.state_root, naive_state_root(&model));
    for subject in [of("doc:1", None), of("doc:2", None)] {
        assert_eq!(fixture.verified(&subject, SMALL_PAGES), members_of(&model, &subject));
    }
    fixture.restart();
    assert_eq!(fixture.state.tip(VAULT).unwrap(), tip);
    fixture.flush();
    assert_eq!(LedgerState::load(fixture.store.clone()).unwrap().tip(VAULT).unwrap(), tip);
    assert!(doctor::inspect(fixture.store.clone()).unwrap().is_sound(), "with headers of both versions");
}

#[test]
fn headers_of_a_version_that_only_a_newer_program_knows_stop_the_node() {
    let mut fixture = Fixture::new();
    let at = LogId { term: 1, node: 9, index: 99 };
    let command = Command::RaiseHeaderVersion { version: HEADER_VERSION + 1 };
    let refused = fixture.state.apply(at, &Proposal { time_ms: T0, command });
    assert!(matches!(refused, Err(StateError::HeaderVersionUnknown { .. })), "{refused:?}");
    // Lower ones change nothing.
    let outcome = fixture.apply(Command::RaiseHeaderVersion { version: 1 });
    assert_eq!(outcome, Outcome::HeaderVersion(HEADER_VERSION));
}

#[test]
fn pages_keep_their_limits_and_always_go_on() {
    let mut fixture = Fixture::new();
    let long = |number: usize| format!("user:{}{number:03}", "x".repeat(400));
    fixture.block(vec![(0..300).map(|number| relate("doc:1", "viewer", &long(number))).collect()]);
    let snapshot = fixture.snapshot("doc:1", fixture.height());
    for (members_max, bytes_max) in [(1_000, 10_000), (7, 1 << 20), (1, 1 << 20), (1_000, 1)] {
        let pages = pages(&snapshot, KeyRange::ALL, ListPageLimits { members_max, bytes_max });
        let mut first = KeyRange::ALL.first;
        let mut shown = 0;
        for page in &pages {
            let range = KeyRange { first, last: page.last_key };
            let members = list::verify_range(&snapshot.leaf().unwrap().root, &range, &page.nodes).unwrap();
            assert!(members.len() == 1 || (members.len() <= members_max && page.nodes.len() <= bytes_max));
            shown += members.len();
            first = successor(&page.last_key).unwrap_or(first);
        }
        assert_eq!(shown, 300);
        assert_eq!(pages.last().unwrap().last_key, KeyRange::ALL.last);
    }
}

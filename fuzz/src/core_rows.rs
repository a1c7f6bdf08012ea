//! What the ledger replicates and stores, and the tokens of its pages.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::backup::{Gathered, Increment, Replay};
use ledger_core::codec;
use ledger_core::command::{Command, Proposal, Submission};
use ledger_core::entity::{EntityKey, EntityValue};
use ledger_core::ledger_state::{LedgerState, PageRequest, RelationshipFilter};
use ledger_core::memory::{MemoryStateDisk, MemoryStateStore};
use ledger_core::names::{LedgerId, NamespaceName, VaultId, VaultRef};
use ledger_core::page_token;
use ledger_core::ports::{AppliedState, LogId, RowChange, ScanRange, StateBatch, StateStore as _, Table};
use ledger_core::relationship::{Relation, Relationship, Resource, Subject};
use ledger_core::transaction::{Action, Actor, Condition, IdempotencyKey, Operation, Transaction};
use ledger_verify::state::StateKey;

pub const NOW_MS: u64 = 1_800_000_000_000;
const PAGE_KEY: [u8; 32] = [7; 32];
const SCOPE: &[u8] = b"acme/orders, prefix door:";
pub const VAULT: VaultId = VaultId([9; 16]);

/// A snapshot: reading all of it must not panic, and its ends must tell what the whole tells.
pub fn snapshot(bytes: &[u8]) -> bool {
    let whole = ledger_core::snapshot::verify(bytes, &[], &mut |_| ControlFlow::Continue(()));
    let ends = ledger_core::snapshot::summarise(std::io::Cursor::new(bytes));
    if let Ok(whole) = &whole {
        assert_eq!(ends.expect("the ends of a sound file").header, whole.header);
    }
    whole.is_ok()
}

/// An increment of a backup: reading all of it must not panic, and what it holds is replayed or refused.
pub fn increment(bytes: &[u8]) -> bool {
    let Ok(mut increment) = Increment::open(bytes) else { return false };
    let header = increment.header().clone();
    let mut state = history_until(header.after);
    if let Ok(mut replay) = Replay::new(&mut state, &header) {
        while let Ok(Some(record)) = increment.next_record() {
            if replay.record(record).is_err() {
                break;
            }
        }
        let _ = replay.finish(None);
    }
    increment.finish().is_ok()
}

/// The state after the first entries of the history.
fn history_until(index: u64) -> LedgerState {
    let store = Arc::new(MemoryStateStore::open(&MemoryStateDisk::default()));
    let mut state = LedgerState::load(store).expect("an empty store opens");
    for (at, proposal) in (0..=index).zip(history()) {
        state.apply(LogId { term: 1, node: 0, index: at }, &proposal).expect("a valid history");
    }
    state
}

/// What is decoded is encoded so that it decodes to the same.
pub fn proposal(bytes: &[u8]) -> bool {
    let Ok(proposal) = codec::decode_proposal(bytes) else { return false };
    let encoded = codec::encode_proposal(&proposal).expect("what was decoded can be encoded");
    assert_eq!(codec::decode_proposal(&encoded).expect("what was encoded decodes"), proposal);
    true
}

/// A token that is accepted was made with the key, for the query.
pub fn page_token(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(after) = page_token::decode(&PAGE_KEY, SCOPE, text) else { return false };
    assert_eq!(page_token::encode(&PAGE_KEY, SCOPE, &after), text);
    assert!(page_token::decode(&PAGE_KEY, b"another query", text).is_err());
    true
}

/// A store with any rows opens or is refused, and when it opens everything in it can be asked for.
pub fn state_rows(bytes: &[u8]) -> bool {
    let store = MemoryStateStore::open(&MemoryStateDisk::default());
    let rows = parse_rows(bytes);
    let rows = rows
        .into_iter()
        .map(|((table, key), value)| RowChange { table, key, value: Some(value.into()) })
        .collect();
    let applied =
        AppliedState { last_applied: LogId { term: 1, node: 0, index: 9 }, membership: Bytes::new() };
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).expect("the rows are in order");
    let Ok(state) = LedgerState::load(Arc::new(store)) else { return false };
    ask_for_everything(&state);
    true
}

fn ask_for_everything(state: &LedgerState) {
    let page = PageRequest { after: None, limit: 100, bytes_max: 1 << 20 };
    let _ = state.namespaces(None, 100);
    let _ = state.expired(u64::MAX, 100);
    for info in state.vaults(None, None, 100) {
        if info.fence.is_some() {
            // What does not fit is kept out of service: no question is answered from it.
            assert!(state.tip(info.id).is_err() && state.block(info.id, 0).is_err());
            continue;
        }
        let tip = state.tip(info.id).expect("an open vault has a tip");
        assert_eq!(tip.size, info.height + 1);
        for height in 0..tip.size.min(16) {
            let _ = state.block(info.id, height);
            let _ = state.inclusion_path(info.id, height, tip.size);
            let _ = state.log_root_at(info.id, height + 1);
        }
        for (key, _) in state.entities(info.id, "", &page, NOW_MS).map(|page| page.items).unwrap_or_default()
        {
            let _ = state.entity(info.id, &key, NOW_MS);
            let _ = state.state_evidence(info.id, &StateKey::Entity { key: key.as_str() });
        }
        let by = RelationshipFilter::ByResource { resource: plan(), relation: None };
        let tuples = state.relationships(info.id, &by, &page).map(|page| page.items).unwrap_or_default();
        tuples.iter().for_each(|tuple| drop(state.relationship_version(info.id, tuple)));
        let by = RelationshipFilter::BySubject { subject: ada(), relation: None };
        let _ = state.relationships(info.id, &by, &page);
        let _ = state.last_transaction(info.id, &actor());
    }
}

/// Rows one after the other: table (u8), length of the key (u16), key, length of the value (u16), value; whatever is
/// cut off at the end is left out.
fn parse_rows(mut bytes: &[u8]) -> BTreeMap<(Table, Vec<u8>), Vec<u8>> {
    let mut rows = BTreeMap::new();
    while let Some(((table, key, value), rest)) = parse_row(bytes) {
        rows.insert((table, key.to_vec()), value.to_vec());
        bytes = rest;
    }
    rows
}

/// Table, key and value.
type Row<'a> = (Table, &'a [u8], &'a [u8]);

/// The first row, and the bytes behind it.
fn parse_row(bytes: &[u8]) -> Option<(Row<'_>, &[u8])> {
    let (table, rest) = bytes.split_first()?;
    let (key, rest) = parse_text(rest)?;
    let (value, rest) = parse_text(rest)?;
    Some(((Table::ALL[usize::from(*table) % Table::ALL.len()], key, value), rest))
}

fn parse_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn write_row(out: &mut Vec<u8>, table: Table, key: &[u8], value: &[u8]) {
    let number =
        Table::ALL.iter().position(|candidate| *candidate == table).expect("every table is in the list");
    out.push(u8::try_from(number).expect("few tables"));
    for text in [key, value] {
        out.extend_from_slice(&u16::try_from(text.len()).expect("short rows").to_be_bytes());
        out.extend_from_slice(text);
    }
}

fn actor() -> Actor {
    Actor::new("client:fuzz").expect("a valid name")
}

fn plan() -> Resource {
    Resource::new("doc:plan").expect("a valid name")
}

fn ada() -> Subject {
    Subject::new("user:ada").expect("a valid name")
}

/// A short history, one command of each kind.
pub fn history() -> Vec<Proposal> {
    let namespace = NamespaceName::new("acme").expect("a valid name");
    let vault: VaultRef = "acme/orders".parse().expect("a valid name");
    let key = |text: &str| EntityKey::new(text).expect("a valid key");
    let value = |text: &str| EntityValue::new(text.as_bytes().to_vec()).expect("a small value");
    let viewer = Relationship {
        resource: plan(),
        relation: Relation::new("viewer").expect("a valid name"),
        subject: ada(),
    };
    let operation = |action, condition| Operation { action, condition };
    let set = |name: &str, text: &str, expires_at_ms| {
        operation(Action::SetEntity { key: key(name), value: value(text), expires_at_ms }, None)
    };
    let submission = |number: u8, operations| Submission {
        vault: VAULT,
        actor: actor(),
        transaction: Transaction::new(IdempotencyKey::from_parts(NOW_MS, [number; 10]), operations)
            .expect("a valid transaction"),
    };
    let write = |submissions| Command::Write { submissions };
    let guarded =
        operation(Action::DeleteEntity { key: key("door") }, Some(Condition::ValueEquals(value("open"))));
    let commands = [
        Command::Initialise { ledger_id: LedgerId([3; 16]), page_key: PAGE_KEY },
        Command::CreateNamespace { name: namespace.clone() },
        Command::CreateVault { vault: vault.clone(), id: VAULT },
        write(vec![
            submission(1, vec![set("door", "open", 0), set("key", "here", NOW_MS + 60_000)]),
            submission(2, vec![operation(Action::CreateRelationship(viewer.clone()), None)]),
        ]),
        write(vec![submission(3, vec![guarded, set("window", "shut", 0)])]),
        write(vec![submission(4, vec![operation(Action::DeleteRelationship(viewer), None)])]),
        Command::DeleteVault { vault },
        Command::DeleteNamespace { name: namespace },
    ];
    commands.into_iter().map(|command| Proposal { time_ms: NOW_MS, command }).collect()
}

pub fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let store = Arc::new(MemoryStateStore::open(&MemoryStateDisk::default()));
    let mut state = LedgerState::load(store.clone()).expect("an empty store opens");
    for (index, proposal) in history().iter().enumerate() {
        let encoded = codec::encode_proposal(proposal).expect("it can be encoded");
        seeds.push(("proposal", index.to_string(), encoded.to_vec()));
        state.apply(LogId { term: 1, node: 0, index: index as u64 }, proposal).expect("a valid history");
        if let Some(job) = state.start_flush() {
            store.commit(&job.batch()).expect("the rows are in order");
            state.finish_flush();
        }
        seeds.push(("state_rows", index.to_string(), rows_of(&store)));
        seeds.extend(
            increment_since(&store, index as u64, 2).map(|file| ("increment", index.to_string(), file)),
        );
    }
    for (name, after) in [("empty", &b""[..]), ("key", b"door:front"), ("bytes", &[0, 0xFF, 9])] {
        let token = page_token::encode(&PAGE_KEY, SCOPE, after);
        seeds.push(("page_token", name.to_owned(), token.into_bytes()));
    }
    seeds
}

/// What came after an entry, when the last one is so far; two of the history's entries are enough for a seed.
fn increment_since(store: &MemoryStateStore, last: u64, after: u64) -> Option<Vec<u8>> {
    let view = store.view().expect("memory can be read");
    let outline = ledger_core::snapshot::outline(view.as_ref(), NOW_MS).ok()?;
    let gathered = Gathered::since(view.as_ref(), outline, after).ok().filter(|_| last > after)?;
    let mut file = Vec::new();
    gathered.write(&mut file, &mut |_| ControlFlow::Continue(())).expect("memory can be written");
    Some(file)
}

fn rows_of(store: &MemoryStateStore) -> Vec<u8> {
    let mut rows = Vec::new();
    for table in Table::ALL {
        let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
        let mut visit = |key: &[u8], value: &[u8]| {
            write_row(&mut rows, table, key, value);
            true
        };
        store.scan(table, &everything, &mut visit).expect("memory can be read");
    }
    rows
}

//! Undo rows: the way back to earlier states.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ledger_core::command::{Command, Proposal, Retention};
use ledger_core::ledger_state::{
    HistoryLimit, IntegrityCheck, IntegrityDepth, LastChange, LedgerState, Progress,
};
use ledger_core::memory::{MemoryStateDisk, MemoryStateStore};
use ledger_core::names::VaultId;
use ledger_core::ports::{AppliedState, LogId, RowChange, ScanRange, StateBatch, StateStore as _, Table};
use ledger_verify::Hash;
use ledger_verify::state::{StateKey, StateProof};

use crate::core_rows::{self, VAULT};

/// The rows of a short history, the undo rows apart: by height from 1.
struct Sound {
    rows: BTreeMap<(Table, Vec<u8>), Bytes>,
    undo: Vec<(Vec<u8>, Bytes)>,
    /// The proof of every key at every height.
    proofs: BTreeMap<(u64, Hash), StateProof>,
}

fn sound() -> &'static Sound {
    static SOUND: OnceLock<Sound> = OnceLock::new();
    SOUND.get_or_init(|| {
        let store = Arc::new(MemoryStateStore::open(&MemoryStateDisk::default()));
        let mut state = LedgerState::load(store.clone()).expect("an empty store opens");
        for (index, proposal) in core_rows::history().iter().enumerate() {
            // The last ones delete the vault.
            if matches!(proposal.command, Command::DeleteVault { .. }) {
                break;
            }
            state.apply(LogId { term: 1, node: 0, index: index as u64 }, proposal).expect("a valid history");
        }
        store
            .commit(&state.start_flush().expect("there is something").batch())
            .expect("the rows are in order");
        state.finish_flush();
        let mut sound = Sound { rows: BTreeMap::new(), undo: Vec::new(), proofs: BTreeMap::new() };
        for table in Table::ALL {
            let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
            let mut visit = |key: &[u8], value: &[u8]| {
                if table == Table::Undo {
                    sound.undo.push((key.to_vec(), Bytes::copy_from_slice(value)));
                } else {
                    sound.rows.insert((table, key.to_vec()), Bytes::copy_from_slice(value));
                }
                true
            };
            store.scan(table, &everything, &mut visit).expect("memory can be read");
        }
        for height in 0..=tip(&state) {
            for key in keys() {
                let proof = proof(&state, height, &key).expect("a sound state has every proof");
                sound.proofs.insert((height, key), proof);
            }
        }
        sound
    })
}

fn tip(state: &LedgerState) -> u64 {
    state.tip(VAULT).expect("the vault is open").size - 1
}

fn state_keys() -> [StateKey<'static>; 4] {
    ["door", "key", "window", "never"].map(|key| StateKey::Entity { key })
}

fn keys() -> Vec<Hash> {
    state_keys().iter().map(StateKey::hash).collect()
}

fn proof(state: &LedgerState, height: u64, key: &Hash) -> Option<StateProof> {
    let mut way = state.rewind(VAULT, height).ok()?;
    while !state.rewind_on(&mut way, u64::MAX, 2).ok()? {}
    state.rewound_proof(&way, key).ok()
}

/// A vault one of whose undo rows is any bytes serves the proofs of the sound one or none, and the full check finds every
/// byte that differs. The first byte chooses the row. Accepted is what decodes.
pub fn undo_rows(bytes: &[u8]) -> bool {
    let Some((which, row)) = bytes.split_first() else { return false };
    let sound = sound();
    let damaged = usize::from(*which) % sound.undo.len();
    let mut rows = sound.rows.clone();
    for (number, (key, value)) in sound.undo.iter().enumerate() {
        let value = if number == damaged { Bytes::copy_from_slice(row) } else { value.clone() };
        rows.insert((Table::Undo, key.clone()), value);
    }
    let store = MemoryStateStore::open(&MemoryStateDisk::default());
    let rows =
        rows.into_iter().map(|((table, key), value)| RowChange { table, key, value: Some(value) }).collect();
    let applied =
        AppliedState { last_applied: LogId { term: 1, node: 0, index: 9 }, membership: Bytes::new() };
    store.commit(&StateBatch { dropped_vaults: Vec::new(), rows, applied }).expect("the rows are in order");
    let mut state = LedgerState::load(Arc::new(store)).expect("undo rows are not read when a state opens");
    for ((height, key), expected) in &sound.proofs {
        if let Some(served) = proof(&state, *height, key) {
            assert_eq!(&served, expected, "another proof at height {height}");
        }
    }
    ask_for_the_past(&state);
    assert_eq!(is_found_sound(&state, VAULT), row == sound.undo[damaged].1, "the full check");
    // Rows begin with the block that made the vault's first change.
    let height = damaged as u64 + 1;
    let mut way = state.rewind(VAULT, height - 1).expect("every height is kept");
    let is_decoded = state.rewind_on(&mut way, height, 1).is_ok();
    drop_the_past(&mut state);
    is_decoded
}

fn ask_for_the_past(state: &LedgerState) {
    let limit = HistoryLimit { versions: 16, bytes: 1 << 16 };
    for key in state_keys() {
        let mut cursor = None;
        // An undo row may lead to itself: whoever follows it is bounded, as the callers are.
        for _ in 0..8 {
            let Ok(page) = state.key_history(VAULT, &key, cursor, limit) else { break };
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        for height in 0..=tip(state) {
            if let Ok(LastChange::Found(Some(changed))) = state.last_change(VAULT, &key, height, None) {
                let _ = state.leaf_written_by(VAULT, &key, changed);
            }
        }
    }
}

fn is_found_sound(state: &LedgerState, vault: VaultId) -> bool {
    let mut check = IntegrityCheck::start(state, vault, IntegrityDepth::Full).expect("the vault is there");
    while check.step(state).expect("memory can be read") == Progress::More {}
    check.into_report().issue_count == 0
}

/// Retention reads the rows that it drops.
fn drop_the_past(state: &mut LedgerState) {
    let vault = "acme/orders".parse().expect("a valid name");
    let retention = Retention::Compacted { blocks: NonZeroU64::MIN };
    let commands = [Command::SetRetention { vault, retention }, Command::Compact];
    for (index, command) in commands.into_iter().enumerate() {
        let proposal = Proposal { time_ms: core_rows::NOW_MS, command };
        let at = LogId { term: 1, node: 0, index: 10 + index as u64 };
        state.apply(at, &proposal).expect("dropping what cannot be read is no failure");
    }
    assert_eq!(state.compaction_backlog(), 0);
}

pub fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let rows = sound().undo.iter().enumerate();
    rows.map(|(number, (_, row))| {
        let which = u8::try_from(number).expect("few rows");
        ("undo_rows", format!("block-{}", number + 1), [&[which], &row[..]].concat())
    })
    .collect()
}

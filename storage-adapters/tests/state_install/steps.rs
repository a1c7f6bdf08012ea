//! What is done to a store, and what it holds after each step.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger_core::ports::{
    AppliedState, LogId, RowChange, ScanRange, StateBatch, StateInstall, StateStore, StoreError, Table,
};

use super::disk::Dice;

/// One step of a run.
#[derive(Debug, Clone)]
pub enum Step {
    Commit(StateBatch),
    /// New content.
    Install(StateBatch),
    /// New content that is given up after it was sealed.
    GiveUp(StateBatch),
}

pub type Rows = BTreeMap<(Table, Vec<u8>), Bytes>;

/// All that a store holds: rows of append-only tables, the other rows, the mark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub blocks: Rows,
    pub state: Rows,
    pub applied: Option<AppliedState>,
}

impl Content {
    pub fn of(store: &impl StateStore) -> Result<Self, StoreError> {
        let mut content = Self { applied: store.applied()?, ..Self::default() };
        for table in Table::ALL {
            let everything = ScanRange { prefix: Vec::new(), start: Vec::new() };
            store.scan(table, &everything, &mut |key, value| {
                content.rows(table).insert((table, key.to_vec()), Bytes::copy_from_slice(value));
                true
            })?;
        }
        Ok(content)
    }

    pub fn after(&self, step: &Step) -> Self {
        let (mut content, batch) = match step {
            Step::Commit(batch) => (self.clone(), batch),
            Step::Install(batch) => (Self::default(), batch),
            Step::GiveUp(_) => return self.clone(),
        };
        for row in &batch.rows {
            let key = (row.table, row.key.clone());
            match &row.value {
                Some(value) => content.rows(row.table).insert(key, value.clone()),
                None => content.rows(row.table).remove(&key),
            };
        }
        content.applied = Some(batch.applied.clone());
        content
    }

    fn rows(&mut self, table: Table) -> &mut Rows {
        if table.is_append_only() { &mut self.blocks } else { &mut self.state }
    }
}

/// Begins to install rows, up to and with the seal.
pub fn sealed(store: &impl StateStore, batch: &StateBatch) -> Result<Box<dyn StateInstall>, StoreError> {
    let mut install = store.begin_install()?;
    for part in batch.rows.chunks(7) {
        install.put(part)?;
    }
    install.seal(&batch.applied)?;
    Ok(install)
}

pub fn carry_out(store: &impl StateStore, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::Commit(batch) => store.commit(batch),
        Step::Install(batch) => sealed(store, batch)?.publish(),
        Step::GiveUp(batch) => {
            drop(sealed(store, batch)?);
            Ok(())
        }
    }
}

pub fn batch(index: u64, dice: &mut Dice, rows: u64) -> StateBatch {
    let tables = [Table::Ledger, Table::Entities, Table::Relationships, Table::Blocks, Table::Undo];
    let mut all = BTreeMap::new();
    for _ in 0..rows {
        let table = tables[usize::try_from(dice.below(5)).expect("it is small")];
        let key = [&1_u64.to_be_bytes()[..], &dice.below(40).to_be_bytes()].concat();
        let length = usize::try_from(dice.below(300)).expect("it is small");
        // What stands in an append-only table never changes: the key says what it is.
        let fill = if table.is_append_only() { key[15] } else { u8::try_from(index).expect("it is small") };
        let length = if table.is_append_only() { usize::from(fill) } else { length };
        all.insert((table, key), Bytes::from(vec![fill; length]));
    }
    let rows = all.into_iter().map(|((table, key), value)| RowChange { table, key, value: Some(value) });
    StateBatch {
        dropped_vaults: Vec::new(),
        rows: rows.collect(),
        applied: AppliedState {
            last_applied: LogId { term: 1, node: 0, index },
            membership: Bytes::from_static(b"m"),
        },
    }
}

/// Commits and installs in turn.
pub fn steps(seed: u64) -> Vec<Step> {
    let mut dice = Dice(seed);
    let mut next = |index, rows| batch(index, &mut dice, rows);
    vec![
        Step::Commit(next(1, 30)),
        Step::Install(next(5, 40)),
        Step::Commit(next(6, 10)),
        Step::Install(next(12, 0)),
        Step::GiveUp(next(15, 20)),
        Step::Install(next(20, 25)),
    ]
}

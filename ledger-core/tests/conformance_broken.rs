//! The conformance suites catch stores that are broken on purpose, each by the guarantee it breaks.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use ledger_core::conformance;
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore, MemoryStateDisk, MemoryStateStore};
use ledger_core::ports::{
    AppliedState, InstallOrder, LogChange, LogRecord, LogSnapshot, LogStore, RowChange, ScanRange,
    StateBatch, StateInstall, StateStore, StateView, StoreError, Table,
};

/// Fails unless `suite` panics.
#[track_caller]
fn caught(defect: &str, suite: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(suite)).is_err(), "the suite passes a store that {defect}");
}

/// What is wrong with a log store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogDefect {
    AppliesHalfABatch,
    AppliesVotesInReverse,
    ForgetsVotesAtRestart,
    ForgetsTheLastBatchAtRestart,
    ShowsAppendsLate,
    TakesHoles,
    TruncatesOneTooFew,
    PurgesOneTooMany,
    ForgetsThePurgeAtRestart,
    LosesTheLastByte,
    ConfusesKinds,
    GoesOnAfterAnError,
    ReadsNothingUnderATightLimit,
    IgnoresTheLimit,
    IncludesTheEnd,
}

struct BrokenLog {
    inner: MemoryLogStore,
    disk: MemoryLogDisk,
    defect: LogDefect,
    at_start: LogSnapshot,
    unseen: std::sync::Mutex<u64>,
}

impl BrokenLog {
    fn open(disk: &MemoryLogDisk, defect: LogDefect) -> Self {
        let inner = MemoryLogStore::open(disk);
        if defect == LogDefect::ForgetsTheLastBatchAtRestart {
            let last = inner.snapshot().expect("memory is sound").last;
            let keep = last.and_then(|last| last.index.checked_sub(1));
            inner.commit(&[LogChange::TruncateAfter(keep)]).expect("memory is sound");
        }
        let at_start = inner.snapshot().expect("memory is sound");
        Self { inner, disk: disk.clone(), defect, at_start, unseen: std::sync::Mutex::new(0) }
    }

    fn purge_one_more(changes: &[LogChange]) -> Vec<LogChange> {
        let mut changes = changes.to_vec();
        for change in &mut changes {
            if let LogChange::PurgeThrough(id) = change {
                id.index += 1;
            }
        }
        changes
    }
}

impl LogStore for BrokenLog {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        let mut snapshot = self.inner.snapshot()?;
        match self.defect {
            LogDefect::ForgetsVotesAtRestart if snapshot.vote == self.at_start.vote => snapshot.vote = None,
            LogDefect::ForgetsThePurgeAtRestart if snapshot.purged == self.at_start.purged => {
                snapshot.purged = None;
            }
            _ => {}
        }
        Ok(snapshot)
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        let mut records = match self.defect {
            LogDefect::IgnoresTheLimit => self.inner.read(from, to, usize::MAX)?,
            LogDefect::IncludesTheEnd => self.inner.read(from, to.saturating_add(1), bytes_max)?,
            _ => self.inner.read(from, to, bytes_max)?,
        };
        match self.defect {
            LogDefect::ReadsNothingUnderATightLimit => {
                let mut bytes = 0;
                records.retain(|record| {
                    bytes += record.size_bytes();
                    bytes <= bytes_max
                });
            }
            LogDefect::ShowsAppendsLate => {
                let unseen = *self.unseen.lock().expect("nobody panicked");
                records.retain(|record| record.id.index < unseen);
            }
            LogDefect::LosesTheLastByte => {
                for record in &mut records {
                    record.payload.truncate(record.payload.len().saturating_sub(1));
                }
            }
            LogDefect::ConfusesKinds => {
                for record in &mut records {
                    record.kind = ledger_core::ports::LogKind::Proposal;
                }
            }
            _ => {}
        }
        Ok(records)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        if self.defect == LogDefect::ShowsAppendsLate {
            let before = self.inner.snapshot()?.last.map_or(0, |last| last.index);
            *self.unseen.lock().expect("nobody panicked") = before;
        }
        match self.defect {
            LogDefect::AppliesHalfABatch => {
                changes.iter().try_for_each(|change| self.inner.commit(std::slice::from_ref(change)))
            }
            LogDefect::AppliesVotesInReverse => {
                let is_vote = |change: &&LogChange| matches!(change, LogChange::SaveVote(_));
                let votes = changes.iter().rev().filter(is_vote);
                let others = changes.iter().filter(|change| !is_vote(change));
                self.inner.commit(&others.chain(votes).cloned().collect::<Vec<_>>())
            }
            LogDefect::TakesHoles => match self.inner.commit(changes) {
                Err(StoreError::Engine { .. }) => {
                    let open = MemoryLogStore::open(&self.disk);
                    open.commit(&[LogChange::TruncateAfter(None)])?;
                    open.commit(changes)
                }
                result => result,
            },
            LogDefect::TruncatesOneTooFew => {
                let mut changes = changes.to_vec();
                for change in &mut changes {
                    if let LogChange::TruncateAfter(Some(index)) = change {
                        *index += 1;
                    }
                }
                self.inner.commit(&changes)
            }
            LogDefect::PurgesOneTooMany => self.inner.commit(&Self::purge_one_more(changes)),
            LogDefect::GoesOnAfterAnError => MemoryLogStore::open(&self.disk).commit(changes),
            _ => self.inner.commit(changes),
        }
    }
}

fn log_opener(defect: LogDefect) -> impl Fn() -> BrokenLog {
    let disk = MemoryLogDisk::default();
    move || BrokenLog::open(&disk, defect)
}

#[test]
fn the_log_suite_catches_each_defect_under_its_guarantee() {
    use LogDefect as D;
    use conformance::log_store as suite;
    let catches: [(D, fn(D)); 15] = [
        (D::AppliesHalfABatch, |defect| suite::g1_atomic(log_opener(defect))),
        (D::AppliesVotesInReverse, |defect| suite::g1_atomic(log_opener(defect))),
        (D::ForgetsVotesAtRestart, |defect| suite::g2_durable(log_opener(defect))),
        (D::ForgetsTheLastBatchAtRestart, |defect| suite::g2_durable(log_opener(defect))),
        (D::ShowsAppendsLate, |defect| suite::g3_visible(log_opener(defect))),
        (D::TakesHoles, |defect| suite::g4_contiguous(log_opener(defect))),
        (D::TruncatesOneTooFew, |defect| suite::g5_truncate_and_purge(log_opener(defect))),
        (D::PurgesOneTooMany, |defect| suite::g5_truncate_and_purge(log_opener(defect))),
        (D::ForgetsThePurgeAtRestart, |defect| suite::g5_truncate_and_purge(log_opener(defect))),
        (D::LosesTheLastByte, |defect| suite::g6_faithful(log_opener(defect))),
        (D::ConfusesKinds, |defect| suite::g6_faithful(log_opener(defect))),
        (D::GoesOnAfterAnError, |defect| suite::g7_fail_stop(log_opener(defect))),
        (D::ReadsNothingUnderATightLimit, |defect| suite::g8_bounded(log_opener(defect))),
        (D::IgnoresTheLimit, |defect| suite::g8_bounded(log_opener(defect))),
        (D::IncludesTheEnd, |defect| suite::g8_bounded(log_opener(defect))),
    ];
    for (defect, run) in catches {
        caught(&format!("{defect:?}"), || run(defect));
    }
}

/// What is wrong with a state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateDefect {
    AppliesHalfABatch,
    ForgetsTheMarkAtRestart,
    ForgetsBlocksAtRestart,
    ShowsCommitsLate,
    ScansBackwards,
    ScansBeyondThePrefix,
    ScansBeforeTheStart,
    ScansOnWhenTold,
    LosesEmptyValues,
    ChangesAByte,
    DropsLast,
    DropsNoBlocks,
    DropsTooMuch,
    GoesOnAfterAnError,
    ViewsWhatCameLater,
    ViewsAnotherMark,
    InstallsRowByRow,
    InstallsTwiceAtOnce,
}

/// A view that reads the store as it is now.
struct LateView(MemoryStateStore, Option<AppliedState>);

impl StateView for LateView {
    fn applied(&self) -> Option<&AppliedState> {
        self.1.as_ref()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.0.scan(table, range, visit)
    }
}

/// A view of the right rows with the mark of an empty store.
struct MarklessView(Box<dyn StateView>);

impl StateView for MarklessView {
    fn applied(&self) -> Option<&AppliedState> {
        None
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.0.scan(table, range, visit)
    }
}

struct BrokenState {
    inner: MemoryStateStore,
    disk: MemoryStateDisk,
    defect: StateDefect,
    at_start: Option<AppliedState>,
    late: std::sync::Mutex<Option<StateBatch>>,
}

impl BrokenState {
    fn open(disk: &MemoryStateDisk, defect: StateDefect) -> Self {
        let inner = MemoryStateStore::open(disk);
        let at_start = inner.applied().expect("memory is sound");
        Self { inner, disk: disk.clone(), defect, at_start, late: std::sync::Mutex::default() }
    }

    fn is_lost(&self, table: Table) -> bool {
        self.defect == StateDefect::ForgetsBlocksAtRestart
            && table == Table::Blocks
            && self.at_start.is_some()
    }

    fn altered(&self, value: &[u8]) -> Vec<u8> {
        let mut value = value.to_vec();
        if self.defect == StateDefect::ChangesAByte
            && let Some(byte) = value.first_mut()
        {
            *byte ^= 1;
        }
        value
    }

    /// The batches that make of a good batch what the defect makes of it.
    fn spoil(&self, batch: &StateBatch) -> Vec<StateBatch> {
        let alone = |rows| StateBatch { dropped_vaults: Vec::new(), rows, applied: batch.applied.clone() };
        let dropping = |vaults: Vec<u64>| StateBatch { dropped_vaults: vaults, ..alone(Vec::new()) };
        match self.defect {
            StateDefect::AppliesHalfABatch => {
                let half = batch.rows.iter().take(batch.rows.len() / 2).cloned().collect();
                vec![alone(half), batch.clone()]
            }
            StateDefect::DropsLast => {
                vec![alone(batch.rows.clone()), dropping(batch.dropped_vaults.clone())]
            }
            StateDefect::DropsTooMuch if !batch.dropped_vaults.is_empty() => {
                let more = batch.dropped_vaults.iter().map(|vault| vault.wrapping_add(1));
                vec![dropping(more.collect()), batch.clone()]
            }
            _ => vec![batch.clone()],
        }
    }
}

impl StateStore for BrokenState {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        let applied = self.inner.applied()?;
        let forgotten = self.defect == StateDefect::ForgetsTheMarkAtRestart && applied == self.at_start;
        Ok(applied.filter(|_| !forgotten))
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if self.is_lost(table) {
            return Ok(None);
        }
        let value = self.inner.get(table, key)?.map(|value| Bytes::from(self.altered(&value)));
        Ok(value.filter(|value| self.defect != StateDefect::LosesEmptyValues || !value.is_empty()))
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut range = range.clone();
        match self.defect {
            StateDefect::ScansBeyondThePrefix => {
                range.start = range.start.max(range.prefix.clone());
                range.prefix.clear();
            }
            StateDefect::ScansBeforeTheStart => range.start.clear(),
            _ => {}
        }
        let mut rows = Vec::new();
        self.inner.scan(table, &range, &mut |key, value| {
            rows.push((key.to_vec(), self.altered(value)));
            true
        })?;
        if self.defect == StateDefect::ScansBackwards {
            rows.reverse();
        }
        if self.is_lost(table) {
            rows.clear();
        }
        for (key, value) in rows {
            if !visit(&key, &value) && self.defect != StateDefect::ScansOnWhenTold {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        match self.defect {
            StateDefect::GoesOnAfterAnError => MemoryStateStore::open(&self.disk).commit(batch),
            StateDefect::ShowsCommitsLate => {
                let late = self.late.lock().expect("nobody panicked").replace(batch.clone());
                late.map_or(Ok(()), |late| self.inner.commit(&late))
            }
            StateDefect::DropsNoBlocks => {
                let mut rows = Vec::new();
                for vault in &batch.dropped_vaults {
                    let range = ScanRange { prefix: vault.to_be_bytes().to_vec(), start: Vec::new() };
                    self.inner.scan(Table::Blocks, &range, &mut |key, value| {
                        let value = Some(Bytes::copy_from_slice(value));
                        rows.push(ledger_core::ports::RowChange {
                            table: Table::Blocks,
                            key: key.to_vec(),
                            value,
                        });
                        true
                    })?;
                }
                self.inner.commit(batch)?;
                self.inner.commit(&StateBatch {
                    dropped_vaults: Vec::new(),
                    rows,
                    applied: batch.applied.clone(),
                })
            }
            _ => self.spoil(batch).iter().try_for_each(|batch| self.inner.commit(batch)),
        }
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        match self.defect {
            StateDefect::ViewsWhatCameLater => {
                Ok(Box::new(LateView(MemoryStateStore::open(&self.disk), self.applied()?)))
            }
            StateDefect::ViewsAnotherMark => Ok(Box::new(MarklessView(self.inner.view()?))),
            _ => self.inner.view(),
        }
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        let inner = MemoryStateStore::open(&self.disk).begin_install()?;
        Ok(match self.defect {
            StateDefect::InstallsRowByRow => {
                let store = MemoryStateStore::open(&self.disk);
                Box::new(InstallInPlace { store, rows: Vec::new(), sealed: None })
            }
            StateDefect::InstallsTwiceAtOnce => inner,
            _ => self.inner.begin_install()?,
        })
    }
}

/// New content written over the old one: what only that has stays.
struct InstallInPlace {
    store: MemoryStateStore,
    rows: Vec<RowChange>,
    sealed: Option<AppliedState>,
}

impl StateInstall for InstallInPlace {
    fn put(&mut self, rows: &[RowChange]) -> Result<(), StoreError> {
        let mut order = InstallOrder::default();
        let refused = |why| StoreError::Engine { action: "install", source: Box::new(why) };
        order.put(&self.rows).and_then(|()| order.put(rows)).map_err(refused)?;
        if self.sealed.is_some() {
            return Err(StoreError::Poisoned);
        }
        self.rows.extend_from_slice(rows);
        Ok(())
    }

    fn seal(&mut self, applied: &AppliedState) -> Result<(), StoreError> {
        self.sealed = Some(applied.clone());
        Ok(())
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        let applied = self.sealed.clone().ok_or(StoreError::Poisoned)?;
        let alone = MemoryStateStore::default();
        alone.commit(&StateBatch { dropped_vaults: Vec::new(), rows: self.rows.clone(), applied })?;
        alone.view()
    }

    fn publish(self: Box<Self>) -> Result<(), StoreError> {
        let applied = self.sealed.clone().ok_or(StoreError::Poisoned)?;
        self.store.commit(&StateBatch { dropped_vaults: Vec::new(), rows: self.rows.clone(), applied })
    }
}

fn state_opener(defect: StateDefect) -> impl Fn() -> BrokenState {
    let disk = MemoryStateDisk::default();
    move || BrokenState::open(&disk, defect)
}

#[test]
fn the_state_suite_catches_each_defect_under_its_guarantee() {
    use StateDefect as D;
    use conformance::state_store as suite;
    let catches: [(D, fn(D)); 18] = [
        (D::AppliesHalfABatch, |defect| suite::g1_atomic(state_opener(defect))),
        (D::ForgetsTheMarkAtRestart, |defect| suite::g2_durable(state_opener(defect))),
        (D::ForgetsBlocksAtRestart, |defect| suite::g2_durable(state_opener(defect))),
        (D::ShowsCommitsLate, |defect| suite::g3_visible(state_opener(defect))),
        (D::ScansBackwards, |defect| suite::g4_ordered(state_opener(defect))),
        (D::ScansBeyondThePrefix, |defect| suite::g4_ordered(state_opener(defect))),
        (D::ScansBeforeTheStart, |defect| suite::g4_ordered(state_opener(defect))),
        (D::ScansOnWhenTold, |defect| suite::g4_ordered(state_opener(defect))),
        (D::LosesEmptyValues, |defect| suite::g5_faithful(state_opener(defect))),
        (D::ChangesAByte, |defect| suite::g5_faithful(state_opener(defect))),
        (D::DropsLast, |defect| suite::g6_drop_first(state_opener(defect))),
        (D::DropsNoBlocks, |defect| suite::g6_drop_first(state_opener(defect))),
        (D::DropsTooMuch, |defect| suite::g6_drop_first(state_opener(defect))),
        (D::GoesOnAfterAnError, |defect| suite::g7_fail_stop(state_opener(defect))),
        (D::ViewsWhatCameLater, |defect| suite::g8_consistent_view(state_opener(defect))),
        (D::ViewsAnotherMark, |defect| suite::g8_consistent_view(state_opener(defect))),
        (D::InstallsRowByRow, |defect| suite::g9_installed_whole(state_opener(defect))),
        (D::InstallsTwiceAtOnce, |defect| suite::g9_installed_whole(state_opener(defect))),
    ];
    for (defect, run) in catches {
        caught(&format!("{defect:?}"), || run(defect));
    }
}

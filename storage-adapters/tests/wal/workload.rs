//! Random batches, and what a log must hold after each.

use bytes::Bytes;
use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
use ledger_core::names::VaultId;
use ledger_core::ports::{
    LogChange, LogId, LogKind, LogRecord, LogSnapshot, LogStore, SignedMark, StoreError, StoredVote,
};

use super::disk::Dice;

/// Everything a log says of itself.
pub type Content = (LogSnapshot, Vec<LogRecord>);

pub fn content(store: &impl LogStore) -> Result<Content, StoreError> {
    Ok((store.snapshot()?, store.read(0, u64::MAX, usize::MAX)?))
}

pub fn append(term: u64, index: u64, payload: Vec<u8>) -> LogChange {
    let id = LogId { term, node: 1 + term % 3, index };
    LogChange::Append(LogRecord { id, kind: LogKind::Proposal, payload: Bytes::from(payload) })
}

/// `count` batches of a plausible life: mostly appends, and everything else there is. `contents[n]` is
/// what a log holds after the first n.
#[derive(Debug)]
pub struct Workload {
    pub batches: Vec<Vec<LogChange>>,
    pub contents: Vec<Content>,
}

impl Workload {
    pub fn new(seed: u64, count: usize) -> Self {
        let model = MemoryLogStore::open(&MemoryLogDisk::default());
        let mut dice = Dice(seed);
        let mut workload =
            Self { batches: Vec::new(), contents: vec![content(&model).expect("memory does not fail")] };
        for _ in 0..count {
            let batch = random_batch(&mut dice, &model);
            model.commit(&batch).expect("the batch is valid");
            workload.batches.push(batch);
            workload.contents.push(content(&model).expect("memory does not fail"));
        }
        workload
    }
}

fn random_batch(dice: &mut Dice, model: &MemoryLogStore) -> Vec<LogChange> {
    let (remembered, records) = content(model).expect("memory does not fail");
    let mut next = remembered.last.map_or(1, |last| last.index + 1);
    let purged = remembered.purged.map_or(0, |purged| purged.index);
    let mut term = remembered.last.map_or(1, |last| last.term);
    let mut batch = Vec::new();
    if dice.below(12) == 0 && !records.is_empty() {
        let keep = purged + dice.below(next - purged);
        batch.push(LogChange::TruncateAfter(Some(keep)));
        next = if keep < records[0].id.index { purged + 1 } else { keep + 1 };
        if remembered.purged.is_none() && keep < records[0].id.index {
            next = records[0].id.index;
        }
        term += 1;
    }
    for _ in 0..dice.below(5) {
        let length = if dice.below(40) == 0 { 6_000 } else { dice.below(300) };
        let byte = dice.roll().to_be_bytes()[0];
        batch.push(append(term, next, vec![byte; usize::try_from(length).expect("it is small")]));
        next += 1;
    }
    if dice.below(4) == 0 {
        let node = (dice.below(3) > 0).then(|| dice.below(5));
        batch.push(LogChange::SaveVote(StoredVote {
            term: dice.below(100),
            node,
            committed: dice.below(2) == 0,
        }));
    }
    if dice.below(3) == 0 {
        batch.push(LogChange::SaveCommitted(LogId { term, node: 1, index: next - 1 }));
    }
    if dice.below(5) == 0 {
        let byte = u8::try_from(dice.below(6)).expect("it is small");
        let mark = SignedMark { vault: VaultId([byte; 16]), size: dice.roll(), root: [byte; 32] };
        batch.push(LogChange::SaveSigned(mark));
    }
    if dice.below(4) == 0 && next > purged + 8 {
        // Mostly what is old, sometimes all, rarely more than there is.
        let index = match dice.below(12) {
            0 => next + 2,
            1 => next - 1,
            _ => purged + dice.below((next - purged) / 2) + 1,
        };
        batch.push(LogChange::PurgeThrough(LogId { term, node: 1, index }));
    }
    batch
}

//! Opens a node on what a power cut left, and holds it to everything that was promised.

use std::sync::Arc;

use ledger_core::command::Receipt;
use ledger_node::{Consistency, Ledger};
use ledger_verify::note::SignedCheckpoint;
use ledger_verify::{Hash, log};
use storage_adapters::wal::Upkeep;

use crate::disk::{Disk, Event};
use crate::disk_image::Image;
use crate::power_cut::Dice;
use crate::promises::{History, LogContent, Progress, Promise, StateContent};
use crate::tally::Tally;
use crate::workload::{
    DiskStores, Home, PATIENCE, actor, chain, options, own_key, runtime, transaction, vault,
};

/// So many of the newest acknowledged writes are sent again after each recovery.
const RETRIED_NEWEST: usize = 2;

/// What is wrong after a cut, in words.
#[derive(Debug, Clone)]
pub enum Violation {
    /// The node refused to open, or to answer.
    Refused(String),
    /// It answered with something else than what was promised.
    Broken(String),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "the node refused what the cut left: {text}"),
            Self::Broken(text) => f.write_str(text),
        }
    }
}

/// Which acknowledged writes are sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retries {
    /// The newest, and one of the others.
    Newest,
    All,
}

/// Whether the stores' rows are compared one by one before the node opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// They must be what was written.
    Compared,
    /// A damaged page may hide some, and may alter or add none: the node has to find out, or to keep every promise
    /// without them.
    MayBeMissing,
}

impl<E: std::error::Error> From<E> for Violation {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Refused(text)
    }
}

fn violation<T>(text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation::Broken(text.into()))
}

/// What must hold after a cut.
pub struct Expected<'a> {
    pub history: &'a History,
    pub progress: &'a Progress,
    /// Hash of every block that may exist, by height; `None` where the run never came to its end.
    pub chain: Option<&'a [Hash]>,
    pub retries: Retries,
    pub rows: Rows,
}

/// A recovery that held, as the beginning of the next one.
#[derive(Debug)]
pub struct Recovered {
    pub image: Image,
    pub trace: Vec<Event>,
    pub log: Arc<LogContent>,
    pub state: Arc<StateContent>,
}

/// Opens, checks, writes once more, and shuts down.
pub fn recover(
    home: &Home,
    image: Image,
    expected: &Expected<'_>,
    tally: &mut Tally,
) -> Result<Recovered, Violation> {
    let disk = Disk::holding(image.clone());
    let stores = DiskStores::open(&disk, Upkeep::Inline)?;
    let log = recovered_log(&stores, expected, tally)?;
    let state = recovered_state(&stores, expected)?;
    let trace = runtime().block_on(async {
        let opening = Ledger::open(home.directory(), stores.ports(), options());
        let Ok(opened) = tokio::time::timeout(PATIENCE, opening).await else {
            return violation("the node does not open");
        };
        let ledger = opened?;
        let checked = tokio::time::timeout(PATIENCE, check(&ledger, expected, &disk, tally)).await;
        let trace = match checked {
            Ok(checked) => checked?,
            Err(_) => return violation("the recovered node does not answer"),
        };
        ledger.shutdown().await?;
        Ok(trace)
    })?;
    tally.recoveries += 1;
    Ok(Recovered { image, trace, log, state })
}

/// The log holds all acknowledged batches, and the one under way whole or not at all.
fn recovered_log(
    stores: &DiskStores,
    expected: &Expected<'_>,
    tally: &mut Tally,
) -> Result<Arc<LogContent>, Violation> {
    let found = LogContent::of(&*stores.log)?;
    let holes = found.records.windows(2).any(|pair| pair[0].id.index + 1 != pair[1].id.index);
    if holes {
        return violation("the log has holes");
    }
    let allowed = expected.progress.log(expected.history);
    let Some(which) = allowed.iter().position(|content| **content == found) else {
        let newest = &allowed[0].snapshot;
        return violation(format!("the log was {newest:?} and is {:?}", found.snapshot));
    };
    tally.votes += u64::from(found.snapshot.vote.is_some());
    tally.marks += found.snapshot.signed.len() as u64;
    tally.log_batches_rescued += which as u64;
    tally.log_batches_cut += u64::from(which == 0 && allowed.len() > 1);
    Ok(Arc::clone(&allowed[which]))
}

fn recovered_state(stores: &DiskStores, expected: &Expected<'_>) -> Result<Arc<StateContent>, Violation> {
    let found = StateContent::of(&*stores.state)?;
    let allowed = expected.progress.state(expected.history);
    match allowed.iter().find(|content| content.allows(&found, &expected.history.append_only)) {
        Some(content) => Ok(Arc::clone(content)),
        None if expected.rows == Rows::MayBeMissing
            && allowed
                .iter()
                .any(|content| content.holds_nothing_else(&found, &expected.history.append_only)) =>
        {
            Ok(Arc::new(found))
        }
        None => violation(allowed[0].difference(&found)),
    }
}

/// Returns the effects of the recovery itself: those of the last write and of the end are not among them.
async fn check(
    ledger: &Ledger,
    expected: &Expected<'_>,
    disk: &Disk,
    tally: &mut Tally,
) -> Result<Vec<Event>, Violation> {
    let promises = &expected.progress.promises;
    let created = promises.iter().any(|promise| matches!(promise, Promise::VaultCreated(..)));
    let blocks = if ledger.vault(&vault()).is_some() { chain(ledger)? } else { Vec::new() };
    if let Some(chain) = expected.chain
        && !chain.starts_with(&blocks)
    {
        return violation("a block is not the one that was written");
    }
    for promise in promises {
        check_promise(ledger, promise, &blocks, tally).await?;
    }
    retry(ledger, promises, expected.retries, tally).await?;
    let trace = disk.take_trace();
    if created {
        write_on(ledger, &blocks).await?;
    }
    Ok(trace)
}

async fn check_promise(
    ledger: &Ledger,
    promise: &Promise,
    blocks: &[Hash],
    tally: &mut Tally,
) -> Result<(), Violation> {
    match promise {
        Promise::VaultCreated(name, id) => match ledger.vault(name) {
            Some(info) if info.id == *id => Ok(()),
            _ => violation(format!("vault {name} is lost")),
        },
        Promise::VaultDeleted(name) => match ledger.vault(name) {
            None => Ok(()),
            Some(_) => violation(format!("vault {name} is back")),
        },
        Promise::Written(number, _, receipt) => {
            let block = usize::try_from(receipt.height).ok().and_then(|height| blocks.get(height));
            if block != Some(&receipt.block_hash) {
                return violation(format!("write {number} is not in block {}", receipt.height));
            }
            let read = ledger.get(&vault(), &own_key(*number), Consistency::Linearizable).await?;
            let value = read.value.map(|entity| entity.value.to_vec());
            if value != Some(number.to_be_bytes().to_vec()) {
                return violation(format!("write {number} is lost: {value:?}"));
            }
            tally.acknowledged += 1;
            Ok(())
        }
        Promise::Published(size, root) => {
            let answer = ledger.checkpoint(&vault(), *size).await?;
            let signed = SignedCheckpoint::open(&answer.note, &[ledger.verifier_key()])?;
            log::verify_consistency(*size, signed.size, &answer.consistency, root, &signed.root)?;
            tally.checkpoints += 1;
            Ok(())
        }
    }
}

/// A write that was answered is answered the same when it is sent again, and happens once.
async fn retry(
    ledger: &Ledger,
    promises: &[Promise],
    retries: Retries,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let written = promises.iter().filter_map(|promise| match promise {
        Promise::Written(_, transaction, receipt) => Some((transaction, receipt)),
        _ => None,
    });
    let written: Vec<_> = written.collect();
    let older = match retries {
        Retries::Newest => written.len().saturating_sub(RETRIED_NEWEST),
        Retries::All => 0,
    };
    let one_of_the_others = (older > 0).then(|| written[Dice::new(older as u64).below(older)]);
    for (transaction, receipt) in written[older..].iter().copied().chain(one_of_the_others) {
        let again = ledger.write(&vault(), &actor(), transaction.clone()).await?;
        if again != (Receipt { replayed: true, ..receipt.clone() }) {
            return violation(format!("a retry was answered with {again:?} after {receipt:?}"));
        }
        tally.retries += 1;
    }
    Ok(())
}

/// The ledger goes on where it was.
async fn write_on(ledger: &Ledger, blocks: &[Hash]) -> Result<(), Violation> {
    let next = transaction(u64::MAX - 2, &mut Dice::new(1));
    let receipt = ledger.write(&vault(), &actor(), next).await?;
    let block = ledger.block(&vault(), receipt.height)?;
    let follows = block.is_some_and(|block| Some(&block.header.previous) == blocks.last());
    if receipt.height != blocks.len() as u64 || !follows {
        return violation("the next block does not follow the last one");
    }
    Ok(())
}

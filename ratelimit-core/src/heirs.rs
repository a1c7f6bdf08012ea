//! The limits of a set that changes: who takes over whose keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::change::Keep;
use crate::keyed::KeyedLimit;
use crate::limit::Limit;
use crate::limit_set::{Enforcement, LimitId};
use crate::succession::CannotSucceed;
use crate::table::TableSize;
use crate::ticks::Nanos;

/// Waiting limits from which on it is worth reading their tables to find out whether anything waits there.
const GENERATIONS_BARREN: u32 = 8;

/// A limit of the set that comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heir {
    /// The limit.
    pub limit: Limit,
    /// The size of its table, if it gets a new one.
    pub size: TableSize,
    /// What becomes of requests that it denies.
    pub enforcement: Enforcement,
    /// Whose keys it takes over. A limit has one heir at most.
    pub of: Option<LimitId>,
    /// What they keep when the limit is another one.
    pub keep: Keep,
}

/// What a limit of a set has of the limit before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carried {
    /// The same table: the limit is the same.
    Table,
    /// What its keys had left, converted when they are first asked about.
    Cells,
    /// Nothing: there was none, or the state of one of the two is longer than a word.
    Nothing,
}

type Member = (Arc<KeyedLimit>, Enforcement);

/// The limits of `heirs`, in their order. Of `old` nothing has changed when it fails.
pub(crate) fn succeed(
    old: &[Member],
    heirs: Vec<Heir>,
    now: Nanos,
) -> Result<(Vec<Member>, Vec<Carried>), CannotSucceed> {
    let mut inherited = BTreeSet::new();
    for heir in &heirs {
        let Some((keyed, id)) = heir.of.and_then(|id| Some((&old.get(id.0)?.0, id))) else { continue };
        if !inherited.insert(id) {
            return Err(CannotSucceed::HasSuccessor);
        }
        if how(keyed, heir) == Carried::Cells {
            if keyed.generations() >= GENERATIONS_BARREN {
                keyed.forget_barren(now);
            }
            keyed.next_generation(&heir.limit)?;
        }
    }
    heirs
        .into_iter()
        .map(|heir| installed(old, heir))
        .collect::<Result<Vec<_>, _>>()
        .map(|all| all.into_iter().unzip())
}

fn installed(old: &[Member], heir: Heir) -> Result<(Member, Carried), CannotSucceed> {
    let before = heir.of.and_then(|id| old.get(id.0)).map(|(keyed, _)| keyed);
    let carried = before.map_or(Carried::Nothing, |before| how(before, &heir));
    let keyed = match (before, carried) {
        (Some(before), Carried::Table) => before.clone(),
        (Some(before), Carried::Cells) => KeyedLimit::succeed(before, heir.limit, heir.keep, heir.size)?,
        _ => Arc::new(KeyedLimit::new(heir.limit, heir.size)),
    };
    Ok(((keyed, heir.enforcement), carried))
}

fn how(before: &KeyedLimit, heir: &Heir) -> Carried {
    if *before.limit() == heir.limit {
        return Carried::Table;
    }
    // Neither unlimited nor deny all has a state to carry or to be carried to.
    match before.limit().compact().and(heir.limit.compact()) {
        Some(_) => Carried::Cells,
        None => Carried::Nothing,
    }
}

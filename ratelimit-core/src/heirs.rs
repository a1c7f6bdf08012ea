//! The limits of a set that changes: who takes over whose keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::change::Keep;
use crate::keyed::KeyedLimit;
use crate::limit::Limit;
use crate::limit_set::{Enforcement, LimitId};
use crate::succession::{CannotSucceed, GENERATIONS_MAX};
use crate::table::TableSize;
use crate::ticks::Nanos;

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
    /// What its keys had left, converted when they are first asked about; of permits, who holds them.
    Cells,
    /// Nothing: there was none, or one of the two counts nothing.
    Nothing,
}

/// The limits of a set cannot be replaced; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CannotReplace {
    /// The place in the list of the heir for which it cannot be done.
    pub heir: usize,
    /// Why.
    #[source]
    pub reason: CannotSucceed,
}

type Member = (Arc<KeyedLimit>, Enforcement);

/// A limit that is ready to take over.
struct Ready<'o> {
    keyed: Arc<KeyedLimit>,
    carried: Carried,
    enforcement: Enforcement,
    /// Whose keys it takes over, and what they keep.
    of: Option<(&'o Arc<KeyedLimit>, Keep)>,
}

/// The limits of `heirs`, in their order. Of `old` nothing has changed when it fails: all that can fail is done before the
/// first limit gives up its keys.
pub(crate) fn succeed(
    old: &[Member],
    heirs: Vec<Heir>,
    now: Nanos,
) -> Result<(Vec<Member>, Vec<Carried>), CannotReplace> {
    let mut inherited = BTreeSet::new();
    let mut ready = Vec::with_capacity(heirs.len());
    for (index, heir) in heirs.into_iter().enumerate() {
        let refused = |reason| CannotReplace { heir: index, reason };
        let before = heir.of.and_then(|id| Some((id, &old.get(id.0)?.0)));
        if let Some((id, _)) = before
            && !inherited.insert(id)
        {
            return Err(refused(CannotSucceed::HasSuccessor));
        }
        ready.push(prepared(before.map(|(_, keyed)| keyed), heir, now).map_err(refused)?);
    }
    for (index, Ready { keyed, of, .. }) in ready.iter().enumerate() {
        if let Some((before, keep)) = of {
            // Each was looked at, has one heir, and is asked by nobody meanwhile.
            KeyedLimit::hand_over(before, keyed, *keep, Some(now))
                .map_err(|reason| CannotReplace { heir: index, reason })?;
        }
    }
    let member = |ready: Ready<'_>| ((ready.keyed, ready.enforcement), ready.carried);
    Ok(ready.into_iter().map(member).unzip())
}

fn prepared(before: Option<&Arc<KeyedLimit>>, heir: Heir, now: Nanos) -> Result<Ready<'_>, CannotSucceed> {
    let Heir { limit, size, enforcement, keep, .. } = heir;
    let carried = before.map_or(Carried::Nothing, |before| how(before, &limit));
    let (keyed, of) = match (before, carried) {
        (Some(before), Carried::Table) => (before.clone(), None),
        (Some(before), Carried::Cells) => {
            if before.generations() >= GENERATIONS_MAX {
                before.forget_barren(now); // else it cannot be done
            }
            before.next_generation()?;
            (Arc::new(KeyedLimit::heir_of(Some(before), limit, size)?), Some((before, keep)))
        }
        _ => (Arc::new(KeyedLimit::new(limit, size)?), None),
    };
    Ok(Ready { keyed, carried, enforcement, of })
}

fn how(before: &KeyedLimit, limit: &Limit) -> Carried {
    match before.limit() {
        same if same == limit => Carried::Table,
        // Neither unlimited nor deny all has a state to carry or to be carried to.
        other if other.counts() && limit.counts() => Carried::Cells,
        _ => Carried::Nothing,
    }
}

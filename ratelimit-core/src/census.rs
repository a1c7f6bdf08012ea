//! What is read of whole tables, while their set is at work or changes.

use std::sync::Arc;

use crate::keyed::KeyedLimit;
use crate::ticks::Nanos;

/// Waiting limits from which on it is worth reading their tables to find out whether anything waits there.
const GENERATIONS_BARREN: u32 = 8;

/// The tables of a set as they are now, for what takes long: reading a large table takes seconds. It keeps them
/// alive, and needs no lock that whoever decides, or changes the limits of the set, would wait for.
pub struct Census {
    tables: Vec<Arc<KeyedLimit>>,
}

impl Census {
    pub(crate) fn of<'t>(tables: impl Iterator<Item = &'t Arc<KeyedLimit>>) -> Self {
        Self { tables: tables.cloned().collect() }
    }

    /// Keys that have a slot and are not full, over all limits. Reads all tables.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        self.tables.iter().map(|keyed| keyed.live_keys(now)).fold(0, u64::saturating_add)
    }

    /// Lets go of earlier limits that wait for their keys to be taken over and have none. Reads their tables when there are
    /// many. Before limits are changed again: see [`GENERATIONS_MAX`](crate::GENERATIONS_MAX).
    pub fn tidy(&self, now: Nanos) {
        let many = self.tables.iter().filter(|keyed| keyed.generations() >= GENERATIONS_BARREN);
        many.for_each(|keyed| keyed.forget_barren(now));
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Census").field("tables", &self.tables.len()).finish()
    }
}

//! What was admitted and may be given back: grants, and reservations that are settled later.

use crate::ticks::Nanos;

/// What an admission took. It can be given back once: giving back takes the grant.
///
/// Giving back *ages*: what would have refilled since the admission anyway is not given a second time. So a request
/// that is admitted after a refund would have been admitted too if the grant had never been made.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropping a grant keeps what it took"]
pub struct Grant {
    pub(crate) tag: u64,
    pub(crate) cost: u64,
    pub(crate) stamp: u64,
    /// The limiter that made it; another one ignores it.
    pub(crate) limiter: u64,
}

impl Grant {
    /// The cells that can still be given back.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Splits off up to `cost` cells as a grant of their own, of the same age.
    pub fn split(&mut self, cost: u64) -> Self {
        let cost = cost.min(self.cost);
        self.cost -= cost;
        Self { cost, tag: self.tag, stamp: self.stamp, limiter: self.limiter }
    }
}

/// What was taken for a request whose real cost is known later. Whoever lets it expire has paid all of it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is dropped stays paid in full"]
pub struct Reservation {
    pub(crate) grant: Grant,
    pub(crate) expires_at: Nanos,
}

impl Reservation {
    /// The cells that were taken.
    pub fn cost(&self) -> u64 {
        self.grant.cost
    }

    /// From when on nothing is given back any more.
    pub fn expires_at(&self) -> Nanos {
        self.expires_at
    }
}

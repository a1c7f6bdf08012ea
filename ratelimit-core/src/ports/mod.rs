//! What the engine asks of a store of counters. The trait has a numbered contract; the suite in `conformance` (a feature)
//! holds every implementation to it.

mod rate_store;

pub use rate_store::{Charge, Policy, PolicyId, RateStore, RateStoreError};

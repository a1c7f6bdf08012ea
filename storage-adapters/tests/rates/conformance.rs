//! The contract of the port.

use std::future::Future;

use ratelimit_core::conformance::Harness;
use ratelimit_core::ports::Policy;
use storage_adapters::redb::rates::RedbRateStore;

use super::world::{Home, START, run};

struct OnDisk(Home);

impl Harness for OnDisk {
    type Store = RedbRateStore;

    fn open(&self, policies: &[Policy]) -> RedbRateStore {
        self.0.open(policies.to_vec(), START)
    }

    fn run<T>(&self, future: impl Future<Output = T> + Send) -> T {
        run(future)
    }
}

ratelimit_core::rate_store_conformance!(
    OnDisk(Home::new()),
    [
        g1_exact,
        g2_all_or_nothing,
        g3_denials_are_free,
        g4_faithful,
        g5_injective,
        g6_time,
        g7_looks,
        g8_refunds_age,
        g9_refusals,
        g10_durable,
    ]
);

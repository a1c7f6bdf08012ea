//! The contract of [`RateStore`](crate::ports::RateStore) as functions: one per guarantee, a panic is a failure.
//!
//! [`rate_store_conformance!`](crate::rate_store_conformance) makes a test of each. An adapter says with a [`Harness`] how
//! its store is opened and how its futures are run.

mod rate_store;

pub use rate_store::{
    g1_exact, g2_all_or_nothing, g3_denials_are_free, g4_faithful, g5_injective, g6_time, g7_looks,
    g8_refunds_age, g9_refusals, g10_durable,
};

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::ports::{Policy, RateStore};

/// How a store is opened and driven. Every guarantee gets a harness of its own.
pub trait Harness: Sync {
    /// The store.
    type Store: RateStore;

    /// Opens the store. The first call finds it empty, a later one finds what a durable store kept of the one before, which
    /// was dropped.
    fn open(&self, policies: &[Policy]) -> Self::Store;

    /// Runs a future to its end; called from several threads. This one is for futures that never wait.
    fn run<T>(&self, future: impl Future<Output = T> + Send) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return output;
            }
            std::thread::yield_now();
        }
    }
}

/// Makes one test per guarantee of [`RateStore`](crate::ports::RateStore), except that of durable stores. The argument is
/// an expression that yields a new [`Harness`](crate::conformance::Harness) for each.
#[macro_export]
macro_rules! rate_store_conformance {
    ($harness:expr) => {
        $crate::rate_store_conformance!(
            $harness,
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
            ]
        );
    };
    ($harness:expr, [$($guarantee:ident),+ $(,)?]) => {
        $(#[test]
        fn $guarantee() {
            $crate::conformance::$guarantee(&$harness);
        })+
    };
}

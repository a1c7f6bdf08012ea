//! The contract of [`AuthStore`](crate::ports::AuthStore) as functions: one per guarantee, a panic is a failure.
//!
//! [`auth_store_conformance!`](crate::auth_store_conformance) makes a test of each. An adapter says with a [`Harness`] how
//! its store is opened and how its futures are run.

mod commits;
mod durable;
mod feed;
mod ids;
mod reads;
mod world;

pub use commits::{a1_atomic, a2_serial, a4_versions, a11_refusals};
pub use durable::a13_durable;
pub use feed::a9_feed;
pub use ids::{a5_idempotent, a6_horizon, a12_errors};
pub use reads::{a3_snapshot, a7_expiry, a8_ranges, a10_injective};

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::ports::AuthStore;

/// How a store is opened and driven. Every guarantee gets a harness of its own.
pub trait Harness: Sync {
    /// The store.
    type Store: AuthStore;

    /// Opens the store. The first call finds it empty, a later one finds what a durable store kept of the one before, which
    /// was dropped, or leaked as a crash would leave it.
    fn open(&self) -> Self::Store;

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

/// Makes one test per guarantee of [`AuthStore`](crate::ports::AuthStore), except that of durable stores. The argument is
/// an expression that yields a new [`Harness`](crate::conformance::Harness) for each.
#[macro_export]
macro_rules! auth_store_conformance {
    ($harness:expr) => {
        $crate::auth_store_conformance!(
            $harness,
            [
                a1_atomic,
                a2_serial,
                a3_snapshot,
                a4_versions,
                a5_idempotent,
                a6_horizon,
                a7_expiry,
                a8_ranges,
                a9_feed,
                a10_injective,
                a11_refusals,
                a12_errors,
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

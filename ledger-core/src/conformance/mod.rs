//! The contracts of the [`ports`](crate::ports) as functions: one per guarantee, a panic is a failure.
//!
//! Each takes a closure that opens the store. The first call gets an empty store; a later call, made
//! when the store before it was dropped, gets what that one made durable. Give every function a closure
//! of its own, on its own directory.
//!
//! [`log_store_conformance!`](crate::log_store_conformance) and
//! [`state_store_conformance!`](crate::state_store_conformance) make a test of each:
//!
//! ```
//! use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};
//!
//! let disk = MemoryLogDisk::default();
//! ledger_core::conformance::log_store::g2_durable(|| MemoryLogStore::open(&disk));
//! ```

pub mod log_store;
pub mod state_store;

/// Makes one test per guarantee of [`LogStore`](crate::ports::LogStore). The argument is an expression
/// that yields, anew for each test, the closure that [`conformance`](crate::conformance) describes.
#[macro_export]
macro_rules! log_store_conformance {
    ($opener:expr) => {
        $crate::conformance_tests!(
            log_store,
            $opener,
            [
                g1_atomic,
                g2_durable,
                g3_visible,
                g4_contiguous,
                g5_truncate_and_purge,
                g6_faithful,
                g7_fail_stop,
                g8_bounded,
            ]
        );
    };
}

/// Makes one test per guarantee of [`StateStore`](crate::ports::StateStore); see
/// [`log_store_conformance!`](crate::log_store_conformance).
#[macro_export]
macro_rules! state_store_conformance {
    ($opener:expr) => {
        $crate::conformance_tests!(
            state_store,
            $opener,
            [
                g1_atomic,
                g2_durable,
                g3_visible,
                g4_ordered,
                g5_faithful,
                g6_drop_first,
                g7_fail_stop,
                g8_consistent_view,
                g9_installed_whole,
            ]
        );
    };
}

/// The common part of the two macros above.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($suite:ident, $opener:expr, [$($guarantee:ident),+ $(,)?]) => {
        $(#[test]
        fn $guarantee() {
            $crate::conformance::$suite::$guarantee($opener);
        })+
    };
}

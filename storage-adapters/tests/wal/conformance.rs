//! The store upholds the contract of the port, with segments of the usual size and with tiny ones.

use storage_adapters::wal::{SEGMENT_BYTES, SEGMENT_BYTES_MIN, Upkeep, WalLogStore, WalOptions};

fn opener(segment_bytes: u64, upkeep: Upkeep) -> impl Fn() -> WalLogStore {
    let dir = tempfile::tempdir().expect("a temporary directory");
    move || WalLogStore::open(dir.path(), WalOptions { segment_bytes, upkeep }).expect("the store opens")
}

mod usual_segments {
    use super::{SEGMENT_BYTES, Upkeep, opener};
    ledger_core::log_store_conformance!(opener(SEGMENT_BYTES, Upkeep::Background));
}

mod tiny_segments {
    use super::{SEGMENT_BYTES_MIN, Upkeep, opener};
    ledger_core::log_store_conformance!(opener(SEGMENT_BYTES_MIN, Upkeep::Background));
}

mod tiny_segments_inline {
    use super::{SEGMENT_BYTES_MIN, Upkeep, opener};
    ledger_core::log_store_conformance!(opener(SEGMENT_BYTES_MIN, Upkeep::Inline));
}

//! The redb stores uphold the contracts of the ports.
#![cfg(feature = "redb")]

use storage_adapters::redb::{OlderFormat, OpenCheck, RedbOptions};

/// Small caches, so that the suites also run against what is on the disk.
const OPTIONS: RedbOptions = RedbOptions {
    log_cache_bytes: 1 << 20,
    state_cache_bytes: 1 << 20,
    blocks_cache_bytes: 1 << 20,
    check: OpenCheck::Log,
    older_format: OlderFormat::Refuse,
};

mod log {
    use storage_adapters::redb::RedbLogStore;

    fn opener() -> impl Fn() -> RedbLogStore {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || RedbLogStore::open(dir.path(), super::OPTIONS).expect("the store opens")
    }

    ledger_core::log_store_conformance!(opener());
}

mod state {
    use storage_adapters::redb::RedbStateStore;

    fn opener() -> impl Fn() -> RedbStateStore {
        let dir = tempfile::tempdir().expect("a temporary directory");
        move || RedbStateStore::open(dir.path(), super::OPTIONS).expect("the store opens")
    }

    ledger_core::state_store_conformance!(opener());
}

//! The stores in memory uphold the contracts of the ports.

mod log {
    use ledger_core::memory::{MemoryLogDisk, MemoryLogStore};

    fn opener() -> impl Fn() -> MemoryLogStore {
        let disk = MemoryLogDisk::default();
        move || MemoryLogStore::open(&disk)
    }

    ledger_core::log_store_conformance!(opener());
}

mod state {
    use ledger_core::memory::{MemoryStateDisk, MemoryStateStore};

    fn opener() -> impl Fn() -> MemoryStateStore {
        let disk = MemoryStateDisk::default();
        move || MemoryStateStore::open(&disk)
    }

    ledger_core::state_store_conformance!(opener());
}

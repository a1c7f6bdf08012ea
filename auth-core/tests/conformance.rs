//! The store in memory keeps its contract.

use auth_core::conformance::Harness;
use auth_core::memory::MemoryStore;

struct Memory;

impl Harness for Memory {
    type Store = MemoryStore;

    fn open(&self) -> MemoryStore {
        MemoryStore::default()
    }
}

auth_core::auth_store_conformance!(Memory);

/// It forgets, as it says.
#[test]
fn a_store_in_memory_does_not_pass_for_a_durable_one() {
    let found = std::panic::catch_unwind(|| auth_core::conformance::a13_durable(&Memory));
    assert!(found.is_err());
}

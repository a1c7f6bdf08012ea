//! The contract of the port: on a disk, and on one in memory, whose syncs take no time, so that races are closer.

use std::future::Future;

use auth_core::conformance::Harness;
use storage_adapters::redb::auth::RedbAuthStore;

use super::disk::Disk;
use super::files::RedbDisk;
use super::world::{Home, options, run};

struct OnDisk(Home);

impl Harness for OnDisk {
    type Store = RedbAuthStore;

    fn open(&self) -> RedbAuthStore {
        self.0.open()
    }

    fn run<T>(&self, future: impl Future<Output = T> + Send) -> T {
        run(future)
    }
}

struct InMemory(Disk);

impl Harness for InMemory {
    type Store = RedbAuthStore;

    fn open(&self) -> RedbAuthStore {
        RedbAuthStore::with_files(RedbDisk(self.0.clone()).files(), "auth.db", options())
            .expect("the store opens")
    }

    fn run<T>(&self, future: impl Future<Output = T> + Send) -> T {
        run(future)
    }
}

mod on_a_disk {
    use super::{Home, OnDisk};

    auth_core::auth_store_conformance!(OnDisk(Home::new()));
    auth_core::auth_store_conformance!(OnDisk(Home::new()), [a13_durable]);
}

mod on_a_disk_in_memory {
    use super::{Disk, InMemory};

    auth_core::auth_store_conformance!(InMemory(Disk::default()));
    auth_core::auth_store_conformance!(InMemory(Disk::default()), [a13_durable]);
}

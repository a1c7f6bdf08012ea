//! Writers that write until the server is gone, and the check that nothing of what they were told is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger_client::{Consistency, LedgerClient, Trust};
use ledger_core::entity::EntityKey;

use crate::harness::{Home, Server, client, eventually, put, runtime, vault};

/// Keys in one read of the check.
const READ_KEYS: u64 = 1_000;

/// What a check looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    Everything,
    /// Of each writer so many: what a crash threatens most.
    Newest(u64),
}

/// Writers, and what they know. It outlives the servers that they write to.
pub struct Load {
    pub runtime: tokio::runtime::Runtime,
    pins: std::path::PathBuf,
    /// Writes that were acknowledged, by writer; each writer counts its keys up.
    acknowledged: Vec<Arc<AtomicU64>>,
    value_bytes: usize,
}

/// Writers at work.
pub struct Writers(Vec<tokio::task::JoinHandle<()>>);

impl Load {
    /// Values begin with their number and have at least so many bytes.
    pub fn new(home: &Home, writers: usize, value_bytes: usize) -> Self {
        let acknowledged = (0..writers).map(|_| Arc::default()).collect();
        Self { runtime: runtime(), pins: home.path("pins"), acknowledged, value_bytes }
    }

    pub fn client(&self, server: &Server) -> LedgerClient {
        client(&self.runtime, server, &self.pins)
    }

    pub fn make_vault(&self, client: &LedgerClient) {
        self.runtime.block_on(async {
            client.create_namespace(&vault().namespace).await.expect("made");
            client.create_vault(&vault()).await.expect("made");
        });
    }

    /// Writes that were acknowledged so far.
    pub fn total(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    pub fn wait_until_acknowledged(&self, wanted: u64) {
        eventually("writes are acknowledged", || (self.total() >= wanted).then_some(()));
    }

    /// Starts writers that write until one of their writes is refused or unanswered.
    pub fn start(&self, client: &LedgerClient) -> Writers {
        let writers = self.acknowledged.iter().enumerate().map(|(writer, count)| {
            let (client, count, bytes) = (client.clone(), Arc::clone(count), self.value_bytes);
            self.runtime.spawn(async move {
                loop {
                    let number = count.load(Ordering::SeqCst);
                    let operations = put(&format!("{writer}:{number}"), value(number, bytes));
                    if client.write(&vault(), operations).await.is_err() {
                        return;
                    }
                    count.store(number + 1, Ordering::SeqCst);
                }
            })
        });
        Writers(writers.collect())
    }

    /// Waits for the writers' end.
    pub fn join(&self, writers: Writers) {
        for writer in writers.0 {
            self.runtime.block_on(writer).expect("no panic");
        }
    }

    /// What was acknowledged is there; returns how many writes were read.
    pub fn check(&self, client: &LedgerClient, check: Check) -> u64 {
        let mut checked = 0;
        for (writer, count) in self.acknowledged.iter().enumerate() {
            let count = count.load(Ordering::SeqCst);
            let mut from = match check {
                Check::Everything => 0,
                Check::Newest(newest) => count.saturating_sub(newest),
            };
            while from < count {
                let to = count.min(from + READ_KEYS);
                checked += self.check_range(client, writer, from..to);
                from = to;
            }
        }
        checked
    }

    fn check_range(&self, client: &LedgerClient, writer: usize, range: std::ops::Range<u64>) -> u64 {
        let keys = range.map(|number| EntityKey::new(&format!("{writer}:{number}")).expect("a key"));
        let mut keys: Vec<EntityKey> = keys.collect();
        let mut checked = 0;
        while !keys.is_empty() {
            let read = async { client.batch_get(&vault(), &keys, Consistency::Linearizable).await };
            let read = self.runtime.block_on(read).expect("an answer").value;
            let wanted = keys.len() - read.unread.len();
            assert_eq!(
                read.entities.len(),
                wanted,
                "writer {writer} lost acknowledged writes among {keys:?}"
            );
            for (key, entity) in &read.entities {
                let number = key.as_str().split_once(':').and_then(|(_, number)| number.parse().ok());
                let expected = value(number.expect("a number"), self.value_bytes);
                assert_eq!(entity.value.as_ref(), expected.as_slice(), "{}", key.as_str());
            }
            checked += wanted as u64;
            keys = read.unread;
        }
        checked
    }

    /// Reads with proof: what is published here must be extended by every later checkpoint. A server that goes away
    /// meanwhile has published nothing.
    pub fn publish(&self, client: &LedgerClient) {
        let _ = self.runtime.block_on(async { client.verified_get(&vault(), &first_key()).await });
    }

    /// The history extends the checkpoint that was published last.
    pub fn check_published(&self, client: &LedgerClient) {
        let verified = self.runtime.block_on(async { client.verified_get(&vault(), &first_key()).await });
        assert_eq!(verified.expect("the history extends the pin").trust, Trust::Pinned);
    }
}

fn first_key() -> EntityKey {
    EntityKey::new("0:0").expect("a key")
}

fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = number.to_string().into_bytes();
    value.resize(value.len().max(bytes), b'.');
    value
}

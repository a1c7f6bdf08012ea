//! Stores that count, block, check or fail, in front of real ones.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use ledger_core::ports::{
    AppliedState, LogChange, LogRecord, LogSnapshot, LogStore, ScanRange, StateBatch, StateInstall,
    StateStore, StateView, StoreError, Table,
};

/// What the observer does at every commit of the log.
pub struct ObservedLog {
    inner: Arc<dyn LogStore>,
    pub commits: AtomicU64,
    gate: Mutex<bool>,
    opened: Condvar,
    pub fails: AtomicBool,
    pub fails_reads: AtomicBool,
    pub panics: AtomicBool,
    /// With it, purges beyond what this store holds are counted.
    state: Option<Arc<dyn StateStore>>,
    pub purges: AtomicU64,
    pub purges_too_far: AtomicU64,
}

impl ObservedLog {
    pub fn new(inner: Arc<dyn LogStore>) -> Self {
        Self {
            inner,
            commits: AtomicU64::new(0),
            gate: Mutex::new(true),
            opened: Condvar::new(),
            fails: AtomicBool::new(false),
            fails_reads: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            state: None,
            purges: AtomicU64::new(0),
            purges_too_far: AtomicU64::new(0),
        }
    }

    pub fn against(inner: Arc<dyn LogStore>, state: Arc<dyn StateStore>) -> Self {
        Self { state: Some(state), ..Self::new(inner) }
    }

    /// From now on commits wait.
    pub fn close_gate(&self) {
        *self.gate.lock().unwrap() = false;
    }

    pub fn open_gate(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::SeqCst)
    }

    fn check_purges(&self, changes: &[LogChange]) {
        let Some(state) = &self.state else { return };
        for change in changes {
            if let LogChange::PurgeThrough(id) = change {
                self.purges.fetch_add(1, Ordering::SeqCst);
                let durable = state.applied().unwrap().map(|applied| applied.last_applied.index);
                if Some(id.index) > durable {
                    self.purges_too_far.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }
}

impl LogStore for ObservedLog {
    fn snapshot(&self) -> Result<LogSnapshot, StoreError> {
        self.inner.snapshot()
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<LogRecord>, StoreError> {
        if self.fails_reads.load(Ordering::SeqCst) {
            return Err(broken("read the log"));
        }
        self.inner.read(from, to, bytes_max)
    }

    fn commit(&self, changes: &[LogChange]) -> Result<(), StoreError> {
        let open = self.gate.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
        if self.fails.load(Ordering::SeqCst) {
            return Err(broken("commit the log"));
        }
        assert!(!self.panics.load(Ordering::SeqCst), "a defect of the store");
        self.check_purges(changes);
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(changes)
    }
}

/// A state store whose commits fail on demand.
pub struct ObservedState {
    inner: Arc<dyn StateStore>,
    pub fails: AtomicBool,
    pub panics_at_reads: AtomicBool,
    pub commits: AtomicU64,
}

impl ObservedState {
    pub fn new(inner: Arc<dyn StateStore>) -> Self {
        let panics_at_reads = AtomicBool::new(false);
        Self { inner, fails: AtomicBool::new(false), panics_at_reads, commits: AtomicU64::new(0) }
    }
}

impl StateStore for ObservedState {
    fn applied(&self) -> Result<Option<AppliedState>, StoreError> {
        self.inner.applied()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
        assert!(!self.panics_at_reads.load(Ordering::SeqCst), "a defect of the store");
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        range: &ScanRange,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.inner.scan(table, range, visit)
    }

    fn commit(&self, batch: &StateBatch) -> Result<(), StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(broken("commit the state"));
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(batch)
    }

    fn view(&self) -> Result<Box<dyn StateView>, StoreError> {
        self.inner.view()
    }

    fn begin_install(&self) -> Result<Box<dyn StateInstall>, StoreError> {
        self.inner.begin_install()
    }
}

fn broken(action: &'static str) -> StoreError {
    StoreError::Engine { action, source: "the disk is broken".into() }
}

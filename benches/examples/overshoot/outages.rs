//! Rules whose store goes down for a third of the time: what each does without it.

use std::future::pending;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use ratelimit_core::memory::MemoryStore;
use ratelimit_core::ports::{Charge, Policy, RateStore, RateStoreError};
use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, OnFailure, Rule, RuleSet};
use ratelimit_core::{HashSecret, Nanos, SetGrant, TableSize, Verdict};
use ratelimit_rules::{Descriptor, PROBES_TO_RETURN, Request, RuleStore, StoreEngine, TendDeadlines};

use super::crowd::Crowd;
use super::{BURST, bucket};

const SECRET: HashSecret = HashSecret([9; 16]);
const SIZE: TableSize = TableSize::for_keys(1_000);
/// Nodes that share the limit; this one is asked.
const NODES: NonZeroU32 = NonZeroU32::new(4).expect("it is not 0");

/// What a rule says it does, and how much that may add to any interval.
pub(super) const MODES: [(&str, OnFailure, Option<u64>); 3] = [
    ("store down, closed", OnFailure::Closed, Some(BURST)),
    ("store down, share of 4", OnFailure::LocalShare, Some(BURST + BURST.div_ceil(4))),
    ("store down, open", OnFailure::Open, None),
];

/// A store that can be switched off.
struct Switched {
    store: MemoryStore,
    is_down: Arc<AtomicBool>,
}

impl Switched {
    fn up(&self) -> Result<(), RateStoreError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(RateStoreError::Failed { action: "answer", source: "it is switched off".into() });
        }
        Ok(())
    }
}

impl RateStore for Switched {
    type Grant = SetGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<SetGrant>), RateStoreError> {
        self.up()?;
        self.store.check(charges, now).await
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        self.up()?;
        self.store.peek(charges, now).await
    }

    async fn refund(&self, grant: &mut Option<SetGrant>, now: Nanos) -> Result<(), RateStoreError> {
        self.up()?;
        self.store.refund(grant, now).await
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.up()?;
        self.store.reset(charges, now).await
    }
}

impl RuleStore for Switched {
    async fn reopen(&self, _policies: Vec<Policy>, _now: Nanos) -> Result<(), RateStoreError> {
        self.up()
    }

    async fn probe(&self, _now: Nanos) -> Result<(), RateStoreError> {
        self.up()
    }

    fn live_keys(&self, now: Nanos) -> u64 {
        self.store.limits().live_keys(now)
    }

    fn overflowed(&self) -> u64 {
        self.store.limits().overflowed()
    }
}

/// One row: the store is there, gone, and there again, a third of the time each.
pub(super) fn run(mode: OnFailure, threads: usize, length: Duration) -> Crowd {
    let rule = Rule::new(bucket()).on_failure(mode);
    let nodes = vec![Node::new("client", NodeValue::Any).with_rule(rule)];
    let rules = RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules");
    let policies = StoreEngine::<Switched>::policies(&rules).expect("a bucket can be stored");
    let is_down = Arc::new(AtomicBool::new(false));
    let store = MemoryStore::new(policies, SIZE, SECRET).expect("memory");
    let store = Switched { store, is_down: Arc::clone(&is_down) };
    let engine = StoreEngine::new(store, rules, NODES, SIZE, SECRET).expect("an engine");

    let entries = [Entry { key: "client", value: "the one" }];
    let descriptors = [Descriptor::new(&entries)];
    let request = Request::new("web", &descriptors);
    let ask =
        |at_ns| block_on(engine.check(&request, Nanos(at_ns), pending())).ok().map(|answer| answer.allowed);
    let mut goes = |_: &dyn Fn() -> u64| is_down.store(true, Ordering::SeqCst);
    let mut returns = |at_ns: &dyn Fn() -> u64| {
        is_down.store(false, Ordering::SeqCst);
        for _ in 0..PROBES_TO_RETURN {
            block_on(engine.tend(|| Nanos(at_ns()), TendDeadlines { probe: pending(), all: pending() }));
        }
        assert!(!engine.health(Nanos(at_ns())).is_degraded, "it was probed often enough");
    };
    Crowd::ask(threads, length, ask, &mut [&mut goes, &mut returns])
}

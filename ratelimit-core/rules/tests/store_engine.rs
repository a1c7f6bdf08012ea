//! Rules over a store, and without it while it fails.

use std::future::{Future, pending, ready};
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::RwLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::memory::MemoryStore;
use ratelimit_core::ports::{Charge, Policy, PolicyId, RateStore, RateStoreError};
use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, OnFailure, Rule, RuleSet};
use ratelimit_core::{
    Decision, Enforcement, HashSecret, KeyParts, Limit, Nanos, Rate, SetGrant, TableSize, Verdict,
};
use ratelimit_rules::{
    Answer, Descriptor, Engine, EngineError, Epoch, FAILURE_INTERVAL, FAILURES_TO_DEGRADE, LimitOverride,
    OverrideUnit, PROBES_TO_RETURN, Request, RuleStore, StoreCallError, StoreEngine, TEND_INTERVAL,
    TendDeadlines, UNPUSHED_BYTES_MAX, UNPUSHED_KEYS_MAX,
};

const SIZE: TableSize = TableSize { keys: 1_000, sketch_bytes: 0 };
const SECRET: HashSecret = HashSecret([5; 16]);
const NOW: Nanos = Nanos(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// A store in memory that fails when it is told to.
struct Frail {
    inner: RwLock<MemoryStore>,
    mood: AtomicU8,
    calls: AtomicU64,
}

const WELL: u8 = 0;
const FAILING: u8 = 1;
const HANGING: u8 = 2;
/// It does what it is asked for, and says that it did not.
const LYING: u8 = 3;
/// It tells what is left, and takes nothing.
const READ_ONLY: u8 = 4;
/// It tells what is left, and is never done with what it is to take: a disk that is read from memory.
const STALLING: u8 = 5;
/// It gives back, and cannot say so: nobody may try that again.
const FORGETTING: u8 = 6;

impl Frail {
    fn new(policies: Vec<Policy>) -> Self {
        Self::of_size(policies, SIZE)
    }

    fn of_size(policies: Vec<Policy>, size: TableSize) -> Self {
        let inner = RwLock::new(MemoryStore::new(policies, size, SECRET).expect("memory"));
        Self { inner, mood: AtomicU8::new(WELL), calls: AtomicU64::new(0) }
    }

    fn becomes(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn suffers<T>(
        &self,
        work: impl AsyncFnOnce(&MemoryStore) -> Result<T, RateStoreError>,
    ) -> Result<T, RateStoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.hangs_while(&[HANGING]).await;
        let failed = || RateStoreError::Failed { action: "do it", source: "a test".into() };
        match self.mood.load(Ordering::SeqCst) {
            FAILING => return Err(failed()),
            LYING => {}
            _ => return now_or_never(work(&self.inner.read().expect("no panic"))),
        }
        now_or_never(work(&self.inner.read().expect("no panic")))?;
        Err(failed())
    }
}

impl Frail {
    async fn hangs_while(&self, moods: &[u8]) {
        std::future::poll_fn(|_| match moods.contains(&self.mood.load(Ordering::SeqCst)) {
            true => Poll::Pending,
            false => Poll::Ready(()),
        })
        .await;
    }

    /// What every write meets first.
    async fn writes(&self) -> Result<(), RateStoreError> {
        self.hangs_while(&[STALLING]).await;
        match self.mood.load(Ordering::SeqCst) {
            READ_ONLY => Err(RateStoreError::Failed { action: "write", source: "a test".into() }),
            _ => Ok(()),
        }
    }
}

/// The store in memory never waits.
fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

impl RateStore for Frail {
    type Grant = SetGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<SetGrant>), RateStoreError> {
        self.writes().await?;
        self.suffers(async |store| store.check(charges, now).await).await
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        self.suffers(async |store| store.peek(charges, now).await).await
    }

    async fn refund(&self, grant: &mut Option<SetGrant>, now: Nanos) -> Result<(), RateStoreError> {
        self.writes().await?;
        if self.mood.load(Ordering::SeqCst) == FORGETTING {
            *grant = None;
            return Err(RateStoreError::Failed { action: "say so", source: "a test".into() });
        }
        self.suffers(async |store| store.refund(grant, now).await).await
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.suffers(async |store| store.reset(charges, now).await).await
    }
}

impl RuleStore for Frail {
    async fn reopen(&self, policies: Vec<Policy>, now: Nanos) -> Result<(), RateStoreError> {
        let failed = |error| RateStoreError::Failed { action: "reopen", source: Box::new(error) };
        self.inner.write().expect("no panic").reopen(policies, SIZE, now).map_err(failed)
    }

    async fn probe(&self, _now: Nanos) -> Result<(), RateStoreError> {
        self.writes().await?;
        self.suffers(async |_| Ok(())).await
    }

    fn last_known(&self, policy: PolicyId, key: &KeyParts, now: Nanos) -> Option<Decision> {
        let store = self.inner.read().expect("no panic");
        let known = now_or_never(store.peek(&[Charge { policy, key, cost: 0 }], now));
        known.ok().and_then(|verdict| verdict.decisions().first().copied())
    }

    fn live_keys(&self, now: Nanos) -> u64 {
        self.inner.read().expect("no panic").limits().live_keys(now)
    }

    fn overflowed(&self) -> u64 {
        0
    }
}

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::per_second(1), burst).expect("a limit")
}

fn any(key: &str, limit: Limit, on_failure: OnFailure) -> Node {
    Node::new(key, NodeValue::Any).with_rule(Rule::new(limit).on_failure(on_failure))
}

fn rules(nodes: Vec<Node>) -> RuleSet {
    RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules")
}

fn among(nodes: u32, rules: RuleSet) -> StoreEngine<Frail> {
    let store = Frail::new(StoreEngine::<Frail>::policies(&rules).expect("policies"));
    let nodes = NonZeroU32::new(nodes).expect("not zero");
    StoreEngine::new(store, rules, nodes, SIZE, SECRET).expect("an engine")
}

fn three() -> StoreEngine<Frail> {
    among(
        1,
        rules(vec![
            any("open", bucket(10), OnFailure::Open),
            any("closed", bucket(10), OnFailure::Closed),
            any("share", bucket(10), OnFailure::LocalShare),
        ]),
    )
}

/// A call with a deadline that has passed unless the store answers at once.
fn ask(engine: &StoreEngine<Frail>, keys: &[&str], hits: u64, now: Nanos) -> Answer {
    let entries: Vec<[Entry<'_>; 1]> = keys.iter().map(|key| [Entry { key, value: "a" }]).collect();
    let descriptors: Vec<_> = entries.iter().map(|entries| Descriptor::new(entries)).collect();
    let request = Request::new("web", &descriptors).with_hits(hits);
    now_or_never(engine.check(&request, now, ready(()))).expect("a request")
}

fn admitted(engine: &StoreEngine<Frail>, key: &str, most: u64, now: Nanos) -> u64 {
    (0..most).take_while(|_| ask(engine, &[key], 1, now).allowed).count() as u64
}

fn left(answer: &Answer) -> Option<u64> {
    answer.statuses[0].decision.map(|decision| decision.remaining())
}

fn tend(engine: &StoreEngine<Frail>, now: Nanos) {
    now_or_never(engine.tend(|| now, TendDeadlines { probe: ready(()), all: ready(()) }));
}

fn degrade(engine: &StoreEngine<Frail>, now: Nanos) {
    engine.store().becomes(FAILING);
    for at in failures(now) {
        ask(engine, &["open"], 1, at);
    }
    assert!(engine.health(now).is_degraded);
}

/// When as many calls fail as end the trust: the last one now, each an interval after the one before.
fn failures(now: Nanos) -> impl Iterator<Item = Nanos> {
    let ago = |failure: u32| FAILURE_INTERVAL * (FAILURES_TO_DEGRADE - 1 - failure);
    (0..FAILURES_TO_DEGRADE).map(move |failure| Nanos(now.0 - Nanos::from_duration(ago(failure)).0))
}

fn recover(engine: &StoreEngine<Frail>, now: Nanos) {
    engine.store().becomes(WELL);
    for probe in 0..PROBES_TO_RETURN {
        assert!(engine.health(now).is_degraded, "before probe {probe}");
        tend(engine, now);
    }
    assert!(!engine.health(now).is_degraded);
}

#[test]
fn while_the_store_does_well_every_answer_is_that_of_counters_in_memory() {
    let node = |key: &str, limit, enforcement| {
        Node::new(key, NodeValue::Any).with_rule(Rule::new(limit).enforced(enforcement).costing(2))
    };
    let window = Limit::fixed_window(9, Duration::from_secs(4)).expect("a limit");
    let all = || {
        rules(vec![
            any("a", bucket(7), OnFailure::LocalShare),
            node("b", window.clone(), Enforcement::Enforced),
            node("shadow", bucket(3), Enforcement::Shadow),
            node("q1", bucket(4), Enforcement::Quota),
            node("q2", bucket(6), Enforcement::Quota),
            node("endless quota", Limit::Unlimited, Enforcement::Quota),
            node("endless", Limit::Unlimited, Enforcement::Enforced),
            node("never quota", Limit::DenyAll, Enforcement::Quota),
            node("never", Limit::DenyAll, Enforcement::Enforced),
        ])
    };
    let (engine, memory) = (among(1, all()), Engine::new(all(), SIZE, SECRET).expect("an engine"));
    let keys = [
        "a",
        "a",
        "b",
        "b",
        "shadow",
        "q1",
        "q1",
        "q2",
        "q2",
        "endless quota",
        "endless",
        "never quota",
        "never",
        "unknown",
    ];
    let (mut random, mut now) = (7u64, NOW);
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut denied = 0;
    for round in 0..3_000 {
        now = now.after(Duration::from_millis(draw(700)));
        let chosen: Vec<&str> = (0..=draw(4)).map(|_| keys[draw(keys.len() as u64) as usize]).collect();
        let entries: Vec<[Entry<'_>; 1]> = chosen.iter().map(|key| [Entry { key, value: "v" }]).collect();
        let descriptors: Vec<_> = entries.iter().map(|entries| Descriptor::new(entries)).collect();
        let request = Request::new("web", &descriptors).with_hits(draw(3));
        let (ours, theirs) = if draw(5) == 0 {
            let ours = now_or_never(engine.peek(&request, now, pending())).expect("a request");
            (ours, memory.peek(&request, now).expect("a request"))
        } else {
            let ours = now_or_never(engine.check(&request, now, pending())).expect("a request");
            (ours, memory.check(&request, now).expect("a request"))
        };
        denied += u64::from(!ours.allowed);
        assert_eq!(ours, theirs, "round {round}: {request:?}");
    }
    assert!((500..2_900).contains(&denied), "{denied}");
    let tallies = |views: Vec<ratelimit_rules::RuleView>| {
        views.into_iter().map(|view| (view.path, view.tallies)).collect::<Vec<_>>()
    };
    assert_eq!(tallies(engine.rules()), tallies(memory.rules()));
    assert_eq!((engine.totals(), engine.top(9)), (memory.totals(), memory.top(9)));
}

#[test]
fn one_failure_is_decided_by_what_each_rule_says_and_the_store_is_asked_again() {
    for mood in [FAILING, HANGING] {
        let engine = three();
        for key in ["open", "closed", "share"] {
            engine.store().becomes(WELL);
            assert!(!ask(&engine, &[key], 1, NOW).degraded);
            engine.store().becomes(mood);
            let answer = ask(&engine, &[key], 1, NOW);
            assert!(answer.degraded);
            assert_eq!(answer.allowed, key != "closed", "{key}");
            engine.store().becomes(WELL);
            // Answers weigh half as much as failures.
            for _ in 0..2 {
                assert!(!ask(&engine, &[key], 0, NOW).degraded);
            }
        }
        let health = engine.health(NOW);
        assert!(!health.is_degraded);
        assert_eq!((health.errors, health.slow), if mood == FAILING { (3, 0) } else { (0, 3) });
        assert_eq!(engine.rules().iter().map(|rule| rule.tallies.degraded).collect::<Vec<_>>(), [1, 1, 1]);
    }
}

#[test]
fn a_closed_rule_denies_the_whole_request_and_a_share_beside_it_is_not_charged() {
    let engine = three();
    degrade(&engine, NOW);
    let answer = ask(&engine, &["share", "open", "closed"], 1, NOW);
    assert!(!answer.allowed && answer.degraded);
    assert_eq!(answer.decided_by, Some(2));
    let wait = answer.statuses[2].decision.and_then(|decision| decision.retry_after());
    assert_eq!(wait, Some(SECOND));
    assert_eq!(left(&answer), Some(10));
    assert_eq!(admitted(&engine, "share", 99, NOW), 10);
}

#[test]
fn after_three_failures_the_store_is_left_alone_until_three_probes_in_a_row_succeed() {
    let engine = three();
    degrade(&engine, NOW);
    let asked = engine.store().calls();
    assert!(ask(&engine, &["open"], 1, NOW).allowed);
    assert_eq!(engine.store().calls(), asked, "nobody asks it");
    let later = NOW.after(SECOND * 5);
    for _ in 0..4 {
        tend(&engine, later);
    }
    assert!(engine.health(later).is_degraded, "its probes fail");
    engine.store().becomes(WELL);
    for _ in 1..PROBES_TO_RETURN {
        tend(&engine, later);
    }
    engine.store().becomes(HANGING);
    tend(&engine, later);
    assert!(engine.health(later).is_degraded, "one that fails begins anew");
    recover(&engine, later);
    assert!(!ask(&engine, &["open"], 1, later).degraded);
    let health = engine.health(later.after(SECOND * 9));
    assert_eq!((health.degraded, health.outages), (SECOND * 5, 1));
}

#[test]
fn a_store_that_answers_half_of_the_time_is_not_trusted_either_however_often_it_is_asked() {
    for pause in [Duration::from_millis(1), FAILURE_INTERVAL] {
        let call = |engine: &StoreEngine<Frail>, round: u32, mood| {
            engine.store().becomes(mood);
            ask(engine, &["open"], 1, NOW.after(pause * round));
        };
        let engine = three();
        let rounds = 40 + 6 * FAILURE_INTERVAL.as_millis() as u32 / pause.as_millis() as u32;
        for round in 0..rounds {
            call(&engine, round, if round % 2 == 0 { FAILING } else { WELL });
        }
        assert!(engine.health(NOW).is_degraded);
        let engine = three();
        for round in 0..10 * rounds {
            call(&engine, round, if round % 4 == 0 { FAILING } else { WELL });
        }
        assert!(!engine.health(NOW).is_degraded, "one in four is borne");
    }
}

#[test]
fn a_share_begins_where_the_store_was_and_the_store_is_told_what_it_admitted() {
    let engine = three();
    assert_eq!(admitted(&engine, "share", 4, NOW), 4);
    degrade(&engine, NOW);
    assert_eq!(admitted(&engine, "share", 99, NOW), 6, "10 in all");
    let later = NOW.after(SECOND * 3);
    assert_eq!(admitted(&engine, "share", 2, later), 2, "and what has refilled");
    assert_eq!(engine.health(later).unpushed_keys, 1);
    recover(&engine, later);
    assert_eq!(engine.health(later).unpushed_keys, 0);
    let there = ask(&engine, &["share"], 0, later);
    assert!(!there.degraded);
    // A part of a cell counts as one.
    assert!(left(&there).is_some_and(|left| left <= 1), "{there:?}");
    let refilled = NOW.after(SECOND * 13);
    assert!(left(&ask(&engine, &["share"], 0, refilled)).is_some_and(|left| left >= 9), "nothing is wasted");
}

/// After a restart over a disk that took no writes a share knew nothing of any key, and the store, which did, told nothing:
/// everybody had the whole limit again.
#[test]
fn after_a_restart_a_share_begins_where_a_store_is_that_takes_no_writes() {
    for (nodes, expected) in [(1, 3), (4, 1)] {
        for (mood, degraded_before) in
            [(READ_ONLY, false), (STALLING, false), (FAILING, false), (FAILING, true)]
        {
            let limits = rules(vec![
                any("share", bucket(10), OnFailure::LocalShare),
                any("open", bucket(1), OnFailure::Open),
            ]);
            let store = Frail::new(StoreEngine::<Frail>::policies(&limits).expect("policies"));
            let charge =
                Charge { policy: PolicyId(0), key: &KeyParts::new(["web", "share", "=", "a"]), cost: 7 };
            assert!(now_or_never(store.check(&[charge], NOW)).expect("it does well").0.is_allowed());
            store.becomes(mood);
            let nodes = NonZeroU32::new(nodes).expect("not zero");
            let engine = StoreEngine::new(store, limits, nodes, SIZE, SECRET).expect("an engine");
            if degraded_before {
                degrade(&engine, NOW);
            }
            assert_eq!(admitted(&engine, "share", 99, NOW), expected, "{nodes} nodes, mood {mood}");
        }
    }
}

/// What a store charges and does not answer is not to be counted twice against the request that it is about.
#[test]
fn a_first_call_that_is_charged_and_not_answered_is_admitted_by_a_share() {
    let engine = three();
    engine.store().becomes(LYING);
    assert!(ask(&engine, &["share"], 10, NOW).allowed);
    assert!(!ask(&engine, &["share"], 1, NOW).allowed);
}

#[test]
fn each_of_four_nodes_admits_its_part() {
    let limits =
        rules(vec![any("open", bucket(1), OnFailure::Open), any("share", bucket(10), OnFailure::LocalShare)]);
    let engine = among(4, limits);
    degrade(&engine, NOW);
    assert_eq!(admitted(&engine, "share", 99, NOW), 3);
    assert_eq!(admitted(&engine, "share", 99, NOW.after(SECOND * 4)), 1);
    assert_eq!(admitted(&engine, "share", 99, NOW.after(SECOND * 7)), 0);
}

#[test]
fn a_store_that_fails_while_it_is_told_is_told_again() {
    let engine = three();
    degrade(&engine, NOW);
    assert_eq!(admitted(&engine, "share", 7, NOW), 7);
    engine.store().becomes(WELL);
    for _ in 1..PROBES_TO_RETURN {
        tend(&engine, NOW);
    }
    engine.store().becomes(READ_ONLY);
    tend(&engine, NOW);
    assert!(engine.health(NOW).is_degraded);
    assert_eq!(engine.health(NOW).unpushed_keys, 1);
    recover(&engine, NOW);
    assert_eq!(left(&ask(&engine, &["share"], 0, NOW)), Some(3));
}

/// Until November 2026 what a share had admitted was told with the next tending, and the store admitted it once more until then:
/// each call that failed alone was a cell over. The test below tended after each step, and so it could not see that.
#[test]
fn a_call_that_fails_alone_admits_nothing_twice() {
    for mood in [FAILING, HANGING, LYING] {
        let engine = three();
        let mut taken = 0;
        for call in 0..60 {
            engine.store().becomes(if call % 4 == 0 { mood } else { WELL });
            taken += u64::from(ask(&engine, &["share"], 1, NOW).allowed);
            assert!(!engine.health(NOW).is_degraded);
        }
        if mood == LYING {
            assert!((5..=10).contains(&taken), "{taken}: what was not answered may be charged twice");
        } else {
            assert_eq!(taken, 10, "in mood {mood}");
        }
    }
}

#[test]
fn what_the_store_cannot_take_yet_stays_owed_until_it_can() {
    let engine = three();
    assert_eq!(admitted(&engine, "share", 9, NOW), 9);
    engine.store().becomes(FAILING);
    let soon = NOW.after(SECOND / 2);
    assert!(ask(&engine, &["share"], 1, soon).allowed, "1.5 are left");
    engine.store().becomes(WELL);
    assert!(!ask(&engine, &["share"], 1, soon).allowed, "half a cell");
    assert!(ask(&engine, &["share"], 1, NOW.after(SECOND)).allowed, "and a whole one");
    assert!(!ask(&engine, &["share"], 1, NOW.after(SECOND * 2 - Duration::from_millis(1))).allowed);
}

/// A second failed call after the limit had changed forgot what was owed before, and the store admitted that once more. What
/// was owed without a second one was told in cells of the old limit, as if it had been taken of the new one.
#[test]
fn what_is_owed_when_a_limit_changes_is_carried_over_as_the_store_would_have() {
    let limits = |burst| rules(vec![any("share", bucket(burst), OnFailure::LocalShare)]);
    for (calls_after, burst, expected) in [(0, 20, 7), (1, 20, 5), (0, 5, 5), (1, 5, 3)] {
        let engine = among(1, limits(10));
        engine.store().becomes(FAILING);
        assert!(ask(&engine, &["share"], 3, NOW).allowed);
        now_or_never(engine.reload(limits(burst), NOW)).expect("a reload");
        for _ in 0..calls_after {
            assert!(ask(&engine, &["share"], 2, NOW).allowed);
        }
        engine.store().becomes(WELL);
        ask(&engine, &["share"], 0, NOW);
        let there = left(&ask(&engine, &["share"], 0, NOW));
        assert_eq!(there, Some(expected), "{calls_after} calls after the change to {burst}");
    }
}

/// It was converted when it was next added to: by then the old limit, which refilled faster, had forgiven it.
#[test]
fn what_is_owed_of_a_limit_that_refilled_faster_is_not_forgiven_after_the_change() {
    let limits = |limit| rules(vec![any("share", limit, OnFailure::LocalShare)]);
    let slow = Limit::gcra(Rate::per_hour(1), 10).expect("a limit");
    let engine = among(1, limits(bucket(10)));
    engine.store().becomes(FAILING);
    assert!(ask(&engine, &["share"], 8, NOW).allowed);
    now_or_never(engine.reload(limits(slow), NOW)).expect("a reload");
    let later = NOW.after(SECOND * 60);
    assert!(ask(&engine, &["share"], 1, later).allowed);
    engine.store().becomes(WELL);
    assert!(admitted(&engine, "share", 99, later) <= 1, "9 of 10 were taken");
}

fn moods() -> impl Strategy<Value = u8> {
    // Mostly well: failures that come alone are what the weights leave room for.
    prop_oneof![6 => Just(WELL), 1 => Just(FAILING), 1 => Just(HANGING), 1 => Just(LYING), 1 => Just(STALLING)]
}

proptest! {
    #[test]
    fn whenever_the_store_fails_a_share_and_the_store_together_admit_the_limit(
        steps in prop::collection::vec((0..1_500u64, moods(), 1..4u64, prop::bool::weighted(0.2)), 1..120),
        is_window in prop::bool::ANY,
    ) {
        let window = || Limit::fixed_window(10, SECOND * 10).expect("a limit");
        let limit = if is_window { window() } else { bucket(10) };
        let engine = among(1, rules(vec![any("share", limit, OnFailure::LocalShare)]));
        let (mut now, mut taken) = (NOW, Vec::new());
        for (wait_ms, mood, hits, tends) in steps {
            now = now.after(Duration::from_millis(wait_ms));
            // Hanging requests are not charged: who hangs here is never polled again.
            engine.store().becomes(mood);
            if ask(&engine, &["share"], hits, now).allowed {
                taken.push((now, hits));
            }
            if tends {
                engine.store().becomes(WELL);
                tend(&engine, now);
            }
        }
        for (first, (begin, _)) in taken.iter().enumerate() {
            let mut cells = 0;
            for (end, hits) in &taken[first..] {
                cells += hits;
                let most = if is_window {
                    let windows = end.0 / 10_000_000_000 - begin.0 / 10_000_000_000 + 1;
                    10 * u128::from(windows)
                } else {
                    10 + end.since(*begin).as_nanos() / SECOND.as_nanos()
                };
                prop_assert!(u128::from(cells) <= most, "{cells} from {begin:?} to {end:?}");
            }
        }
    }
}

#[test]
fn a_reload_keeps_counters_and_gives_the_number_of_a_rule_to_no_other_while_a_request_may_use_it() {
    let old = || any("old", bucket(10), OnFailure::Open);
    let kept = || any("kept", bucket(10), OnFailure::Open);
    let engine = among(1, rules(vec![old(), kept()]));
    assert_eq!(admitted(&engine, "kept", 7, NOW), 7);
    // Under way: it has met the old rule, and the store does not answer.
    engine.store().becomes(HANGING);
    let entries = [Entry { key: "old", value: "a" }];
    let descriptors = [Descriptor::new(&entries)];
    let request = Request::new("web", &descriptors).with_hits(5);
    let mut under_way: Pin<Box<_>> = Box::pin(engine.check(&request, NOW, pending()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(under_way.as_mut().poll(&mut context).is_pending());
    let reload = |nodes| now_or_never(engine.reload(rules(nodes), NOW)).expect("a reload");
    let new = || any("new", bucket(10), OnFailure::Open);
    let raised = || any("kept", bucket(100), OnFailure::Open);
    let reloaded = reload(vec![new(), raised()]);
    assert_eq!((reloaded.added, reloaded.changed, reloaded.removed, reloaded.rules), (1, 1, 1, 2));
    reload(vec![new(), raised(), any("newer", bucket(10), OnFailure::Open)]);
    engine.store().becomes(WELL);
    let Poll::Ready(answer) = under_way.as_mut().poll(&mut context) else { panic!("it is answered") };
    assert!(answer.expect("a request").allowed);
    drop(under_way);
    for key in ["new", "newer"] {
        assert_eq!(left(&ask(&engine, &[key], 0, NOW)), Some(10), "{key}");
    }
    assert_eq!(left(&ask(&engine, &["kept"], 0, NOW)), Some(3), "what was left stays");
    // The number is free now, and its counters are gone with it.
    reload(vec![new(), raised(), any("newest", bucket(10), OnFailure::Open)]);
    assert_eq!(left(&ask(&engine, &["newest"], 0, NOW)), Some(10));
    assert_eq!(left(&ask(&engine, &["kept"], 0, NOW)), Some(3));
}

#[test]
fn what_a_limit_of_the_request_took_is_given_back_when_the_store_denies() {
    let engine = among(1, rules(vec![any("few", bucket(1), OnFailure::Open)]));
    let own = LimitOverride::new(5, OverrideUnit::Hour, Epoch::default()).expect("a limit");
    let (few, brought) = ([Entry { key: "few", value: "a" }], [Entry { key: "own", value: "a" }]);
    let descriptors = [Descriptor::new(&few), Descriptor::new(&brought).limited(&own)];
    let request = Request::new("web", &descriptors);
    let check = || now_or_never(engine.check(&request, NOW, ready(()))).expect("a request");
    assert!(check().allowed);
    for _ in 0..9 {
        assert!(!check().allowed);
    }
    let alone = [Descriptor::new(&brought).limited(&own).with_hits(4)];
    let rest = now_or_never(engine.check(&Request::new("web", &alone), NOW, ready(())));
    assert!(rest.expect("a request").allowed, "4 of 5 are left");
}

#[test]
fn refunds_and_resets_reach_the_store_and_say_when_they_do_not() {
    let engine = three();
    let entries = [Entry { key: "share", value: "a" }];
    let descriptors = [Descriptor::new(&entries)];
    let request = Request::new("web", &descriptors).with_hits(8);
    let take = || now_or_never(engine.acquire(&request, NOW, ready(()))).expect("a request");
    let (answer, grant) = take();
    assert!(answer.allowed);
    now_or_never(engine.refund(&mut grant.expect("a grant"), NOW, ready(()))).expect("given back");
    assert_eq!(left(&ask(&engine, &["share"], 0, NOW)), Some(10));
    engine.store().becomes(HANGING);
    let reset = || now_or_never(engine.reset(&request, NOW, ready(())));
    assert!(matches!(reset(), Err(StoreCallError::Slow)));
    engine.store().becomes(WELL);
    assert_eq!(reset().expect("reset"), 1);
    assert_eq!(left(&ask(&engine, &["share"], 0, NOW)), Some(10));
}

/// A refund that failed was told "try again", and its grant was gone.
#[test]
fn a_refund_that_failed_is_tried_again_with_its_grant_and_gives_back_once() {
    let engine = three();
    let entries = [Entry { key: "share", value: "a" }];
    let descriptors = [Descriptor::new(&entries)];
    let request = Request::new("web", &descriptors).with_hits(8);
    let take = || {
        let (answer, grant) = now_or_never(engine.acquire(&request, NOW, ready(()))).expect("a request");
        assert!(answer.allowed);
        grant.expect("a grant")
    };
    let mut grant = take();
    let mut refund = |mood| {
        engine.store().becomes(mood);
        let refunded = now_or_never(engine.refund(&mut grant, NOW, ready(())));
        (refunded, grant.is_spent())
    };
    assert!(matches!(refund(FAILING), (Err(StoreCallError::Store(_)), false)));
    assert!(matches!(refund(HANGING), (Err(StoreCallError::Slow), false)));
    assert!(matches!(refund(STALLING), (Err(StoreCallError::Slow), false)));
    assert!(matches!(refund(WELL), (Ok(()), true)));
    assert_eq!(left(&ask(&engine, &["share"], 0, NOW)), Some(10));
    ask(&engine, &["share"], 5, NOW);
    assert!(matches!(refund(WELL), (Ok(()), true)));
    assert_eq!(left(&ask(&engine, &["share"], 0, NOW)), Some(5), "once");
}

#[test]
fn a_refund_of_which_the_store_cannot_say_whether_it_was_done_is_not_to_be_tried_again() {
    let engine = three();
    let entries = [Entry { key: "share", value: "a" }];
    let descriptors = [Descriptor::new(&entries)];
    let request = Request::new("web", &descriptors);
    let (_, grant) = now_or_never(engine.acquire(&request, NOW, ready(()))).expect("a request");
    let mut grant = grant.expect("a grant");
    engine.store().becomes(FORGETTING);
    let error = now_or_never(engine.refund(&mut grant, NOW, ready(()))).expect_err("it says so");
    assert!(matches!(error, StoreCallError::Unknown));
    assert!(!error.to_string().contains("try again"), "{error}");
    assert!(grant.is_spent());
}

/// A disk that took no writes, and was read from memory, was trusted again after three looks, failed three requests, and so
/// on: each time they waited for it in vain.
#[test]
fn a_store_that_answers_looks_and_stalls_at_writes_is_not_trusted_again_until_it_writes() {
    let engine = three();
    engine.store().becomes(STALLING);
    for at in failures(NOW) {
        assert!(ask(&engine, &["share"], 1, at).degraded);
    }
    assert!(engine.health(NOW).is_degraded);
    let (asked, mut later) = (engine.store().calls(), NOW);
    for _ in 0..20 {
        later = later.after(TEND_INTERVAL);
        tend(&engine, later);
        assert!(engine.health(later).is_degraded);
        ask(&engine, &["share"], 1, later);
    }
    assert_eq!(engine.store().calls(), asked, "no request waits for it");
    assert_eq!(engine.health(later).outages, 1, "it does not flap");
    recover(&engine, later);
    assert!(!ask(&engine, &["share"], 1, later).degraded);
}

/// All requests that waited for one slow commit counted as failures in a row: every open rule was open for seconds.
#[test]
fn requests_that_wait_for_one_slow_commit_are_one_failure() {
    let engine = three();
    let stalls = |from: Nanos| {
        engine.store().becomes(STALLING);
        for call in 0..50 {
            assert!(ask(&engine, &["open"], 1, from.after(Duration::from_millis(call))).degraded);
        }
        engine.store().becomes(WELL);
    };
    stalls(NOW);
    assert!(!engine.health(NOW).is_degraded);
    assert_eq!(engine.health(NOW).slow, 50, "each is counted for operators");
    for _ in 0..2 {
        assert!(!ask(&engine, &["share"], 0, NOW.after(SECOND)).degraded);
    }
    // One after the other for as long as it takes is another matter.
    for interval in 1..=FAILURES_TO_DEGRADE {
        let before = NOW.after(SECOND + FAILURE_INTERVAL * interval);
        assert!(!engine.health(before).is_degraded);
        stalls(before);
    }
    assert!(engine.health(NOW).is_degraded);
}

#[test]
fn a_probe_that_takes_longer_than_a_request_waits_is_a_failure_however_long_tending_may_take() {
    let engine = three();
    degrade(&engine, NOW);
    engine.store().becomes(STALLING);
    for _ in 0..PROBES_TO_RETURN {
        now_or_never(engine.tend(|| NOW, TendDeadlines { probe: ready(()), all: pending() }));
    }
    assert!(engine.health(NOW).is_degraded);
    assert_eq!(engine.health(NOW).slow, u64::from(PROBES_TO_RETURN));
}

/// An engine that is not asked any more, with room for that many keys in the table of its share.
fn degraded_with_room(keys: u64) -> StoreEngine<Frail> {
    let rules = rules(vec![any("share", bucket(10), OnFailure::LocalShare)]);
    let size = TableSize { keys, sketch_bytes: 0 };
    let store = Frail::of_size(StoreEngine::<Frail>::policies(&rules).expect("policies"), size);
    let engine = StoreEngine::new(store, rules, NonZeroU32::MIN, size, SECRET).expect("an engine");
    engine.store().becomes(FAILING);
    for at in failures(NOW) {
        ask_about_at(&engine, "the first", at);
    }
    assert!(engine.health(NOW).is_degraded);
    engine
}

fn ask_about(engine: &StoreEngine<Frail>, value: &str) -> bool {
    ask_about_at(engine, value, NOW)
}

fn ask_about_at(engine: &StoreEngine<Frail>, value: &str, now: Nanos) -> bool {
    let entries = [Entry { key: "share", value }];
    let descriptors = [Descriptor::new(&entries)];
    let asked = now_or_never(engine.check(&Request::new("web", &descriptors), now, ready(())));
    asked.expect("a request").allowed
}

#[test]
fn at_most_so_many_keys_wait_to_be_told_and_keys_beyond_are_denied() {
    let engine = degraded_with_room(2 * UNPUSHED_KEYS_MAX as u64);
    for client in 1..UNPUSHED_KEYS_MAX {
        assert!(ask_about(&engine, &client.to_string()), "client {client}");
    }
    assert_eq!(engine.health(NOW).unpushed_keys, UNPUSHED_KEYS_MAX as u64);
    assert!(!ask_about(&engine, "one more"));
    assert!(ask_about(&engine, "1"), "who is among them goes on");
    let health = engine.health(NOW);
    assert_eq!((health.unpushed_keys, health.unpushed_refused), (UNPUSHED_KEYS_MAX as u64, 1));
}

/// In a long outage every client beyond the first 65,536 was denied, although nearly all of those had refilled and had nothing
/// to be told any more.
#[test]
fn keys_that_have_refilled_make_room_for_others_while_the_store_is_away() {
    let engine = degraded_with_room(4 * UNPUSHED_KEYS_MAX as u64);
    for client in 1..UNPUSHED_KEYS_MAX {
        assert!(ask_about(&engine, &client.to_string()), "client {client}");
    }
    assert!(!ask_about(&engine, "too early"));
    let later = NOW.after(SECOND * 60);
    for client in 0..1_000 {
        assert!(ask_about_at(&engine, &format!("new {client}"), later), "client {client}");
    }
    let health = engine.health(later);
    assert!(health.unpushed_keys <= UNPUSHED_KEYS_MAX as u64);
    assert_eq!(health.unpushed_refused, 1);
}

#[test]
fn at_most_so_many_bytes_of_keys_wait_to_be_told_and_keys_beyond_are_denied() {
    let engine = degraded_with_room(10_000);
    let long = "x".repeat(3_900);
    let admitted = (0..5_000).filter(|client| ask_about(&engine, &format!("{client} {long}"))).count();
    let most = UNPUSHED_BYTES_MAX / long.len();
    assert!((most * 9 / 10..=most).contains(&admitted), "{admitted} of at most {most} keys");
    assert_eq!(engine.health(NOW).unpushed_refused, 5_000 - admitted as u64);
    // What was told makes room.
    recover(&engine, NOW);
    assert_eq!(engine.health(NOW).unpushed_keys, 0);
}

#[test]
fn limits_that_no_store_keeps_are_refused_by_name() {
    let log = Limit::sliding_log(3, SECOND).expect("a limit");
    let permits = Limit::concurrency(3, SECOND).expect("a limit");
    let sliding = Limit::sliding_window(3, SECOND).expect("a limit");
    for limit in [log, permits, sliding] {
        let refused = StoreEngine::<Frail>::policies(&rules(vec![any("x", limit, OnFailure::Open)]));
        assert_eq!(refused, Err(EngineError::NotStored { path: "web.x".to_owned() }));
    }
}

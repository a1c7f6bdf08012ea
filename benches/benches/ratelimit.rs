//! What one decision costs, without a clock: keys in no order, at 1,000 and at 1,000,000 keys.
//!
//! `cargo bench -p strongroom-benches --bench ratelimit`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Request, Rule, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, Limit, LimitSet, Limiter, Nanos, Rate, TableSize};

const SECRET: HashSecret = HashSecret([9; 16]);

/// A sequence that visits keys in no order, the same in every run.
struct Scattered(u64);

impl Scattered {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * u128::from(below)) >> 64) as u64
    }
}

fn limiter(limit: Limit, keys: u64) -> Limiter<u64> {
    let limiter = Limiter::new(limit, TableSize::for_keys(keys), SECRET).expect("memory");
    for key in 0..keys {
        limiter.check(&key, Nanos(1));
    }
    limiter
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ratelimit");
    group.throughput(Throughput::Elements(1));
    let second = Duration::from_secs(1);
    for keys in [1_000, 1_000_000] {
        let wide = Limit::gcra(Rate::per_second(1_000_000), 1_000_000_000).expect("a limit");
        let narrow = Limit::gcra(Rate::per_hour(1), 1).expect("a limit");
        let window = Limit::fixed_window(1_000_000_000, second).expect("a limit");
        for (name, limit) in [("admit/gcra", wide), ("deny/gcra", narrow), ("admit/fixed_window", window)] {
            let limiter = limiter(limit, keys);
            let (mut scattered, mut now) = (Scattered(1), 2);
            group.bench_function(format!("{name}/{keys}"), |bencher| {
                bencher.iter(|| {
                    now += 10;
                    black_box(limiter.check(&scattered.next(keys), Nanos(now)).is_allowed())
                });
            });
        }
        let limit = Limit::gcra(Rate::per_second(1_000_000), 1_000_000_000).expect("a limit");
        let limiter = Limiter::<[u8]>::new(limit, TableSize::for_keys(keys), SECRET).expect("memory");
        let (mut scattered, mut now) = (Scattered(1), 2);
        group.bench_function(format!("admit/gcra_bytes/{keys}"), |bencher| {
            bencher.iter(|| {
                now += 10;
                let key = scattered.next(keys).to_le_bytes();
                black_box(limiter.check(key.as_slice(), Nanos(now)).is_allowed())
            });
        });
    }
    group.finish();
}

fn several(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ratelimit");
    let mut set = LimitSet::new(SECRET);
    let ids = [1_000_000, 2_000_000, 3_000_000].map(|rate| {
        let limit = Limit::gcra(Rate::per_second(rate), 1_000_000_000).expect("a limit");
        set.add(limit, TableSize::for_keys(1_000), Enforcement::Enforced).expect("memory")
    });
    let (mut scattered, mut now) = (Scattered(1), 2);
    group.bench_function("admit/three_limits/1000", |bencher| {
        bencher.iter(|| {
            now += 10;
            let user = scattered.next(1_000);
            let hits =
                [set.hit(ids[0], &user, 1), set.hit(ids[1], &(user % 50), 1), set.hit(ids[2], &0u64, 1)];
            black_box(set.check(&hits, Nanos(now)).is_ok_and(|verdict| verdict.is_allowed()))
        });
    });
    group.finish();
}

/// A request of one descriptor with two entries, as a proxy asks, among rules for so many paths.
fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ratelimit");
    for paths in [1, 10_000] {
        let limit = Limit::gcra(Rate::per_second(1_000_000), 1_000_000_000).expect("a limit");
        let node = |path: usize| {
            let address = Node::new("remote_address", NodeValue::Any).with_rule(Rule::new(limit.clone()));
            Node::new("path", NodeValue::Exact(format!("/v1/{path}"))).with_node(address)
        };
        let domain = Domain { name: "shop".to_owned(), nodes: (0..paths).map(node).collect() };
        let rules = RuleSet::new([domain]).expect("rules");
        let path = format!("/v1/{}", paths - 1);
        let entries =
            [Entry { key: "path", value: &path }, Entry { key: "remote_address", value: "203.0.113.77" }];
        group.bench_function(format!("match/{paths}_paths"), |bencher| {
            let request = Request { domain: "shop", descriptors: &[&entries] };
            bencher.iter(|| black_box(rules.matches(black_box(&request))));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, several, rules);
criterion_main!(benches);

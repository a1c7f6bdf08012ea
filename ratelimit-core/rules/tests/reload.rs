//! Rules that change while they are at work.

#![expect(clippy::disallowed_methods, reason = "one claim is about threads")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Rule, RuleSet, Sharing};
use ratelimit_core::{CannotSucceed, Enforcement, HashSecret, Limit, Nanos, Rate, TableError, TableSize};
use ratelimit_rules::{
    Descriptor, Engine, EngineError, Epoch, Reloaded, Request, RuleFile, Syntax, TABLES_MAX, read_rule_files,
};

const SIZE: TableSize = TableSize { keys: 1_000, sketch_bytes: 1 << 16 };
const NOW: Nanos = Nanos(5);

fn bucket(burst: u64) -> Limit {
    Limit::gcra(Rate::per_hour(1), burst).expect("a limit")
}

fn any(key: &str, limit: Limit) -> Node {
    Node::new(key, NodeValue::Any).with_rule(Rule::new(limit))
}

fn rules(nodes: Vec<Node>) -> RuleSet {
    RuleSet::new([Domain { name: "web".to_owned(), nodes }]).expect("rules")
}

fn engine(nodes: Vec<Node>) -> Engine {
    Engine::new(rules(nodes), SIZE, HashSecret([1; 16])).expect("an engine")
}

fn take(engine: &Engine, key: &str, value: &str, hits: u64) -> bool {
    let entries = [Entry { key, value }];
    let descriptors = [Descriptor::new(&entries).with_hits(hits)];
    engine.check(&Request::new("web", &descriptors), NOW).expect("a request").allowed
}

fn left(engine: &Engine, key: &str, value: &str) -> Option<u64> {
    let entries = [Entry { key, value }];
    let descriptors = [Descriptor::new(&entries).with_hits(0)];
    let answer = engine.peek(&Request::new("web", &descriptors), NOW).expect("a request");
    answer.statuses[0].decision.map(|decision| decision.remaining())
}

#[test]
fn rules_that_stay_keep_their_counters_changed_ones_what_was_left_and_the_rest_comes_and_goes() {
    let engine = engine(vec![any("stays", bucket(10)), any("changes", bucket(10)), any("goes", bucket(10))]);
    for key in ["stays", "changes", "goes"] {
        assert!(take(&engine, key, "a", 7));
    }
    let mut stays = any("stays", bucket(10));
    stays.rule = stays.rule.map(|rule| rule.named("new name").enforced(Enforcement::Shadow));
    let next = vec![any("comes", bucket(4)), any("changes", bucket(100)), stays];
    let reloaded = engine.reload(rules(next), NOW).expect("a reload");
    let expected = Reloaded { rules: 3, unchanged: 1, changed: 1, restarted: 0, added: 1, removed: 1 };
    assert_eq!(reloaded, expected);
    let now = ["stays", "changes", "goes", "comes"].map(|key| left(&engine, key, "a"));
    assert_eq!(now, [Some(3), Some(3), None, Some(4)]);
    assert_eq!(left(&engine, "changes", "b"), Some(100), "who used nothing has the new size");
    assert!(take(&engine, "stays", "a", 9), "it is in shadow now");
}

/// A rule whose values had one counter together was in a table for one. When each value got its own the rule stayed in that
/// table, since its limit was the same: after some dozens of clients it denied every other one until a restart.
#[test]
fn a_rule_whose_values_no_longer_share_a_counter_has_room_for_all_of_them_and_the_other_way_round() {
    let node = |sharing| {
        let prefix = NodeValue::Prefix("/a".to_owned());
        vec![Node::new("path", prefix).shared(sharing).with_rule(Rule::new(bucket(10)))]
    };
    let engine = engine(node(Sharing::Together));
    assert!(take(&engine, "path", "/a", 7));
    assert_eq!(left(&engine, "path", "/a other"), Some(3));
    let another = Reloaded { rules: 1, added: 1, removed: 1, ..Reloaded::default() };
    let reloaded = engine.reload(rules(node(Sharing::PerValue)), NOW).expect("a reload");
    assert_eq!(reloaded, another, "its counters are others");
    for client in 0..200 {
        assert!(take(&engine, "path", &format!("/a{client}"), 1), "client {client}");
    }
    let reloaded = engine.reload(rules(node(Sharing::PerValue)), NOW).expect("a reload");
    assert_eq!(reloaded, Reloaded { rules: 1, unchanged: 1, ..Reloaded::default() });
    assert_eq!(left(&engine, "path", "/a7"), Some(9));
    let reloaded = engine.reload(rules(node(Sharing::Together)), NOW).expect("a reload");
    assert_eq!(reloaded, another, "and others again");
    assert_eq!(left(&engine, "path", "/a7"), Some(10));
}

#[test]
fn raising_and_lowering_in_a_loop_gives_nobody_a_cell() {
    let engine = engine(vec![any("user", bucket(10))]);
    assert!(take(&engine, "user", "a", 6));
    for round in 0..30u64 {
        let limit = match round % 3 {
            0 => bucket(1_000),
            1 => Limit::fixed_window(50, Duration::from_secs(3_600)).expect("a limit"),
            _ => bucket(5),
        };
        engine.reload(rules(vec![any("user", limit)]), NOW).expect("a reload");
        // Nobody asks between some of the reloads.
        if round % 7 == 0 {
            assert_eq!(left(&engine, "user", "a"), Some(4), "round {round}");
        }
    }
    assert_eq!(left(&engine, "user", "a"), Some(4));
}

#[test]
fn an_idle_rule_can_change_any_number_of_times() {
    let engine = engine(vec![any("user", bucket(10))]);
    for burst in 1..200 {
        engine.reload(rules(vec![any("user", bucket(burst))]), NOW).expect("a reload");
    }
    assert_eq!(left(&engine, "user", "a"), Some(199));
}

#[test]
fn a_reload_that_cannot_be_done_changes_nothing() {
    let engine = engine(vec![any("user", bucket(10)), any("org", bucket(10))]);
    assert!(take(&engine, "user", "a", 7));
    let refused = (0..100).find_map(|round| {
        assert!(take(&engine, "user", &format!("fresh {round}"), 1));
        let next = vec![any("org", bucket(10 + round)), any("user", bucket(11 + round))];
        engine.reload(rules(next), NOW).err().map(|error| (error, round))
    });
    let (error, round) = refused.expect("limits whose keys wait pile up");
    let EngineError::CannotPlace { path, reason: CannotSucceed::TooManyGenerations { .. }, .. } = &error
    else {
        panic!("{error}")
    };
    assert!(path == "web.user" || path == "web.org", "{path}");
    assert_eq!((left(&engine, "user", "a"), left(&engine, "org", "a")), (Some(3), Some(9 + round)));
    let many = (0..=TABLES_MAX).map(|number| any(&format!("key {number}"), bucket(1))).collect();
    let error = engine.reload(rules(many), NOW).expect_err("it was taken");
    assert_eq!(error, EngineError::TooManyTables { tables: TABLES_MAX + 1, tables_max: TABLES_MAX });
    assert_eq!(left(&engine, "user", "a"), Some(3));
}

/// A valid file with a log of 64 for thirty million keys, or with a thousand permits for each of them, ended the server:
/// the memory was asked for in a way that cannot fail.
#[test]
fn a_reload_that_asks_for_too_much_memory_names_the_rule_and_leaves_the_rules_of_before_with_their_counters()
{
    let room = TableSize { keys: 30_000_000, sketch_bytes: 0 };
    let before = || vec![any("user", bucket(10)), any("org", bucket(10))];
    let engine = Engine::new(rules(before()), room, HashSecret([1; 16])).expect("an engine");
    assert!(take(&engine, "user", "a", 7) && take(&engine, "org", "a", 7));
    let files = [
        (
            "  - key: login\n    limit: { algorithm: sliding_log, count: 64, per: hour }\n",
            22_968_000_000_u128,
        ),
        (
            "  - key: login\n    limit: { algorithm: concurrency, count: 1024, expires: minute }\n",
            713_400_000_000,
        ),
    ];
    for (login, bytes) in files {
        let text = format!("domain: web\ndescriptors:\n  - key: user\n    limit: 20/hour\n{login}");
        let file = RuleFile { name: "rules.yaml", text: &text, syntax: Syntax::Yaml };
        let next = read_rule_files(&[file], Epoch(Duration::ZERO)).expect("a valid file");
        let error = engine.reload(next.rules, NOW).expect_err("nobody has so much");
        let EngineError::CannotPlace { path, reason, .. } = &error else { panic!("{error}") };
        let CannotSucceed::Table(TableError::TooLarge { bytes: asked, .. }) = reason else {
            panic!("{error}")
        };
        assert_eq!((path.as_str(), asked / 100_000 * 100_000), ("web.login", bytes));
        let told = error.to_string();
        assert!(told.starts_with("the rule at web.login cannot be put in force"), "{told}");
        assert_eq!(next.lines.of(path).map(|at| (&*at.file, at.line)), Some(("rules.yaml", 6)));
        assert!(told.contains(&asked.to_string()), "{told}");
        assert_eq!([left(&engine, "user", "a"), left(&engine, "org", "a")], [Some(3), Some(3)]);
        assert_eq!(engine.rules().len(), 2);
    }
    let started = Engine::new(rules(before()), TableSize::for_keys(u64::MAX), HashSecret([1; 16]));
    assert!(matches!(started, Err(EngineError::CannotPlace { .. })));
}

/// A log, or permits, began anew for every key when the limit changed: logins of 5 an hour that became 6 gave everybody 6 more.
#[test]
fn logs_and_permits_that_change_keep_what_was_used() {
    let hour = Duration::from_secs(3_600);
    let log = |limit| any("log", Limit::sliding_log(limit, hour).expect("a limit"));
    let permits = |permits| any("job", Limit::concurrency(permits, hour).expect("a limit"));
    let engine = engine(vec![log(5), permits(5)]);
    assert!(take(&engine, "log", "a", 4));
    let entries = [Entry { key: "job", value: "a" }];
    let descriptors = [Descriptor::new(&entries).with_hits(4)];
    let (_, grant) = engine.acquire(&Request::new("web", &descriptors), NOW).expect("a request");
    let reload = |size, left_of_log, left_of_permits| {
        let reloaded = engine.reload(rules(vec![permits(size), log(size)]), NOW).expect("a reload");
        assert_eq!((reloaded.changed, reloaded.restarted), (2, 0));
        let now = ["log", "job"].map(|key| left(&engine, key, "a"));
        assert_eq!(now, [Some(left_of_log), Some(left_of_permits)], "of {size}");
    };
    reload(6, 1, 2);
    reload(3, 0, 0);
    reload(64, 0, 60);
    assert_eq!(left(&engine, "log", "b"), Some(64), "who used nothing has the new size");
    engine.refund(grant.expect("a grant"), NOW);
    assert_eq!(left(&engine, "job", "a"), Some(64), "who held permits gives them back");
    let next = vec![any("log", bucket(10)), any("job", bucket(10))];
    engine.reload(rules(next), NOW).expect("a reload");
    assert_eq!(["log", "job"].map(|key| left(&engine, key, "a")), [Some(0), Some(10)]);
}

#[test]
fn grants_of_rules_that_stay_are_good_across_a_reload_and_others_give_nothing_back() {
    let engine = engine(vec![any("stays", bucket(10)), any("changes", bucket(10))]);
    let (stays, changes) = ([Entry { key: "stays", value: "a" }], [Entry { key: "changes", value: "a" }]);
    let descriptors = [Descriptor::new(&stays).with_hits(4), Descriptor::new(&changes).with_hits(4)];
    let (_, grant) = engine.acquire(&Request::new("web", &descriptors), NOW).expect("a request");
    let next = vec![any("changes", bucket(20)), any("comes", bucket(1)), any("stays", bucket(10))];
    engine.reload(rules(next), NOW).expect("a reload");
    engine.refund(grant.expect("a grant"), NOW);
    assert_eq!((left(&engine, "stays", "a"), left(&engine, "changes", "a")), (Some(10), Some(6)));
}

/// Of `n + 1` requests for `n` cells exactly `n` are admitted, whatever is reloaded meanwhile: none is lost with a table that
/// is replaced, none is charged in two.
#[test]
fn requests_that_run_while_rules_are_exchanged_are_decided_exactly_once() {
    const THREADS: u64 = 4;
    for size in [40, 400] {
        let sizes = [size, size + 3];
        // The user's limit stays, the organisation's changes with each reload and never binds.
        let nodes = |round: u64| vec![any("user", bucket(size)), any("org", bucket(1_000_000 + round))];
        let reversed = |round: u64| nodes(round).into_iter().rev().collect::<Vec<_>>();
        let engine = engine(nodes(0));
        let (user, org) = ([Entry { key: "user", value: "a" }], [Entry { key: "org", value: "a" }]);
        let descriptors = [Descriptor::new(&user), Descriptor::new(&org)];
        // Before the first reload: a key that has used nothing has the whole new size.
        let first = engine.check(&Request::new("web", &descriptors), NOW).expect("a request");
        let (admitted, over) = (AtomicU64::new(u64::from(first.allowed)), AtomicBool::new(false));
        let reloads = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..sizes[1] {
                            let answer =
                                engine.check(&Request::new("web", &descriptors), NOW).expect("a request");
                            assert!(answer.statuses.iter().all(|status| status.decision.is_some()));
                            admitted.fetch_add(u64::from(answer.allowed), Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let reloading = scope.spawn(|| {
                let mut round = 0;
                while !over.load(Ordering::Acquire) || round < 2 {
                    round += 1;
                    let next = if round % 2 == 0 { nodes(round) } else { reversed(round) };
                    if engine.reload(rules(next), NOW).is_err() {
                        break; // every generation has keys
                    }
                }
                round
            });
            asking.into_iter().for_each(|thread| thread.join().expect("no panic"));
            over.store(true, Ordering::Release);
            reloading.join().expect("no panic")
        });
        assert!(reloads >= 2);
        assert_eq!(admitted.load(Ordering::Relaxed), size);
        assert_eq!(left(&engine, "user", "a"), Some(0));
        let org = left(&engine, "org", "a").expect("a rule");
        assert_eq!(org, 1_000_000 - size, "what was left of the other counter was carried along");
    }
}

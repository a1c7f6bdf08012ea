//! Limits to begin with, and what a server would make of rule files.

use std::path::PathBuf;

use ratelimit_core::rules::{Entry, OnFailure};
use ratelimit_core::{HashSecret, Nanos, TableSize};
use ratelimit_rules::{Descriptor, Engine, Request};
use ratelimit_server::ServersError;
use ratelimit_server::rule_files::{BuiltIn, PRESETS, RuleFiles, RulesError};
use ratelimit_server::rule_trial::put_in_force;
use ratelimit_server::settings::EngineChoice;

const KEYS: u64 = 100_000;

fn redb() -> EngineChoice {
    EngineChoice::Redb(PathBuf::from("nowhere/counters.db"))
}

/// The limits of the systems that this one replaces, request by request.
#[test]
fn the_presets_admit_what_they_say_and_deny_the_next() {
    let read = RuleFiles::new(Vec::new()).with(PRESETS).read().expect("rules");
    assert!(read.idle.is_empty());
    let engine = Engine::new(read.rules, TableSize::for_keys(100), HashSecret([3; 16])).expect("an engine");
    for (domain, entries, admitted) in [
        ("api", &[("client_ip", "a")][..], 20),
        ("api", &[("api_key", "k")], 1_000),
        ("api", &[("access", "anonymous"), ("client_ip", "a")], 10),
        ("accounts", &[("action", "login"), ("client_ip", "a")], 100),
        ("accounts", &[("action", "registration"), ("client_ip", "a")], 5),
        ("accounts", &[("action", "verification"), ("email", "a@b.c")], 5),
        ("accounts", &[("action", "password_reset"), ("user", "u")], 3),
    ] {
        let entries: Vec<Entry<'_>> = entries.iter().map(|(key, value)| Entry { key, value }).collect();
        let descriptors = [Descriptor::new(&entries)];
        let allowed =
            || engine.check(&Request::new(domain, &descriptors), Nanos(0)).expect("a request").allowed;
        assert_eq!((0..admitted).filter(|_| allowed()).count(), admitted, "{domain} {entries:?}");
        assert!(!allowed(), "{domain} {entries:?}: one more than {admitted}");
    }
    let guards = engine.rules().into_iter().filter(|rule| rule.path.starts_with("accounts."));
    assert!(guards.map(|rule| rule.on_failure).all(|on_failure| on_failure == OnFailure::Closed));
}

#[test]
fn the_presets_are_good_for_counters_in_a_file_too() {
    for engine in [EngineChoice::Memory, redb()] {
        let read = RuleFiles::new(Vec::new()).with(PRESETS).read().expect("rules");
        let trial = put_in_force(read, &engine, KEYS).expect("in force");
        assert_eq!(trial.rules.len(), 7, "{engine:?}");
        let tables = trial.room_bytes.map(|bytes| bytes / (KEYS * 23 + (4 << 20)));
        assert_eq!(tables, (engine == EngineChoice::Memory).then_some(7), "{engine:?}");
    }
}

/// `serve --engine redb:` refused what `validate` had called valid, and named the path of a rule in files of thousands of lines.
#[test]
fn a_rule_that_a_file_cannot_keep_is_named_with_its_line() {
    for limit in [
        "{algorithm: sliding_log, count: 3, per: hour}",
        "{algorithm: strict_window, count: 3, per: hour}",
        "{algorithm: sliding_window, count: 3, per: hour}",
        "{algorithm: concurrency, count: 3, expires: 1m}",
    ] {
        let text = format!(
            "domain: web\ndescriptors:\n  - key: a\n    limit: 1/minute\n  - key: b\n    descriptors:\n      - key: c\n        \
             limit: {limit}\n"
        );
        let built_in = BuiltIn { name: "web.yaml", text: text.leak() };
        let read = || RuleFiles::new(Vec::new()).with(built_in).read().expect("rules");
        assert_eq!(put_in_force(read(), &EngineChoice::Memory, KEYS).expect("in memory").rules.len(), 2);
        let refused = put_in_force(read(), &redb(), KEYS).expect_err("refused");
        let told = refused.to_string();
        assert!(told.starts_with("web.yaml:8: the rule at web.b.c has a limit"), "{told}");
        assert!(matches!(refused, ServersError::Rules(RulesError::Rule { line: 8, .. })));
    }
    // In memory there is a table for each; what stands in for the file needs none for rules that are open.
    let many: String = (0..4_100).map(|key| format!("  - {{key: k{key}, limit: 1/minute}}\n")).collect();
    let built_in = BuiltIn { name: "web.yaml", text: format!("domain: web\ndescriptors:\n{many}").leak() };
    let read = || RuleFiles::new(Vec::new()).with(built_in).read().expect("rules");
    assert!(put_in_force(read(), &EngineChoice::Memory, KEYS).is_err());
    assert_eq!(put_in_force(read(), &redb(), KEYS).expect("in force").rules.len(), 4_100);
}

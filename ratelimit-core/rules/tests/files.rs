//! Rule files: what they mean, and what is told about mistakes.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::algorithms::CalendarUnit;
use ratelimit_core::rules::{DEPTH_MAX, Entry, OnFailure, Request, Rule, RuleSet};
use ratelimit_core::{Enforcement, HashSecret, Limit, Limiter, Nanos, TableSize};
use ratelimit_rules::{
    Epoch, FILE_BYTES_MAX, Problem, ReadRules, RuleFile, RuleFileError, Syntax, limit_in_words,
    read_rule_files, read_rules,
};

/// 2026-11-22 10:20:30 UTC.
const EPOCH: Epoch = Epoch(Duration::from_secs(1_795_342_830));

fn read(text: &str, syntax: Syntax) -> Result<RuleSet, RuleFileError> {
    read_rules(&[RuleFile { name: "rules", text, syntax }], EPOCH)
}

fn yaml(text: &str) -> RuleSet {
    read(text, Syntax::Yaml).expect("a rule file")
}

/// The rule that a descriptor of the domain `web` meets.
fn rule(rules: &RuleSet, entries: &[(&str, &str)]) -> Option<Rule> {
    let entries: Vec<Entry<'_>> = entries.iter().map(|(key, value)| Entry { key, value }).collect();
    rules
        .matches(&Request { domain: "web", descriptors: &[&entries] })
        .remove(0)
        .map(|found| found.rule.clone())
}

fn words(rules: &RuleSet, entries: &[(&str, &str)]) -> String {
    rule(rules, entries).map_or("no rule".to_owned(), |rule| limit_in_words(&rule.limit))
}

const OURS: &str = r#"
domains:
  - domain: web
    descriptors:
      - key: client_ip
        limit: 60/minute burst 20
      - key: path
        value: /login
        descriptors:
          - key: account
            limit: { algorithm: strict_window, count: 5, per: 10 minutes }
            on_failure: local_share
            cost: 2
      - key: path
        value: /api/*
        share_threshold: true
        shadow_mode: true
        limit: {algorithm: sliding_window, count: 100, per: 1h}
      - key: tenant
        quota_mode: yes
        limit:
          algorithm: calendar
          count: 1000
          per: month
          zone: europe/berlin
      - key: jobs
        limit: {algorithm: concurrency, count: 3, expires: 90s}
      - {key: free, limit: unlimited}
      - {key: banned, limit: deny_all}
      - {key: owed, limit: {count: 10, per: second, burst: 30, debt: 5}}
  - domain: mail
    descriptors: []
"#;

const OURS_IN_TOML: &str = r#"
[[domains]]
domain = "web"
descriptors = [
    { key = "client_ip", limit = "60/minute burst 20" },
    { key = "path", value = "/api/*", share_threshold = true, shadow_mode = true, limit = { algorithm = "sliding_window", count = 100, per = "1h" } },
    { key = "jobs", limit = { algorithm = "concurrency", count = 3, expires = "90s" } },
    { key = "free", limit = "unlimited" },
    { key = "banned", limit = "deny_all" },
    { key = "owed", limit = { count = 10, per = "second", burst = 30, debt = 5 } },
]

[[domains.descriptors]]
"#;

/// A closed rule that was only written so beside the path and not beside its limit failed open.
#[test]
fn what_belongs_to_a_limit_is_refused_where_there_is_none() {
    for (field, text) in [
        ("on_failure", "on_failure: closed"),
        ("cost", "cost: 5"),
        ("name", "name: login"),
        ("replaces", "replaces: [everyone]"),
    ] {
        let below = "descriptors: [{key: account, limit: 5/minute}]";
        let text = format!("domain: web\ndescriptors:\n  - key: path\n    {text}\n    {below}\n");
        let error = read(&text, Syntax::Yaml).expect_err("dropped");
        assert_eq!((error.line, error.problem), (4, Problem::WithoutLimit { field }));
        let toml = "domain = 'web'\n[[descriptors]]\nkey = 'path'\non_failure = 'closed'\n";
        let error = read(toml, Syntax::Toml).expect_err("dropped");
        assert_eq!((error.line, error.problem), (4, Problem::WithoutLimit { field: "on_failure" }));
    }
    let misspelt = "domain: web\ndescriptors:\n  - {key: path, on_failure: closed, limt: 5/minute}\n";
    let error = read(misspelt, Syntax::Yaml).expect_err("misspelt");
    assert!(matches!(&error.problem, Problem::UnknownField { field, .. } if field == "limt"), "{error}");
}

/// The Envoy project's service reads such files without a word, so they load here too.
#[test]
fn envoys_own_fields_without_a_limit_are_told_and_change_nothing() {
    let text = "domain: web\ndescriptors:\n  - key: path\n    shadow_mode: true\n    descriptors:\n      - key: user\n        \
                rate_limit: {unit: minute, requests_per_unit: 5}\n  - {key: a, quota_mode: false}\n  - {key: b, quota_mode: on}\n";
    let ReadRules { rules, idle, .. } =
        read_rule_files(&[RuleFile { name: "web.yaml", text, syntax: Syntax::Yaml }], EPOCH)
            .expect("a rule file");
    let told: Vec<_> = idle.iter().map(|idle| (idle.line, idle.field)).collect();
    assert_eq!(told, [(4, "shadow_mode"), (9, "quota_mode")]);
    assert!(idle[0].to_string().starts_with("web.yaml:4: shadow_mode changes nothing"), "{}", idle[0]);
    let below = rule(&rules, &[("path", "/"), ("user", "u")]).expect("a rule");
    assert_eq!(below.enforcement, Enforcement::Enforced);
}

#[test]
fn the_line_of_each_rule_is_known_by_its_path() {
    let files = [
        RuleFile { name: "ours.yaml", text: OURS, syntax: Syntax::Yaml },
        RuleFile {
            name: "other.toml",
            text: "domain = 'other'\n[[descriptors]]\nkey = 'a'\nlimit = '1/minute'\n",
            syntax: Syntax::Toml,
        },
    ];
    let ReadRules { rules, lines, idle } = read_rule_files(&files, EPOCH).expect("rule files");
    let line = |path: &str| lines.of(path).map(|at| (&*at.file, at.line));
    assert_eq!(line("web.client_ip"), Some(("ours.yaml", 6)));
    assert_eq!(line("web.path=/login.account"), Some(("ours.yaml", 11)));
    assert_eq!(line("other.a"), Some(("other.toml", 4)));
    assert_eq!(line("web.path=/login"), None, "it has no rule");
    assert!(idle.is_empty());
    assert!(rules.rules().iter().all(|placed| lines.of(&placed.path).is_some()), "every rule has a line");
}

#[test]
fn every_kind_of_rule_can_be_written() {
    let rules = yaml(OURS);
    for (entries, told) in [
        (&[("client_ip", "::1")][..], "60 per minute, burst 20"),
        (&[("path", "/login")], "no rule"),
        (&[("path", "/login"), ("account", "a")], "5 per 10 minutes"),
        (&[("path", "/api/v1")], "100 per hour"),
        (&[("tenant", "t")], "1000 per calendar month in Europe/Berlin"),
        (&[("jobs", "j")], "3 at a time, each for at most 90 seconds"),
        (&[("free", "f")], "unlimited"),
        (&[("banned", "b")], "nothing"),
        (&[("owed", "o")], "10 per second, burst 30"),
        (&[("other", "o")], "no rule"),
    ] {
        assert_eq!(words(&rules, entries), told, "{entries:?}");
    }
    let login = rule(&rules, &[("path", "/login"), ("account", "a")]).expect("a rule");
    assert_eq!((login.cost, login.on_failure), (2, OnFailure::LocalShare));
    assert_eq!(rule(&rules, &[("path", "/api/")]).expect("a rule").enforcement, Enforcement::Shadow);
    assert_eq!(rule(&rules, &[("tenant", "t")]).expect("a rule").enforcement, Enforcement::Quota);
    assert!(rules.domain("mail").is_some());
}

#[test]
fn toml_says_the_same_as_yaml() {
    let toml = OURS_IN_TOML.trim_end().trim_end_matches("[[domains.descriptors]]");
    let (toml, yaml) = (read(toml, Syntax::Toml).expect("a rule file"), yaml(OURS));
    for entries in [
        [("client_ip", "a")],
        [("path", "/api/x")],
        [("jobs", "")],
        [("free", "")],
        [("banned", "")],
        [("owed", "x")],
    ] {
        let told = rule(&toml, &entries);
        assert!(told.is_some());
        assert_eq!(told, rule(&yaml, &entries), "{entries:?}");
    }
    let tables = "domain = \"web\"\n[[descriptors]]\nkey = \"a\"\nlimit = \"5/hour\"\n\n[[descriptors.descriptors]]\nkey = \"b\"\n[descriptors.descriptors.limit]\nalgorithm = \"sliding_log\"\ncount = 7\nper = \"2d\"\n";
    let rules = read(tables, Syntax::Toml).expect("a rule file");
    assert_eq!(words(&rules, &[("a", "x")]), "5 per hour, burst 5");
    assert_eq!(words(&rules, &[("a", "x"), ("b", "y")]), "7 per 2 days");
    assert_eq!(Syntax::of(Path::new("/etc/limits.TOML")), Syntax::Toml);
    assert_eq!(Syntax::of(Path::new("limits.yml")), Syntax::Yaml);
}

#[test]
fn mistakes_are_told_with_their_line() {
    let head = "domain: web\ndescriptors:\n";
    for (body, line, told) in [
        ("  - key: a\n    limits: 5/hour\n", 4, "a descriptor has no field limits: it may have key, value,"),
        ("  - key: a\n    limit: 5/fortnight\n", 4, "limit cannot be \"5/fortnight\": use unlimited,"),
        ("  - key: a\n    limit: 5/hour burst 0\n", 4, "a burst of 0 admits nothing"),
        ("  - key: a\n    limit: {count: 0, per: hour}\n", 4, "a limit of 0 admits nothing"),
        ("  - key: a\n    limit: {count: -1, per: hour}\n", 4, "count has to be a whole number"),
        (
            "  - key: a\n    limit: {count: 18446744073709551616, per: hour}\n",
            4,
            "count has to be a whole number",
        ),
        ("  - key: a\n    limit: {count: 5}\n", 4, "a limit has no per: name one"),
        ("  - key: a\n    limit:\n      count: 5\n      per: 0s\n", 5, "a period of 0 is no limit"),
        ("  - key: a\n    limit: {count: 5, per: 99999999999999999999w}\n", 4, "per cannot be"),
        ("  - key: a\n    limit: {count: 5, per: 18446744073709551615w}\n", 4, "per cannot be"),
        (
            "  - key: a\n    limit: {algorithm: leaky, count: 5, per: day}\n",
            4,
            "algorithm cannot be \"leaky\"",
        ),
        (
            "  - key: a\n    limit: {algorithm: sliding_log, count: 65, per: day}\n",
            4,
            "a log of 65 admissions",
        ),
        (
            "  - key: a\n    limit: {algorithm: sliding_log, count: 5, per: day, burst: 3}\n",
            4,
            "a limit has no field burst",
        ),
        ("  - key: a\n    limit: {algorithm: calendar, count: 5, per: hour}\n", 4, "per cannot be \"hour\""),
        (
            "  - key: a\n    limit: {algorithm: calendar, count: 5, per: day, zone: Mars/Base}\n",
            4,
            "there is no time zone",
        ),
        (
            "  - key: a\n    limit: 5/hour\n    rate_limit: {unit: day}\n",
            5,
            "limit and rate_limit do not go together",
        ),
        ("  - key: a\n    limit: 5/hour\n    cost: 0\n", 3, "costs 0 cells"),
        ("  - key: a\n    limit: 5/hour\n    on_failure: maybe\n", 5, "on_failure cannot be \"maybe\""),
        ("  - key: a\n    shadow_mode: maybe\n", 4, "shadow_mode has to be true or false"),
        ("  - key: a\n  - key: b\n  - key: a\n", 5, "there already, in line 3"),
        ("  - key: a\n    key: b\n", 4, "key is there already, in line 3"),
        ("  - key: a\n    value: [1]\n", 4, "value has to be text"),
        ("  - value: a\n", 3, "a descriptor has no key"),
        ("  - key: a*\n", 3, "a * is a wildcard in a value"),
        (
            "  - key: a\n    value: b\n    share_threshold: true\n",
            3,
            "share_threshold needs a value with a *",
        ),
        ("  - a\n", 3, "a descriptor has to be a map"),
        ("  - key: a\n    value: b: c\n", 4, "this cannot be read"),
        ("  - !secret {key: a}\n", 3, "a tag is not understood"),
        ("  - key: a\n---\ndomain: b\n", 4, "a second document"),
        ("  - &a {key: b, descriptors: [*a]}\n", 3, "an alias"),
    ] {
        let error = read(&format!("{head}{body}"), Syntax::Yaml).expect_err(body);
        assert_eq!(error.line, line, "{error}\n{body}");
        assert!(
            error.to_string().starts_with(&format!("rules:{line}: ")) && error.to_string().contains(told),
            "{error}\n{body}"
        );
    }
    for (text, line, told) in [
        ("domain = \"web\"\n[[descriptors]]\nkey = \"a\"\nlimit = 5\n", 4, "limit cannot be"),
        ("domain = \"web\"\n[[descriptors]]\nkey = \"a\"\nkey = \"b\"\n", 4, "this cannot be read"),
        (
            "domain = \"web\"\n\n[[descriptors]]\nkey = \"a\"\n[descriptors.limit]\ncount = 0x10\nper = \"day\"\n",
            6,
            "not decimal",
        ),
        ("domain = \"web\"\n[[descriptors]]\nkey = \"a\"\nlimits = 5\n", 4, "no field limits"),
        ("domain = \n", 1, "this cannot be read"),
    ] {
        let error = read(text, Syntax::Toml).expect_err(text);
        assert_eq!(error.line, line, "{error}\n{text}");
        assert!(error.to_string().contains(told), "{error}\n{text}");
    }
}

#[test]
fn a_domain_is_in_one_file() {
    let one = RuleFile { name: "one.yaml", text: "domain: web", syntax: Syntax::Yaml };
    let two = RuleFile { name: "two.toml", text: "\ndomain = \"web\"", syntax: Syntax::Toml };
    let error = read_rules(&[one, two], EPOCH).expect_err("twice");
    assert_eq!(error.to_string(), "two.toml:2: the domain web is there already, in one.yaml:1: merge them");
    let other = RuleFile { name: "two.yaml", text: "domain: mail", syntax: Syntax::Yaml };
    assert_eq!(read_rules(&[one, other], EPOCH).expect("two domains").domains().count(), 2);
}

#[test]
fn files_beyond_the_bounds_are_refused() {
    let refused = |text: &str, syntax| read(text, syntax).expect_err("it was taken").problem;
    let large = format!("domain: web # {}", "x".repeat(FILE_BYTES_MAX));
    assert_eq!(refused(&large, Syntax::Yaml), Problem::TooLarge { bytes: large.len() });
    let largest = format!("domain: web # {}", "x".repeat(FILE_BYTES_MAX - 14));
    assert_eq!(largest.len(), FILE_BYTES_MAX);
    assert!(read(&largest, Syntax::Yaml).is_ok());
    let nested = format!("domain: web\nmetadata: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(refused(&nested, Syntax::Yaml), Problem::TooDeep | Problem::Syntax { .. }));
    let block = (0..1_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>();
    assert_eq!(refused(&block, Syntax::Yaml), Problem::TooDeep);
    let nested = format!("domain = \"web\"\nx = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(refused(&nested, Syntax::Toml), Problem::TooDeep | Problem::Syntax { .. }));
    let dotted = format!("{}a = 1", "a.".repeat(100_000));
    assert!(matches!(refused(&dotted, Syntax::Toml), Problem::TooDeep | Problem::Syntax { .. }));
    let deep = (0..=DEPTH_MAX).map(|depth| format!("{0}descriptors:\n{0}- key: a\n", "  ".repeat(depth)));
    let deep = format!("domain: web\n{}", deep.collect::<String>());
    assert!(matches!(refused(&deep, Syntax::Yaml), Problem::Rules(_)));
    let long = format!("domain: web\ndescriptors: [{{key: {}}}]", "k".repeat(1_025));
    assert!(matches!(refused(&long, Syntax::Yaml), Problem::TextTooLong { bytes: 1_025, .. }));
}

#[test]
fn aliases_repeat_values_but_not_without_bound() {
    let rules = yaml(
        "domain: web\ndescriptors:\n  - key: a\n    limit: &slow {count: 5, per: hour}\n  - key: b\n    limit: *slow\n",
    );
    assert_eq!(words(&rules, &[("b", "x")]), "5 per hour, burst 5");
    let mut bomb = "domain: web\nmetadata:\n  - &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..20 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("  - &a{level} [{before}]\n"));
    }
    assert_eq!(read(&bomb, Syntax::Yaml).expect_err("a bomb").problem, Problem::TooManyValues);
    let text = format!("domain: web\nmetadata:\n  - &long {}\n", "x".repeat(1 << 20));
    let bomb = format!("{text}{}", "  - *long\n".repeat(100_000));
    assert_eq!(read(&bomb, Syntax::Yaml).expect_err("a bomb").problem, Problem::TooManyValues);
}

#[test]
fn fixed_windows_begin_with_those_of_the_wall_clock() {
    let rules = yaml(
        "domain: web\ndescriptors:\n  - {key: a, limit: {algorithm: fixed_window, count: 2, per: minute}}\n",
    );
    let limit = rule(&rules, &[("a", "x")]).expect("a rule").limit;
    let limiter = Limiter::<u64>::new(limit, TableSize::for_keys(10), HashSecret([1; 16])).expect("memory");
    let (at_30, at_59, at_60) = (Nanos(0), Nanos(29_999_999_999), Nanos(30_000_000_000));
    assert_eq!(
        [at_30, at_59, at_59, at_60].map(|now| limiter.check(&1, now).is_allowed()),
        [true, true, false, true]
    );
    assert_eq!(limiter.check_cost(&2, 2, at_30).reset_after(), Duration::from_secs(30));
}

#[test]
fn calendar_units_begin_at_midnight_where_people_are() {
    let start = |unit: &str, zone: &str, ordinal: usize| {
        let rules = yaml(&format!(
            "domain: web\ndescriptors: [{{key: a, limit: {{algorithm: calendar, count: 1, per: {unit}, zone: {zone}}}}}]"
        ));
        let limit = rule(&rules, &[("a", "x")]).expect("a rule").limit;
        let Limit::Calendar(calendar) = &limit else { panic!("a calendar quota") };
        assert!(matches!(
            calendar.boundaries().unit(),
            CalendarUnit::Day | CalendarUnit::Month | CalendarUnit::Week
        ));
        let limiter =
            Limiter::<u64>::new(limit, TableSize::for_keys(10), HashSecret([1; 16])).expect("memory");
        let mut now = Nanos(0);
        for _ in 0..ordinal {
            assert!(limiter.check(&1, now).is_allowed());
            now = now.after(limiter.peek(&1, 0, now).reset_after());
        }
        EPOCH.0.as_secs() + now.0 / 1_000_000_000
    };
    assert_eq!(start("day", "UTC", 1), 1_795_392_000, "2026-11-23 00:00 UTC");
    assert_eq!(start("day", "Europe/Berlin", 1), 1_795_388_400, "an hour earlier");
    assert_eq!(start("week", "UTC", 1), 1_795_392_000, "the 22nd is a Sunday");
    assert_eq!(start("month", "UTC", 1), 1_796_083_200, "2026-12-01");
    assert_eq!(start("month", "UTC", 2) - start("month", "UTC", 1), 31 * 86_400);
    // On 2027-03-28 clocks go forward in Berlin: that day, the 127th boundary begins it, has 23 hours.
    assert_eq!(start("day", "Europe/Berlin", 127) - start("day", "Europe/Berlin", 126), 23 * 3_600);
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in ".{0,200}", yaml_like in "[ \\-:a-z\\[\\]{}&*!\"'\n#|>]{0,120}", which in 0..3) {
        let syntax = if which == 0 { Syntax::Toml } else { Syntax::Yaml };
        let text = if which == 2 { yaml_like } else { text };
        let _ = read(&text, syntax);
    }
}

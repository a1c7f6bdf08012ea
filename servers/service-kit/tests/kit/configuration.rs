use std::path::PathBuf;
use std::time::Duration;

use service_kit::configuration::{
    Alias, Kind, Resolved, Resolver, Setting, Source, TimeUnit, flags_of, given_flags, reference, template,
};
use service_kit::service_settings::{self, SERVICE_SETTINGS};

static SETTINGS: &[Setting] = &[
    Setting::new("listen", Kind::Address, "Where to listen.")
        .or("127.0.0.1:50051")
        .also(&[Alias::new("INFERADB__LEDGER__LISTEN_ADDR")]),
    Setting::new("timeout", Kind::Duration { bare: TimeUnit::Seconds }, "Time for a request.")
        .or("30s")
        .also(&[
            Alias::counted_in("REQUESTS_TIMEOUT_MS", TimeUnit::Milliseconds),
            Alias::new("OTHER_TIMEOUT"),
        ]),
    Setting::new("bootstrap", Kind::Count { min: 0, max: 9 }, "Expected nodes.").or("1"),
    Setting::new("cache", Kind::Bytes, "Size of the cache.").or("64MiB"),
    Setting::new("data", Kind::Path, "Where data is kept."),
    Setting::new("join", Kind::List, "Peers to join."),
    Setting::new("name", Kind::Text, "The node's name."),
    Setting::new("verbose", Kind::Switch, "Say more.").or("false"),
    Setting::new("mode", Kind::Choice(&["fast", "safe"]), "How to work.").or("safe"),
    Setting::new("key", Kind::Secret, "The key.").also(&[Alias::new("KEY_ENCRYPTION_SECRET")]),
];

const NO_FLAGS: [(&str, &str); 0] = [];

fn resolve(
    flags: &[(&str, &str)],
    environment: &[(&str, &str)],
    toml: Option<&str>,
) -> Result<Resolved, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("strongroom.toml");
    let file = toml.map(|text| {
        std::fs::write(&path, text).expect("a file");
        &path
    });
    Resolver::new("ledger", SETTINGS)
        .flags(flags.iter().copied())
        .environment(environment.iter().copied())
        .file(file)
        .resolve()
        .map_err(|errors| errors.to_string())
}

#[test]
fn flags_win_over_variables_over_aliases_over_the_file_over_defaults() {
    let flags = [("listen", "127.0.0.1:1")];
    let environment =
        [("STRONGROOM__LEDGER__LISTEN", "127.0.0.1:2"), ("INFERADB__LEDGER__LISTEN_ADDR", "127.0.0.1:3")];
    let file = Some("[ledger]\nlisten = \"127.0.0.1:4\"\n");
    let port = |flags: &[_], environment: &[_], file| {
        resolve(flags, environment, file).expect("resolves").address("listen").expect("an address").port()
    };
    assert_eq!(port(&flags, &environment, file), 1);
    assert_eq!(port(&[], &environment, file), 2);
    assert_eq!(port(&[], &environment[1..], file), 3);
    assert_eq!(port(&[], &[], file), 4);
    assert_eq!(port(&[], &[], None), 50_051);
}

#[test]
fn every_value_tells_its_source() {
    let resolved = resolve(
        &[("timeout", "5s")],
        &[("REQUESTS_TIMEOUT_MS", "1"), ("STRONGROOM__LEDGER__BOOTSTRAP", "3")],
        Some("[ledger]\ncache = 4096\n"),
    )
    .expect("resolves");
    let source = |key| resolved.source(key).map(Source::to_string);
    assert_eq!(source("timeout").as_deref(), Some("flag --timeout"));
    assert_eq!(source("bootstrap").as_deref(), Some("environment STRONGROOM__LEDGER__BOOTSTRAP"));
    assert!(
        source("cache")
            .is_some_and(|source| source.starts_with("file ") && source.ends_with("strongroom.toml"))
    );
    assert_eq!(source("mode").as_deref(), Some("default"));
    assert_eq!(source("data"), None);
    assert_eq!(resolved.bytes("cache").ok(), Some(4_096));
}

#[test]
fn an_alias_counts_in_its_own_unit_and_the_first_alias_wins() {
    let environment = [("OTHER_TIMEOUT", "9"), ("REQUESTS_TIMEOUT_MS", "1500")];
    let resolved = resolve(&[], &environment, None).expect("resolves");
    assert_eq!(resolved.duration("timeout").ok(), Some(Duration::from_millis(1_500)));
    let resolved = resolve(&[], &environment[..1], None).expect("resolves");
    assert_eq!(resolved.duration("timeout").ok(), Some(Duration::from_secs(9)));
}

#[test]
fn an_unknown_key_is_named_with_its_source() {
    let refused =
        |flags: &[_], environment: &[_], file| resolve(flags, environment, file).expect_err("unknown");
    let error = refused(&[("lisen", "x")], &[], None);
    assert_eq!(error, "unknown key \"--lisen\" in the command line; did you mean \"--listen\"?");
    let error = refused(&[], &[("STRONGROOM__LEDGER__TIMEOT", "1")], None);
    assert!(error.contains("\"STRONGROOM__LEDGER__TIMEOT\" in the environment"), "{error}");
    assert!(error.contains("did you mean \"STRONGROOM__LEDGER__TIMEOUT\""), "{error}");
    let error = refused(&[], &[], Some("[ledger]\nbootstap = 1\n"));
    assert!(
        error.contains("\"ledger.bootstap\" in /") && error.contains("did you mean \"bootstrap\""),
        "{error}"
    );
    let error = refused(&[], &[], Some("[leger]\nbootstrap = 1\n"));
    assert!(error.contains("\"leger\" in /"), "{error}");
    let error = refused(&[], &[("STRONGROOM__LEGER__TIMEOUT", "1")], None);
    assert!(error.contains("STRONGROOM__LEGER__TIMEOUT"), "{error}");
    // A plain key has no file variant.
    let error = refused(&[], &[("STRONGROOM__LEDGER__NAME_FILE", "/x")], None);
    assert!(error.contains("STRONGROOM__LEDGER__NAME_FILE"), "{error}");
}

#[test]
fn other_programs_and_other_servers_are_left_alone() {
    let environment =
        [("PATH", "/bin"), ("STRONGROOM__AUTH__ANYTHING", "x"), ("STRONGROOM_LEDGER_URL", "http://x")];
    assert!(resolve(&[], &environment, Some("[auth]\nanything = 1\n[ledger]\n")).is_ok());
}

#[test]
fn a_text_of_digits_stays_as_it_was_written() {
    let resolved = resolve(&[], &[("STRONGROOM__LEDGER__NAME", "0123")], None).expect("resolves");
    assert_eq!(resolved.text("name").ok(), Some("0123"));
    let resolved = resolve(&[], &[], Some("[ledger]\nname = \"0123\"\n")).expect("resolves");
    assert_eq!(resolved.text("name").ok(), Some("0123"));
    // A bare number in the file has lost its form already: it is refused for a text.
    let error = resolve(&[], &[], Some("[ledger]\nname = 123\n")).expect_err("not a text");
    assert!(error.contains("name from file") && error.contains("expected a text"), "{error}");
}

#[test]
fn a_bad_value_is_an_error_that_names_key_source_and_what_is_expected() {
    for (key, value, expected) in [
        ("listen", "localhost", "an IP address with a port"),
        ("listen", "127.0.0.1", "an IP address with a port"),
        ("timeout", "5 weeks", "a duration"),
        ("timeout", "-1s", "a duration"),
        ("timeout", "", "a duration"),
        ("timeout", "18446744073709551615d", "a duration"),
        ("bootstrap", "10", "a whole number from 0 to 9"),
        ("bootstrap", "+1", "a whole number from 0 to 9"),
        ("cache", "4 MB", "a size"),
        ("data", "", "a path"),
        ("verbose", "yes", "true or false"),
        ("mode", "Fast", "one of fast, safe"),
        ("join", "a,,b", "texts separated by commas"),
        ("name", "", "a text that is not empty"),
    ] {
        let variable = format!("STRONGROOM__LEDGER__{}", key.to_uppercase());
        let error = resolve(&[], &[(&variable, value)], None).expect_err(value);
        assert!(error.starts_with(&format!("{key} from environment {variable}: ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let error =
        resolve(&[("nope", "1")], &[("STRONGROOM__LEDGER__CACHE", "x")], Some("[ledger]\nmode = \"x\"\n"));
    let error = error.expect_err("three problems");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn kinds_are_read_in_every_notation() {
    let toml =
        "[ledger]\ntimeout = 7\nbootstrap = 3\njoin = [\"a:1\", \"b:2\"]\nverbose = true\ndata = \"/d\"\n";
    let resolved = resolve(&[], &[], Some(toml)).expect("resolves");
    assert_eq!(resolved.duration("timeout").ok(), Some(Duration::from_secs(7)));
    assert_eq!(resolved.count("bootstrap").ok(), Some(3));
    assert_eq!(resolved.list("join").ok(), Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
    assert_eq!(resolved.switch("verbose").ok(), Some(true));
    assert_eq!(resolved.path("data").ok(), Some(PathBuf::from("/d")));
    let units =
        [("250ms", 250), ("2s", 2_000), ("3m", 180_000), ("1h", 3_600_000), ("1d", 86_400_000), ("4", 4_000)];
    for (text, milliseconds) in units {
        let resolved = resolve(&[("timeout", text)], &[], None).expect("resolves");
        assert_eq!(resolved.duration("timeout").ok(), Some(Duration::from_millis(milliseconds)), "{text}");
    }
    for (text, bytes) in [("12", 12), ("12B", 12), ("2KiB", 2_048), ("4 MiB", 4 << 20), ("1GiB", 1 << 30)] {
        assert_eq!(
            resolve(&[("cache", text)], &[], None).expect("resolves").bytes("cache").ok(),
            Some(bytes),
            "{text}"
        );
    }
    let resolved = resolve(&[("join", "a:1, b:2")], &[], None).expect("resolves");
    assert_eq!(resolved.list("join").ok(), Some(vec!["a:1".to_owned(), "b:2".to_owned()]));
}

#[test]
fn a_missing_value_says_how_to_give_it() {
    let error = resolve(&[], &[], None).expect("resolves").path("data").expect_err("unset").to_string();
    for way in ["--data", "STRONGROOM__LEDGER__DATA", "\"data\""] {
        assert!(error.contains(way), "{error}");
    }
    let resolved = resolve(&[], &[], None).expect("resolves");
    assert_eq!(resolved.optional_path("data").ok(), Some(None));
    assert!(resolved.count("data").is_err(), "asked for as another kind");
    assert!(resolved.text("nothing").is_err(), "not declared");
}

#[test]
fn a_secret_comes_from_a_file_in_every_layer() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    std::fs::write(&path, "0123 sesame\n").expect("a file");
    let name = path.to_str().expect("UTF-8");
    let toml = format!("[ledger]\nkey_file = \"{name}\"\n");
    for (flags, environment, toml) in [
        (vec![("key-file", name)], vec![], None),
        (vec![], vec![("STRONGROOM__LEDGER__KEY_FILE", name)], None),
        (vec![], vec![("KEY_ENCRYPTION_SECRET_FILE", name)], None),
        (vec![], vec![], Some(toml.as_str())),
    ] {
        let resolved = resolve(&flags, &environment, toml).expect("resolves");
        assert_eq!(resolved.secret("key").expect("set").expose(), "0123 sesame");
        assert!(resolved.source("key").is_some_and(|source| source.to_string().contains(name)));
    }
    let resolved = resolve(&[], &[("KEY_ENCRYPTION_SECRET", "direct")], None).expect("resolves");
    assert_eq!(resolved.secret("key").expect("set").expose(), "direct");
}

#[test]
fn a_secret_file_that_is_missing_empty_or_given_besides_a_value_is_refused() {
    let error = resolve(&[("key-file", "/nowhere/key")], &[], None).expect_err("missing");
    assert!(error.contains("/nowhere/key") && error.contains("--key-file"), "{error}");
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let name = empty.path().to_str().expect("UTF-8");
    let error = resolve(&[("key-file", name)], &[], None).expect_err("empty");
    assert!(error.contains("expected a secret that is not empty"), "{error}");
    let both = [("STRONGROOM__LEDGER__KEY", "a"), ("STRONGROOM__LEDGER__KEY_FILE", name)];
    let error = resolve(&[], &both, None).expect_err("given twice");
    assert!(error.contains("key is given twice in the environment"), "{error}");
}

#[test]
fn no_secret_shows_in_rows_debug_or_errors() {
    const CANARY: &str = "canary-3f9a";
    let environment = [("STRONGROOM__LEDGER__KEY", CANARY)];
    let resolved = resolve(&[], &environment, None).expect("resolves");
    assert!(!format!("{resolved:?}").contains(CANARY));
    let row = resolved.rows().into_iter().find(|row| row.key == "key").expect("a row");
    assert_eq!(row.value.as_deref(), Some("(redacted)"));
    assert_eq!(row.source, "environment STRONGROOM__LEDGER__KEY");
    assert!(!format!("{:?}", resolved.secret("key")).contains(CANARY));
    let resolver = Resolver::new("ledger", SETTINGS).flags(NO_FLAGS).environment(environment);
    assert!(!format!("{resolver:?}").contains(CANARY));
    for toml in [format!("[ledger]\nkey = [\"{CANARY}\"]\n"), format!("[ledger]\nkey = \"{CANARY}\n")] {
        let error = resolve(&[], &[], Some(&toml)).expect_err("not a text, or not TOML");
        assert!(!error.contains(CANARY), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_named_with_the_line() {
    let missing = Resolver::new("ledger", SETTINGS).file(Some("/nowhere/strongroom.toml")).resolve();
    let error = missing.expect_err("missing").to_string();
    assert!(error.contains("/nowhere/strongroom.toml"), "{error}");
    let error = resolve(&[], &[], Some("[ledger]\nmode = \"safe\"\nlisten = ???\n")).expect_err("not TOML");
    assert!(error.contains("strongroom.toml, line 3: not valid TOML"), "{error}");
}

#[test]
fn the_table_makes_the_flags_of_a_command() {
    let command = clap::Command::new("serve").args(flags_of("ledger", SETTINGS));
    let matches = command.clone().get_matches_from(["serve", "--timeout", "5s", "--verbose", "--mode=fast"]);
    let flags = given_flags(&matches, SETTINGS);
    let resolved = Resolver::new("ledger", SETTINGS).flags(flags).resolve().expect("resolves");
    assert_eq!(resolved.duration("timeout").ok(), Some(Duration::from_secs(5)));
    assert_eq!(resolved.switch("verbose").ok(), Some(true));
    assert_eq!(resolved.text("mode").ok(), Some("fast"));
    assert_eq!(resolved.source("listen"), Some(&Source::Default), "not given, so not a flag");
    assert!(command.clone().try_get_matches_from(["serve", "--nope"]).is_err());
    assert!(command.try_get_matches_from(["serve", "--key", "x"]).is_err(), "a secret's value is no flag");
}

#[test]
fn the_flag_of_a_list_may_repeat_and_that_of_anything_else_may_not() {
    let command = clap::Command::new("serve").args(flags_of("ledger", SETTINGS));
    let matches = command.clone().get_matches_from(["serve", "--join", "a,b", "--join", "c"]);
    let resolved = Resolver::new("ledger", SETTINGS).flags(given_flags(&matches, SETTINGS)).resolve();
    assert_eq!(
        resolved.expect("resolves").list("join").ok(),
        Some(["a", "b", "c"].map(str::to_owned).to_vec())
    );
    assert!(command.try_get_matches_from(["serve", "--name", "a", "--name", "b"]).is_err());
}

#[test]
fn reference_and_template_list_every_setting_and_the_template_is_valid() {
    let reference = reference("ledger", SETTINGS);
    let template = template("ledger", SETTINGS);
    for setting in SETTINGS {
        assert!(reference.contains(&format!("`--{}`", setting.flag())), "{}", setting.key);
        assert!(reference.contains(&setting.variable("ledger")), "{}", setting.key);
        assert!(template.contains(&format!("# {}", setting.key)), "{}", setting.key);
    }
    assert!(reference.contains("INFERADB__LEDGER__LISTEN_ADDR"));
    assert!(resolve(&[], &[], Some(&template)).is_ok());
    let uncommented: String = template
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = \"")).unwrap_or(line))
        .filter(|line| !line.ends_with("\"\""))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(resolve(&[], &[], Some(&uncommented)).is_ok(), "{uncommented}");
}

#[test]
#[should_panic(expected = "share the name mode")]
fn a_table_with_one_key_twice_is_a_defect() {
    let again: &[Setting] = const { &[Setting::new("mode", Kind::Text, "Again.")] };
    let _ = Resolver::new("ledger", SETTINGS.iter().chain(again));
}

#[test]
fn the_settings_of_every_server_become_what_they_name() {
    let address = "0.0.0.0:1".parse().expect("an address");
    let resolved = Resolver::new("ledger", SERVICE_SETTINGS).resolve().expect("defaults");
    assert_eq!(service_settings::log_settings(&resolved).expect("settings"), Default::default());
    assert_eq!(service_settings::listener_limits(&resolved).expect("limits"), Default::default());
    assert_eq!(service_settings::tls_files(&resolved).expect("files"), None);
    let drain = service_settings::drain_settings(&resolved, address).expect("settings");
    assert_eq!((drain.delay, drain.total), (Duration::from_secs(5), Duration::from_secs(30)));

    let flags = [("connections", "7"), ("drain-delay", "1s"), ("log-format", "text"), ("tls-cert", "/c")];
    let resolved = Resolver::new("ledger", SERVICE_SETTINGS).flags(flags).resolve().expect("flags");
    assert_eq!(service_settings::listener_limits(&resolved).expect("limits").connections_max, 7);
    assert_eq!(
        service_settings::drain_settings(&resolved, address).expect("settings").delay,
        Duration::from_secs(1)
    );
    let error = service_settings::tls_files(&resolved).expect_err("half of a pair");
    assert_eq!(error.to_string(), "--tls-cert needs --tls-key too");
}

//! Every setting does something, and what does nothing is refused.

use std::ffi::OsString;

use ledger_server::peer_settings::{BootstrapSetting, PeerTrust};
use ledger_server::settings::{LedgerSettings, SettingsError, resolve, table};

type Layer<'a> = &'a [(&'a str, &'a str)];

fn resolved(flags: Layer<'_>, environment: Layer<'_>) -> Result<LedgerSettings, SettingsError> {
    let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    resolve(flags, environment, None).map(|(_, settings)| settings)
}

/// A value other than the default for each setting, with other flags that it needs.
fn another_value(key: &str) -> (&'static str, Layer<'static>) {
    const EXPOSED: Layer<'_> = &[("listen", "0.0.0.0:50051")];
    match key {
        "listen" => ("127.0.0.1:1", &[]),
        "data" => ("/var/lib/ledger", &[]),
        "bootstrap" | "voters_max" => ("3", &[]),
        "bootstrap_timeout" | "poll" | "join_ttl" | "silent_after" => ("77s", &[]),
        "join" => ("10.0.0.1:7,peers.cache", &[]),
        "discovery" => ("ledger.example.com:7", &[]),
        "discovery_resolver" | "peer_listen" => ("127.0.0.1:7", &[]),
        "advertise" => ("node-a.example.com:7", &[]),
        "name" => ("node-a", &[]),
        "peer_tls_cert" => ("cert.pem", &[("peer-tls-key", "key.pem"), ("peer-ca", "ca.pem")]),
        "peer_tls_key" => ("key.pem", &[("peer-tls-cert", "cert.pem"), ("peer-ca", "ca.pem")]),
        "peer_ca" => ("ca.pem", &[("peer-tls-cert", "cert.pem"), ("peer-tls-key", "key.pem")]),
        "peer_insecure" | "force_new_cluster" | "rejoin" => ("true", &[]),
        "metrics" => ("127.0.0.1:1", &[]),
        "insecure_metrics" => ("true", &[("metrics", "0.0.0.0:9090")]),
        "batch_size" | "concurrent" | "queue_transactions" | "streams" | "snapshot_keep" => ("77", &[]),
        "batch_delay" | "timeout" | "gc_interval" | "flush_interval" | "snapshot_every" | "lease_reads" => {
            ("7ms", &[])
        }
        "queue_bytes" | "flush_bytes" | "state_cache" => ("33MiB", &[]),
        "overlay_bytes" => ("99MiB", &[]),
        "log_level" => ("debug", &[]),
        "log_format" => ("text", &[]),
        "log_to" => ("stdout", &[]),
        "tls_cert" => ("cert.pem", &[("tls-key", "key.pem")]),
        "tls_key" => ("key.pem", &[("tls-cert", "cert.pem")]),
        "client_ca" => ("ca.pem", &[("tls-cert", "cert.pem"), ("tls-key", "key.pem")]),
        "insecure_no_tls" => ("true", EXPOSED),
        "insecure_no_auth" => ("true", &[]),
        "connections" | "connections_per_address" => ("9", &[]),
        "header_bytes" => ("9KiB", &[]),
        "drain_delay" | "drain_timeout" => ("9s", &[]),
        other => panic!("give {other} a value here"),
    }
}

fn outcome(settings: Result<LedgerSettings, SettingsError>) -> String {
    settings.map_or_else(|error| error.to_string(), |settings| format!("{settings:?}"))
}

#[test]
fn every_setting_changes_the_outcome_as_flag_and_as_variable_and_under_its_foreign_names() {
    for setting in table() {
        let (value, others) = another_value(setting.key);
        let without = outcome(resolved(others, &[]));
        let flag = setting.flag();
        let flags: Vec<_> = others.iter().copied().chain([(flag.as_str(), value)]).collect();
        let with_flag = outcome(resolved(&flags, &[]));
        assert_ne!(with_flag, without, "--{flag}");
        let variable = setting.variable("ledger");
        assert_eq!(outcome(resolved(others, &[(&variable, value)])), with_flag, "{variable}");
        for alias in setting.aliases {
            assert_eq!(
                outcome(resolved(others, &[(alias.variable, value)])),
                with_flag,
                "{}",
                alias.variable
            );
        }
    }
}

#[test]
fn foreign_variables_count_in_their_own_units() {
    let settings = resolved(
        &[],
        &[
            ("INFERADB__LEDGER__REQUESTS_TIMEOUT_SECS", "7"),
            ("INFERADB__LEDGER__BATCH_MAX_DELAY_MS", "10"),
            ("INFERADB__LEDGER__BATCH_MAX_SIZE", "100"),
        ],
    )
    .unwrap();
    assert_eq!(settings.admission.request_timeout.as_millis(), 7_000);
    assert_eq!(settings.engine.batch_delay.as_millis(), 10);
    assert_eq!(settings.engine.batch_size, 100);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let settings = resolved(&[], &[]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.metrics.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.data, None);
    assert_eq!((settings.engine.batch_size, settings.engine.batch_delay.as_millis()), (4_096, 0));
    assert_eq!((settings.admission.requests_max, settings.admission.request_timeout.as_secs()), (1_024, 30));
    assert!(settings.tls.is_none() && settings.drain.delay.is_zero());
    let engine = ledger_node::Options::default();
    assert_eq!(format!("{:?}", settings.engine), format!("{engine:?}"));
}

#[test]
fn a_lone_server_has_no_peers_and_anything_of_a_cluster_gives_it_some() {
    let alone = resolved(&[], &[]).unwrap().peers;
    assert!(
        !alone.are_wanted && alone.bootstrap == BootstrapSetting::Unset && alone.trust == PeerTrust::Unset
    );
    assert!(!resolved(&[("bootstrap", "1")], &[]).unwrap().peers.are_wanted);
    for (flag, value) in [
        ("bootstrap", "0"),
        ("bootstrap", "3"),
        ("join", "10.0.0.1:50052"),
        ("discovery", "ledger"),
        ("peer-listen", "127.0.0.1:0"),
        ("advertise", "a:1"),
        ("peer-insecure", "true"),
    ] {
        assert!(resolved(&[(flag, value)], &[]).unwrap().peers.are_wanted, "{flag}");
    }
    let listens = |listen: &str| resolved(&[("listen", listen)], &[]).unwrap().peers.listen.to_string();
    assert_eq!(listens("127.0.0.2:50051"), "127.0.0.2:50052");
    assert_eq!(listens("127.0.0.2:0"), "127.0.0.2:0");
}

#[test]
fn what_names_no_peers_is_refused_by_name() {
    for (flag, value, said) in [
        ("bootstrap", "8", "from 0 to 7"),
        ("voters-max", "0", "from 1 to 7"),
        ("poll", "1ms", "at least 10ms"),
        ("name", "Node_A", "lower-case"),
        ("advertise", "nowhere", "HOST:PORT"),
        ("discovery", "no name", "DNS name"),
        ("join", "one.cache,two.cache", "at most one file"),
        ("peer-tls-cert", "cert.pem", "--peer-ca"),
    ] {
        let message = outcome(resolved(&[(flag, value)], &[]));
        assert!(message.contains(said), "{flag} {value}: {message}");
    }
    let certificates =
        [("peer-tls-cert", "c"), ("peer-tls-key", "k"), ("peer-ca", "a"), ("peer-insecure", "true")];
    assert!(outcome(resolved(&certificates, &[])).contains("--peer-insecure alone"));
    let message = outcome(resolved(&[], &[("INFERADB__LEDGER__LISTEN", "127.0.0.1:1")]));
    assert!(message.contains("INFERADB__LEDGER__LISTEN"), "{message}");
}

#[test]
fn addresses_that_others_reach_need_protection_or_a_word() {
    let everywhere = ("listen", "0.0.0.0:50051");
    let message = outcome(resolved(&[everywhere], &[]));
    assert!(message.contains("0.0.0.0:50051") && message.contains("--insecure-no-tls"), "{message}");
    assert!(resolved(&[everywhere, ("insecure-no-tls", "true")], &[]).is_ok());
    assert!(resolved(&[everywhere, ("tls-cert", "c.pem"), ("tls-key", "k.pem")], &[]).is_ok());
    let message = outcome(resolved(&[everywhere, ("insecure-no-auth", "true")], &[]));
    assert!(message.contains("--insecure-no-tls"), "one word lifts one protection: {message}");
    let message = outcome(resolved(&[("metrics", "[::]:9090")], &[]));
    assert!(message.contains("--insecure-metrics"), "{message}");
    assert!(resolved(&[("metrics", "[::]:9090"), ("insecure-metrics", "true")], &[]).is_ok());
    let message = outcome(resolved(&[("tls-cert", "c.pem")], &[]));
    assert!(message.contains("--tls-key"), "{message}");
}

#[test]
fn settings_that_contradict_the_engine_are_refused() {
    for (flag, value) in
        [("gc-interval", "61s"), ("overlay-bytes", "1MiB"), ("queue-bytes", "1KiB"), ("batch-size", "0")]
    {
        assert!(resolved(&[(flag, value)], &[]).is_err(), "{flag} {value}");
    }
}

#[test]
fn times_that_leave_no_time_are_refused() {
    for (flag, value) in
        [("drain-timeout", "0s"), ("drain-timeout", "999ms"), ("timeout", "0s"), ("timeout", "0")]
    {
        let message = outcome(resolved(&[(flag, value)], &[]));
        let named = message.contains(&flag.replace('-', "_")) && message.contains(value);
        assert!(named && message.contains("expected"), "{flag} {value}: {message}");
    }
    let shortest = resolved(&[("drain-timeout", "1s"), ("timeout", "1ms")], &[]).unwrap();
    assert!(shortest.drain.callbacks < shortest.drain.total);
}

#[test]
fn a_log_level_that_is_none_is_a_mistake_of_the_configuration() {
    for filter in ["inof", "info,openraft=loud", "info,", "=debug"] {
        let message = outcome(resolved(&[("log-level", filter)], &[]));
        assert!(message.contains("log_level") && message.contains("expected a level"), "{filter}: {message}");
    }
    assert!(resolved(&[("log-level", "warn,ledger_server=trace")], &[]).is_ok());
}

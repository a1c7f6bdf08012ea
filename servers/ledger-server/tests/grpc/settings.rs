//! Every setting does something, and what does nothing is refused.

use std::ffi::OsString;

use ledger_server::settings::{ABSENT, LedgerSettings, SettingsError, resolve, table};

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
        "bootstrap" => ("3", &[]),
        "metrics" => ("127.0.0.1:1", &[]),
        "insecure_metrics" => ("true", &[("metrics", "0.0.0.0:9090")]),
        "batch_size" | "concurrent" | "queue_transactions" | "streams" | "snapshot_keep" => ("77", &[]),
        "batch_delay" | "timeout" | "gc_interval" | "flush_interval" | "snapshot_every" => ("7ms", &[]),
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
fn a_cluster_is_refused_not_ignored() {
    for nodes in ["0", "2", "3"] {
        let message = outcome(resolved(&[("bootstrap", nodes)], &[]));
        assert!(message.contains("only 1 works in this release") && message.contains(nodes), "{message}");
    }
    assert!(resolved(&[("bootstrap", "1")], &[]).is_ok());
    for absent in ABSENT {
        let message = outcome(resolved(&[(absent.flag, "x")], &[]));
        assert!(message.contains(&format!("--{}", absent.flag)), "{message}");
        let message = outcome(resolved(&[], &[(absent.variable, "x")]));
        assert!(message.contains(absent.variable) && message.contains("single nodes"), "{message}");
    }
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

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use service_kit::Secret;
use service_kit::disk::{DiskGuard, DiskState, DiskUse};
use service_kit::logs::{self, LogFormat, LogSettings};
use service_kit::metrics::MetricsHandle;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(filter: &str, format: LogFormat, log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let settings = LogSettings { filter: filter.to_owned(), format, ..LogSettings::default() };
    let layer = logs::layer_to(&settings, move || writer.clone()).expect("a filter");
    tracing::subscriber::with_default(tracing_subscriber::registry().with(vec![layer]), log);
    let bytes = lines.0.lock().expect("no panic").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn a_json_line_has_time_level_message_fields_and_span() {
    let text = logged("info", LogFormat::Json, || {
        let span = tracing::info_span!("request", request_id = "r-1");
        span.in_scope(|| tracing::warn!(answer = 42, "it \"happened\"\nagain"));
        tracing::debug!("below the level");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["message"], "it \"happened\"\nagain");
    assert_eq!(line["answer"], 42);
    assert_eq!(line["span"]["request_id"], "r-1");
    // RFC 3339, UTC.
    let time = line["timestamp"].as_str().expect("a time");
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z'), "{time}");
}

#[test]
fn text_lines_have_no_colours_and_the_filter_may_make_exceptions() {
    let text = logged("warn,chatty=debug", LogFormat::Text, || {
        tracing::info!("left out");
        tracing::debug!(target: "chatty", "kept");
    });
    assert!(text.contains("kept") && !text.contains("left out") && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_filter_with_a_slip_is_refused_instead_of_silencing() {
    for slip in ["inof", "", "info,openraft=wran", "info,", "=debug"] {
        let settings = LogSettings { filter: slip.to_owned(), ..LogSettings::default() };
        let error = logs::layer_to(&settings, io::sink).err().expect(slip).to_string();
        assert!(error.contains(&format!("\"{slip}\"")), "{error}");
    }
}

#[test]
fn a_secret_is_redacted_in_logs() {
    let secret = Secret::new("canary-77".to_owned());
    let text = logged("trace", LogFormat::Json, || tracing::info!(?secret, "with {secret:?}"));
    assert!(!text.contains("canary-77") && text.contains("redacted"), "{text}");
}

#[test]
fn the_metrics_page_has_gauges_of_process_build_disk_and_certificate() {
    let metrics = MetricsHandle::new().expect("a recorder");
    let directory = tempfile::tempdir().expect("a directory");
    metrics.watch_directory(directory.path());
    metrics.watch_certificate("listen", 1);
    metrics.watch_certificate("listen", 2_524_521_600);
    let page = metrics.render();
    let value = |name: &str| -> f64 {
        let line =
            page.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {page}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    };
    assert!(value("process_uptime_seconds") >= 0.0);
    assert!(value("process_resident_memory_bytes") > 1_000_000.0);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_start_time_seconds") > 1_700_000_000.0);
    assert!(value("strongroom_disk_available_bytes{directory=") > 0.0);
    assert!(value("strongroom_certificate_not_after_seconds{certificate=\"listen\"}") == 2_524_521_600.0);
    let build = service_kit::BUILD;
    let labels =
        format!("strongroom_build_info{{version=\"{}\",commit=\"{}\"}} 1", build.version, build.commit);
    assert!(page.contains(&labels), "{page}");
}

#[test]
fn histograms_have_buckets_by_their_unit() {
    let metrics = MetricsHandle::new().expect("a recorder");
    metrics::with_local_recorder(metrics.recorder(), || {
        metrics::histogram!("write_latency_seconds").record(0.003);
        metrics::histogram!("value_bytes").record(300.0);
        metrics::histogram!("batch_size").record(3.0);
    });
    let page = metrics.render();
    for line in [
        "write_latency_seconds_bucket{le=\"0.0025\"} 0",
        "write_latency_seconds_bucket{le=\"0.005\"} 1",
        "value_bytes_bucket{le=\"256\"} 0",
        "value_bytes_bucket{le=\"1024\"} 1",
        "batch_size_bucket{le=\"2\"} 0",
        "batch_size_bucket{le=\"4\"} 1",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("quantile="), "{page}");
}

#[test]
fn a_disk_warns_at_80_percent_and_is_read_only_at_95() {
    let at = |used_percent: u64| DiskUse {
        used_bytes: used_percent * 1_000,
        available_bytes: (100 - used_percent) * 1_000,
    };
    for (percent, state) in [
        (0, DiskState::Ample),
        (79, DiskState::Ample),
        (80, DiskState::Warning),
        (94, DiskState::Warning),
        (95, DiskState::ReadOnly),
        (100, DiskState::ReadOnly),
    ] {
        assert_eq!(at(percent).state(), state, "{percent} %");
    }
    let nearly = DiskUse { used_bytes: 94_001, available_bytes: 5_999 };
    assert_eq!(nearly.state(), DiskState::ReadOnly, "rounded up");
    assert_eq!(DiskUse { used_bytes: 0, available_bytes: 0 }.state(), DiskState::ReadOnly);
    assert_eq!(DiskUse { used_bytes: u64::MAX, available_bytes: u64::MAX }.used_percent(), 50);
    let mut guard = DiskGuard::new("/");
    assert_eq!(guard.enter(at(96)), DiskState::ReadOnly);
    assert_eq!(guard.enter(at(50)), DiskState::Ample);
}

#[test]
fn a_real_file_system_is_measured() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk_use = DiskUse::of(directory.path()).expect("measured");
    assert!(disk_use.used_bytes + disk_use.available_bytes > 0);
    let mut guard = DiskGuard::new(directory.path());
    assert_eq!(guard.observe().expect("measured"), guard.state());
    assert!(DiskUse::of(Path::new("/nowhere")).is_err());
}

#[test]
fn the_engine_is_silent_unless_it_is_named_and_no_exception_makes_a_log_louder() {
    let lines = |filter| {
        let text = logged(filter, LogFormat::Text, || {
            tracing::info!(target: "openraft", "step");
            tracing::warn!(target: "openraft", "trouble");
            tracing::info!(target: "ledger", "ours");
        });
        ["step", "trouble", "ours"].map(|word| text.contains(word))
    };
    assert_eq!(lines("info"), [false, false, true]);
    assert_eq!(lines("debug"), [false, false, true]);
    assert_eq!(lines("info,openraft=info"), [true, true, true]);
    assert_eq!(lines("warn,openraft=warn,ledger=info"), [false, true, true]);
    assert_eq!(lines("error"), [false, false, false]);
    assert_eq!(lines("off"), [false, false, false]);
    assert_eq!(lines("ledger=info"), [false, false, true]);
}

//! Metrics in Prometheus' text format.
//!
//! Code records through the `metrics` macros; label values must come from bounded sets. Gauges of the process are
//! measured when the page is rendered, so an idle server costs nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::BUILD;
use crate::disk::DiskUse;
use crate::series::SeriesFamily;
use crate::tls::CertificateEnd;

/// Buckets of every histogram named `…_seconds`: 50 µs, below any answer with an fsync, to 30 s, the request timeout.
pub const SECONDS_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];
/// Buckets of every histogram named `…_bytes`: 64 B to 16 MiB in powers of four.
pub const BYTES_BUCKETS: &[f64] =
    &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Buckets of every other histogram, which count things: 1 to 16,384 in powers of two.
pub const COUNT_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0, 16_384.0,
];

/// Samples wait in memory until the next upkeep; this bounds them when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The histogram buckets were refused.
    #[error("cannot set up histograms: {0}")]
    Buckets(#[from] BuildError),
    /// This process records elsewhere already.
    #[error("metrics are set up already in this process")]
    AlreadyInstalled,
}

/// The recorder and what is measured besides. Clones refer to the same metrics.
#[derive(Clone)]
pub struct MetricsHandle {
    recorder: Arc<PrometheusRecorder>,
    started: Instant,
    watched: Arc<Mutex<Watched>>,
}

#[derive(Default)]
struct Watched {
    directories: Vec<PathBuf>,
    certificates: Vec<(&'static str, CertificateEnd)>,
    series: Vec<SeriesSource>,
}

type SeriesSource = Arc<dyn Fn() -> Vec<SeriesFamily> + Send + Sync>;

impl MetricsHandle {
    /// A recorder that nothing records into yet: for tests, or for several servers apart in one process.
    ///
    /// # Errors
    /// Buckets refused by the exporter.
    pub fn new() -> Result<Self, MetricsError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(COUNT_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES_BUCKETS)?
            .build_recorder();
        let handle = Self { recorder: Arc::new(recorder), started: Instant::now(), watched: Arc::default() };
        metrics::with_local_recorder(&*handle.recorder, describe);
        Ok(handle)
    }

    /// A recorder for the whole process.
    ///
    /// # Errors
    /// A second call in one process.
    pub fn install() -> Result<Self, MetricsError> {
        let handle = Self::new()?;
        metrics::set_global_recorder(Arc::clone(&handle.recorder))
            .map_err(|_| MetricsError::AlreadyInstalled)?;
        Ok(handle)
    }

    /// The recorder, for `metrics::with_local_recorder`.
    pub fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    /// Reports use of the file system that holds `directory` from now on.
    pub fn watch_directory(&self, directory: impl Into<PathBuf>) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).directories.push(directory.into());
    }

    /// Reports when a certificate ends, in seconds since 1970, under a name such as `listen` or `peer`. Give the end of a
    /// followed certificate ([`Followed::certificate_end`](crate::tls::Followed::certificate_end)), and the report
    /// follows too.
    pub fn watch_certificate(&self, name: &'static str, end: impl Into<CertificateEnd>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.certificates.retain(|(known, _)| *known != name);
        watched.certificates.push((name, end.into()));
    }

    /// Asks for series from now on, each time the page is made: for labels that come and go. The recorder keeps what it was told
    /// of once for ever.
    pub fn ask_for_series(&self, source: impl Fn() -> Vec<SeriesFamily> + Send + Sync + 'static) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).series.push(Arc::new(source));
    }

    /// The page, with fresh gauges. It reads `/proc` and the watched file systems: call it where blocking is allowed.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.measure());
        let mut page = self.recorder.handle().render();
        let sources = self.watched.lock().unwrap_or_else(PoisonError::into_inner).series.clone();
        sources.iter().flat_map(|source| source()).for_each(|family| family.put_into(&mut page));
        page
    }

    /// Digests waiting samples for ever; run it as a task of its own.
    pub async fn upkeep(self) {
        let handle = self.recorder.handle();
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            handle.run_upkeep();
        }
    }

    fn measure(&self) {
        metrics::gauge!("strongroom_build_info", "version" => BUILD.version, "commit" => BUILD.commit)
            .set(1.0);
        metrics::gauge!("process_uptime_seconds").set(self.started.elapsed().as_secs_f64());
        if let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) {
            let started = now.saturating_sub(self.started.elapsed());
            metrics::gauge!("process_start_time_seconds").set(started.as_secs_f64());
        }
        if let Some(bytes) = resident_bytes() {
            metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            metrics::gauge!("process_open_fds").set(entries.count() as f64);
        }
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.directories.iter().for_each(|directory| measure_disk(directory));
        for (name, end) in &watched.certificates {
            let gauge = metrics::gauge!("strongroom_certificate_not_after_seconds", "certificate" => *name);
            gauge.set(end.not_after_s() as f64);
        }
    }
}

fn describe() {
    metrics::describe_gauge!("strongroom_build_info", "Version and commit of the running program; always 1.");
    metrics::describe_gauge!("process_uptime_seconds", "Seconds since the process set up its metrics.");
    metrics::describe_gauge!("process_start_time_seconds", "Start of the process, in seconds since 1970.");
    metrics::describe_gauge!("process_resident_memory_bytes", "Resident memory.");
    metrics::describe_gauge!("process_open_fds", "Open file descriptors.");
    metrics::describe_gauge!(
        "strongroom_disk_used_bytes",
        "Used bytes of the file system that holds the directory."
    );
    metrics::describe_gauge!(
        "strongroom_disk_available_bytes",
        "Bytes still available there to the process."
    );
    metrics::describe_gauge!(
        "strongroom_certificate_not_after_seconds",
        "End of validity, in seconds since 1970."
    );
    metrics::describe_counter!(
        "strongroom_certificate_reloads_total",
        "Certificate files that changed and were read anew (done) or not usable, so that the old ones stay (refused)."
    );
}

fn measure_disk(directory: &Path) {
    let Ok(disk_use) = DiskUse::of(directory) else { return };
    let name = directory.display().to_string();
    metrics::gauge!("strongroom_disk_used_bytes", "directory" => name.clone())
        .set(disk_use.used_bytes as f64);
    metrics::gauge!("strongroom_disk_available_bytes", "directory" => name)
        .set(disk_use.available_bytes as f64);
}

/// Second field of `/proc/self/statm`, in pages (proc(5)).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

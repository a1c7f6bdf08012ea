//! Certificates that are read again when their files change: no restart for a renewal.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::TlsError;

/// How often files are looked at: far below the time in which a renewal matters.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Files of which something for TLS is made.
pub trait CertificateFiles: Send + Sync + 'static {
    /// What is made of them.
    type Loaded: Send + Sync + 'static;

    /// The files.
    fn paths(&self) -> Vec<PathBuf>;

    /// Reads and checks them.
    ///
    /// # Errors
    /// Every [`TlsError`] that names a file.
    fn load(&self) -> Result<Self::Loaded, TlsError>;

    /// End of the validity of the certificate, in seconds since 1970.
    fn not_after_s(loaded: &Self::Loaded) -> u64;
}

/// Where a listener takes its configuration from, anew for each connection.
pub trait ServerConfigs: fmt::Debug + Send + Sync + 'static {
    /// The newest one.
    fn current(&self) -> Arc<ServerConfig>;
}

/// Always the same.
impl ServerConfigs for Arc<ServerConfig> {
    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(self)
    }
}

/// The end of a certificate's validity, in seconds since 1970, as it is now: for the gauge.
#[derive(Clone, Debug)]
pub struct CertificateEnd(Arc<AtomicU64>);

impl CertificateEnd {
    /// The end.
    pub fn not_after_s(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl From<u64> for CertificateEnd {
    fn from(not_after_s: u64) -> Self {
        Self(Arc::new(AtomicU64::new(not_after_s)))
    }
}

/// What was made of files, always the newest that was good. Clones follow together; the files are watched until the
/// last one is dropped.
pub struct Followed<T> {
    newest: watch::Receiver<Arc<T>>,
    end: CertificateEnd,
}

impl<T> Followed<T> {
    /// The newest. Another one is another [`Arc`].
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.newest.borrow())
    }

    /// The end of the certificate's validity, which follows too.
    pub fn certificate_end(&self) -> CertificateEnd {
        self.end.clone()
    }
}

impl<T> Clone for Followed<T> {
    fn clone(&self) -> Self {
        Self { newest: self.newest.clone(), end: self.end.clone() }
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("end", &self.end).finish_non_exhaustive()
    }
}

/// Loads `files`, and looks at them every `interval` from then on, in a task on this runtime. `name` stands in logs and
/// metrics.
///
/// # Errors
/// The first load's. Later ones are logged and counted, and what was loaded before stays.
pub(super) fn follow<F: CertificateFiles>(
    name: &'static str,
    files: F,
    interval: Duration,
) -> Result<Followed<F::Loaded>, TlsError> {
    // Before the files are read: what changes meanwhile is seen at the next look.
    let seen = Seen::of(&files.paths());
    let loaded = files.load()?;
    let end = CertificateEnd::from(F::not_after_s(&loaded));
    let (sender, newest) = watch::channel(Arc::new(loaded));
    let watcher = Watcher { name, files: Arc::new(files), seen, failed: false, end: end.clone() };
    tokio::spawn(watcher.run(sender, interval));
    Ok(Followed { newest, end })
}

struct Watcher<F> {
    name: &'static str,
    files: Arc<F>,
    seen: Seen,
    /// Whether what was seen last could not be used: tried again, since a renewal writes one file after the other.
    failed: bool,
    end: CertificateEnd,
}

impl<F: CertificateFiles> Watcher<F> {
    async fn run(mut self, sender: watch::Sender<Arc<F::Loaded>>, interval: Duration) {
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is due at once.
        interval.tick().await;
        loop {
            tokio::select! {
                () = sender.closed() => return,
                _ = interval.tick() => {}
            }
            if let Some(loaded) = self.look().await {
                self.end.0.store(F::not_after_s(&loaded), Ordering::Relaxed);
                sender.send_replace(Arc::new(loaded));
            }
        }
    }

    /// What the files hold, when that is new and good.
    async fn look(&mut self) -> Option<F::Loaded> {
        let (files, before, failed) = (Arc::clone(&self.files), self.seen.clone(), self.failed);
        let looked = tokio::task::spawn_blocking(move || {
            let seen = Seen::of(&files.paths());
            let is_new = seen != before;
            (is_new || failed).then(|| (seen, is_new, files.load()))
        });
        // A panic in there is a defect; the old certificates stay.
        let (seen, is_new, loaded) = looked.await.ok().flatten()?;
        self.seen = seen;
        let loaded = loaded.and_then(refuse_expired::<F>);
        self.failed = loaded.is_err();
        let name = self.name;
        match loaded {
            Ok(loaded) => {
                tracing::info!(
                    certificate = name,
                    not_after_s = F::not_after_s(&loaded),
                    "certificates read anew"
                );
                metrics::counter!("strongroom_certificate_reloads_total", "certificate" => name, "outcome" => "done")
                    .increment(1);
                Some(loaded)
            }
            Err(error) => {
                if is_new {
                    tracing::error!(certificate = name, %error, "the new certificate files are not usable: the old ones stay");
                    metrics::counter!("strongroom_certificate_reloads_total", "certificate" => name, "outcome" => "refused")
                        .increment(1);
                }
                None
            }
        }
    }
}

/// Exchanging a good certificate for one that every peer refuses helps nobody.
fn refuse_expired<F: CertificateFiles>(loaded: F::Loaded) -> Result<F::Loaded, TlsError> {
    let not_after_s = F::not_after_s(&loaded);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if not_after_s <= now.as_secs() { Err(TlsError::Expired { not_after_s }) } else { Ok(loaded) }
}

/// What tells one content of the files from the next without reading keys all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(Vec<Option<FileState>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    inode: (u64, u64),
    length_bytes: u64,
    modified: (i64, i64),
    /// Moves also with a rename, and cannot be set back by whoever writes the file.
    changed: (i64, i64),
}

impl Seen {
    /// Symbolic links are followed: mounted secrets are exchanged by moving one.
    fn of(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| FileState::of(path)).collect())
    }
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            inode: (metadata.dev(), metadata.ino()),
            length_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

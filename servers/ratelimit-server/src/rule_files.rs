//! The files with rules: read at the start, and again when they change or somebody asks.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{counter, describe_counter};
use ratelimit_core::{CannotSucceed, TableError};
use ratelimit_rules::{
    EngineError, Epoch, FILE_BYTES_MAX, ReadRules, Reloaded, RuleFile, RuleFileError, RuleLines, Syntax,
    read_rule_files,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::limit_service::LimitService;

/// Limits to begin with: for an API by address and by key, and for what guards accounts.
pub const PRESETS: BuiltIn = BuiltIn { name: "the presets", text: include_str!("presets.yaml") };

/// How often the files are looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file that was written so lately may be written again without a new time: file systems count in steps.
const YOUNG: Duration = Duration::from_secs(2);

/// The longest between two attempts to put rules in force that failed for a reason that may pass: no memory, a disk.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(60);

const RELOADS: &str = "rate_limit_reloads_total";

/// Rules cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file says what cannot be meant.
    #[error(transparent)]
    File(#[from] RuleFileError),
    /// A rule cannot be in force.
    #[error("{file}:{line}: {source}")]
    Rule {
        /// In which file.
        file: String,
        /// In which line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: Box<EngineError>,
    },
    /// They cannot be in force together.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl RulesError {
    /// Whether the same files may be usable later.
    fn may_pass(&self) -> bool {
        let engine = match self {
            Self::Unreadable { .. } => return true,
            Self::File(_) => return false,
            Self::Rule { source, .. } => source,
            Self::Engine(error) => error,
        };
        match engine {
            EngineError::Store { .. } => true,
            EngineError::CannotPlace { reason, .. } => {
                !matches!(reason, CannotSucceed::Table(TableError::TooLarge { .. }))
            }
            _ => false,
        }
    }

    /// The error, with the line of the rule that it is about.
    pub(crate) fn at(error: EngineError, lines: &RuleLines) -> Self {
        let path = match &error {
            EngineError::NoShare { path, .. }
            | EngineError::NotStored { path }
            | EngineError::CannotPlace { path, .. } => Some(path),
            _ => None,
        };
        match path.and_then(|path| lines.of(path)) {
            Some(at) => Self::Rule { file: at.file.to_string(), line: at.line, source: Box::new(error) },
            None => Self::Engine(error),
        }
    }
}

/// Rules that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// By which messages call them.
    pub name: &'static str,
    /// A rule file's text, in YAML.
    pub text: &'static str,
}

/// Where rules come from.
#[derive(Debug, Clone)]
pub struct RuleFiles {
    built_in: Vec<BuiltIn>,
    paths: Vec<PathBuf>,
    epoch: Epoch,
}

impl RuleFiles {
    /// These files, for an engine whose clock starts now.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { built_in: Vec::new(), paths, epoch: Epoch::default() }.counting_from_now()
    }

    /// The same, for an engine whose clock starts now.
    #[must_use]
    pub(crate) fn counting_from_now(self) -> Self {
        // Before 1970 only windows and calendar days would begin elsewhere.
        self.counting_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// The wall clock's time when the engine's clock started.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The same, for an engine whose clock started when the wall clock showed this, since the beginning of 1970.
    #[must_use]
    pub fn counting_from(self, epoch: Duration) -> Self {
        Self { epoch: Epoch(epoch), ..self }
    }

    /// The same and, before them, rules that come with the program.
    #[must_use]
    pub fn with(mut self, built_in: BuiltIn) -> Self {
        self.built_in.push(built_in);
        self
    }

    /// Reads all of them. Blocks while the files are read.
    ///
    /// # Errors
    /// [`RulesError::Unreadable`] and [`RulesError::File`].
    pub fn read(&self) -> Result<ReadRules, RulesError> {
        Ok(self.read_seen()?.0)
    }

    /// The same, with what a watch has to know: what changes later is not missed.
    pub(crate) fn read_seen(&self) -> Result<(ReadRules, Seen), RulesError> {
        let stamps = self.stamps();
        let texts = self.texts()?;
        Ok((self.meaning(&texts)?, Seen { stamps, texts }))
    }

    fn stamps(&self) -> Vec<Option<Stamp>> {
        self.paths.iter().map(|path| Stamp::of(path)).collect()
    }

    fn texts(&self) -> Result<Vec<String>, RulesError> {
        let read = |path: &PathBuf| {
            read_text(path).map_err(|source| RulesError::Unreadable { path: path.clone(), source })
        };
        self.paths.iter().map(read).collect()
    }

    fn meaning(&self, texts: &[String]) -> Result<ReadRules, RulesError> {
        let names: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let built_in = self.built_in.iter();
        let built_in =
            built_in.map(|rules| RuleFile { name: rules.name, text: rules.text, syntax: Syntax::Yaml });
        let files = self.paths.iter().zip(&names).zip(texts);
        let files = files.map(|((path, name), text)| RuleFile { name, text, syntax: Syntax::of(path) });
        Ok(read_rule_files(&built_in.chain(files).collect::<Vec<_>>(), self.epoch)?)
    }
}

/// A file, no longer than a rule file may be; one byte more lets the reader say so.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Keeps the rules in force those of the files: looks at them every second, and reads them on SIGHUP.
///
/// What cannot be used is logged, with its line, and changes nothing.
pub(crate) struct RuleWatch {
    files: RuleFiles,
    limits: LimitService,
    seen: Seen,
    retry: Option<Retry>,
    hang_up: Signal,
}

/// When files that could not be used for a reason that may pass are tried again.
#[derive(Debug, Clone, Copy)]
struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    /// After another failure: each wait is twice the one before.
    fn after(before: Option<Self>, now: Instant) -> Self {
        let wait = before.map_or(LOOK_INTERVAL, |before| (before.wait * 2).min(RETRY_INTERVAL_MAX));
        Self { at: now + wait, wait }
    }
}

/// What the files were when they were read last.
pub(crate) struct Seen {
    stamps: Vec<Option<Stamp>>,
    texts: Vec<String>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    place: (u64, u64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let place = (metadata.dev(), metadata.ino());
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), place })
    }

    fn is_young(&self) -> bool {
        self.modified.elapsed().is_ok_and(|age| age < YOUNG)
    }
}

impl RuleWatch {
    /// A watch over files whose rules are in force. From now on SIGHUP does not end the process.
    ///
    /// # Errors
    /// The operating system refuses to deliver signals.
    pub(crate) fn new(files: RuleFiles, seen: Seen, limits: LimitService) -> io::Result<Self> {
        describe_counter!(
            RELOADS,
            "Rule files that were put in force (done) or not usable, so that the old ones stay (refused)."
        );
        Ok(Self { files, limits, seen, retry: None, hang_up: signal(SignalKind::hangup())? })
    }

    /// Watches for ever.
    pub(crate) async fn run(mut self) -> io::Result<Infallible> {
        let mut interval = tokio::time::interval(LOOK_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = self.hang_up.recv() => Asked::BySignal,
                _ = interval.tick() => Asked::ByTime,
            };
            // Files are read and tables reserved on a thread that may wait.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(asked, Instant::now());
                self
            });
            self = looked.await.map_err(io::Error::other)?;
        }
    }

    /// Whether the files were used.
    fn look(&mut self, asked: Asked, now: Instant) -> Looked {
        let stamps = self.files.stamps();
        let is_other = stamps != self.seen.stamps;
        let is_young = stamps.iter().flatten().any(Stamp::is_young);
        let is_due = self.retry.is_some_and(|retry| now >= retry.at);
        let must_tell = is_other || is_due || asked == Asked::BySignal;
        if !must_tell && !is_young {
            return Looked::Nothing;
        }
        self.seen.stamps = stamps;
        if is_other || asked == Asked::BySignal {
            self.retry = None;
        }
        let texts = match self.files.texts() {
            Ok(texts) => texts,
            // Told for each change and each attempt: otherwise it would be told each second.
            Err(error) if must_tell => return self.refused(&error, now),
            Err(_) => return Looked::Nothing,
        };
        if texts == self.seen.texts && asked == Asked::ByTime && !is_due {
            return Looked::Nothing;
        }
        let put = self.files.meaning(&texts).and_then(|rules| self.put_in_force(rules));
        self.seen.texts = texts;
        match put {
            Ok(reloaded) => {
                self.retry = None;
                accepted(&reloaded);
                Looked::Used
            }
            Err(error) => self.refused(&error, now),
        }
    }

    fn refused(&mut self, error: &RulesError, now: Instant) -> Looked {
        self.retry = error.may_pass().then(|| Retry::after(self.retry, now));
        counter!(RELOADS, "result" => "refused").increment(1);
        let again_s = self.retry.map(|retry| retry.wait.as_secs());
        tracing::error!(%error, again_s, "the rules are not usable: those of before stay in force");
        Looked::Refused
    }

    fn put_in_force(&self, read: ReadRules) -> Result<Reloaded, RulesError> {
        warn_of_idle(&read);
        // This thread may wait; the one that runs the rest goes on.
        let reload = self.limits.engine().reload(read.rules, self.limits.now());
        let reloaded = tokio::runtime::Handle::current().block_on(reload);
        reloaded.map_err(|error| RulesError::at(error, &read.lines))
    }
}

/// What a look came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    Nothing,
    Used,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    BySignal,
    ByTime,
}

/// Says which fields change nothing; of many, the first.
pub(crate) fn warn_of_idle(read: &ReadRules) {
    const TOLD_MAX: usize = 20;
    for idle in read.idle.iter().take(TOLD_MAX) {
        tracing::warn!("{idle}");
    }
}

fn accepted(reloaded: &Reloaded) {
    counter!(RELOADS, "result" => "done").increment(1);
    let Reloaded { rules, unchanged, changed, restarted, added, removed } = *reloaded;
    tracing::info!(rules, unchanged, changed, restarted, added, removed, "rules were read anew");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ratelimit_core::{HashSecret, TableSize};
    use ratelimit_rules::Engine;
    use tower_layers::headers::HeaderStyle;
    use tower_layers::rate_limit::SystemClock;

    use super::*;

    fn rules(limit: &str) -> String {
        format!("domain: web\ndescriptors:\n  - key: client_ip\n    limit: {limit}\n")
    }

    fn watch(path: &Path) -> RuleWatch {
        let files = RuleFiles::new(vec![path.to_owned()]);
        let (read, seen) = files.read_seen().expect("rules");
        let engine = Engine::new(read.rules, TableSize::for_keys(100), HashSecret([7; 16]));
        let engine = Arc::new(engine.expect("an engine").into());
        let limits =
            LimitService::new(engine, Arc::new(SystemClock::new()), HeaderStyle::DRAFT10_AND_DRAFT03);
        RuleWatch::new(files, seen, limits).expect("a watch")
    }

    /// What failed for a moment was never tried again, since the files were those that had been seen: the old rules stayed until
    /// somebody changed a file or sent SIGHUP.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_may_pass_is_tried_again_ever_more_rarely_and_what_cannot_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, rules("3/minute")).expect("written");
        let mut watch = watch(&path);
        // Here and unreadable, as a disk that fails is.
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let mut looked = |ms| watch.look(Asked::ByTime, start + Duration::from_millis(ms));
            for (ms, expected) in [
                (0, Looked::Refused),
                (900, Looked::Nothing),
                (1_000, Looked::Refused),
                (2_900, Looked::Nothing),
                (3_000, Looked::Refused),
                (6_900, Looked::Nothing),
            ] {
                assert_eq!(looked(ms), expected, "{ms}");
            }
            std::fs::remove_dir(&path).expect("removed");
            std::fs::write(&path, rules("4/minute")).expect("written");
            assert_eq!(looked(6_950), Looked::Used);
            assert_eq!(looked(1_000_000), Looked::Nothing);
            std::fs::write(&path, rules("4/fortnight")).expect("written");
            assert_eq!(looked(1_000_001), Looked::Refused);
            assert_eq!(looked(2_000_000), Looked::Nothing);
        })
        .await
        .expect("looked");
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let now = Instant::now();
        let mut retry = None;
        let waits = [(); 8].map(|()| {
            let next = Retry::after(retry, now);
            retry = Some(next);
            next.wait.as_secs()
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}

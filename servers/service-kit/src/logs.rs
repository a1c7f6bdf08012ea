//! Log lines: JSON for machines, text for people.

use std::borrow::Cow;
use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// A subscriber layer of any kind, on the registry that [`install`] sets up.
pub type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What a log filter is, for messages that ask for one.
pub const FILTER_EXPECTED: &str = "a level (off, error, warn, info, debug, trace), optionally followed by exceptions, \
                                   such as info,openraft=warn";

/// How and where log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), optionally with exceptions:
    /// `info,ledger_server=debug`. The consensus engine is silent unless the filter names `openraft`:
    /// what matters of it the node says itself.
    pub filter: String,
    /// Form of a line.
    pub format: LogFormat,
    /// Stream they go to.
    pub target: LogTarget,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Json, target: LogTarget::Stderr }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line: `timestamp` (RFC 3339, UTC), `level`, `target`, `message`, the event's fields, `span`.
    Json,
    /// One line of text.
    Text,
}

/// Stream that log lines go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error: standard output stays free for results.
    Stderr,
    /// Standard output.
    Stdout,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a level or a list of `target=level`.
    #[error("\"{filter}\" is not a log filter: expected {FILTER_EXPECTED}")]
    Filter {
        /// The text.
        filter: String,
    },
    /// This process logs already.
    #[error("logging is set up already in this process")]
    AlreadyInstalled,
}

/// Sets up logging for the process, together with further layers (traces).
///
/// # Errors
/// An unusable filter, or a second call.
pub fn install(settings: &LogSettings, further: Option<BoxedLayer>) -> Result<(), LogError> {
    let mut layers = match settings.target {
        LogTarget::Stderr => vec![layer_to(settings, io::stderr)?],
        LogTarget::Stdout => vec![layer_to(settings, io::stdout)?],
    };
    layers.extend(further);
    tracing_subscriber::registry().with(layers).try_init().map_err(|_| LogError::AlreadyInstalled)
}

/// The layer that writes lines to `writer`, whatever the settings' target.
///
/// # Errors
/// An unusable filter.
pub fn layer_to<W>(settings: &LogSettings, writer: W) -> Result<BoxedLayer, LogError>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = parse_filter(&settings.filter)?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    Ok(match settings.format {
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).with_filter(filter).boxed(),
        LogFormat::Text => layer.with_filter(filter).boxed(),
    })
}

/// Checks a filter before anything is set up.
///
/// # Errors
/// An unusable filter.
pub fn check_filter(text: &str) -> Result<(), LogError> {
    parse_filter(text).map(drop)
}

fn parse_filter(text: &str) -> Result<EnvFilter, LogError> {
    let refused = || LogError::Filter { filter: text.to_owned() };
    // `EnvFilter` reads a word that is no level as a target to log everything of: a slip such as "inof" would
    // silence the program instead of failing.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let understood = |directive: &str| match directive.rsplit_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(directive),
    };
    if !text.split(',').all(|directive| understood(directive.trim())) {
        return Err(refused());
    }
    EnvFilter::builder().parse(with_quiet_engine(text)).map_err(|_| refused())
}

/// The consensus engine tells every step of every heartbeat, and warns many times a second of a peer that is away: only
/// those who name it get that.
fn with_quiet_engine(text: &str) -> Cow<'_, str> {
    const ENGINE: &str = "openraft";
    let directives = || text.split(',').map(str::trim);
    let is_named = directives().any(|directive| directive.starts_with(ENGINE));
    if is_named { Cow::Borrowed(text) } else { Cow::Owned(format!("{text},{ENGINE}=off")) }
}

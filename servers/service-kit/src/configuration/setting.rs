//! One row of a server's table of settings, and how its text is read.

use std::net::SocketAddr;
use std::time::Duration;

/// One setting of a server.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file: lower case, words joined by `_`. The flag and the variable are derived from it.
    pub key: &'static str,
    /// What its text must look like.
    pub kind: Kind,
    /// Text used when no layer has the key; `None` leaves the setting unset.
    pub default: Option<&'static str>,
    /// Environment variables of other programs that are understood too, after our own name.
    pub aliases: &'static [Alias],
    /// One sentence for `--help`, the reference and the sample file. States what the default is there for.
    pub help: &'static str,
}

impl Setting {
    /// A setting without default and aliases.
    pub const fn new(key: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { key, kind, default: None, aliases: &[], help }
    }

    /// The same setting with a default, written as in the file.
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// The same setting, also readable from variables of other programs.
    pub const fn also(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Whether the value is a secret: redacted in every output, never given as a flag.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret)
    }

    /// Name of the flag, without dashes: `tls_cert` gives `tls-cert`, the secret `key` gives `key-file`.
    pub fn flag(&self) -> String {
        let name = self.key.replace('_', "-");
        if self.is_secret() { format!("{name}-file") } else { name }
    }

    /// Name of the environment variable for a server: `STRONGROOM__LEDGER__TLS_CERT`.
    pub fn variable(&self, server: &str) -> String {
        format!("{}{}__{}", super::ENVIRONMENT_PREFIX, server.to_uppercase(), self.key.to_uppercase())
    }
}

/// A foreign environment variable that sets one of our settings.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The variable's whole name. A secret's alias is also read with `_FILE` appended.
    pub variable: &'static str,
    /// Unit of a bare number there, when it is not the setting's own.
    pub bare: Option<TimeUnit>,
}

impl Alias {
    /// A variable with the same notation as ours.
    pub const fn new(variable: &'static str) -> Self {
        Self { variable, bare: None }
    }

    /// A variable that counts in its own unit, such as `…_SECS`.
    pub const fn counted_in(variable: &'static str, unit: TimeUnit) -> Self {
        Self { variable, bare: Some(unit) }
    }

    /// The alias' text in our notation.
    pub(super) fn translate(&self, text: String) -> String {
        match self.bare {
            Some(unit) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{text}{}", unit.suffix())
            }
            _ => text,
        }
    }
}

/// Unit of a duration that is written as a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
}

impl TimeUnit {
    fn suffix(self) -> &'static str {
        match self {
            TimeUnit::Milliseconds => "ms",
            TimeUnit::Seconds => "s",
        }
    }
}

/// What a setting's text must look like. No kind guesses: the text `0123` stays `0123`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// `true` or `false`; as a flag it may stand alone.
    Switch,
    /// A whole number within bounds, both included.
    Count {
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// A whole number with `ms`, `s`, `m`, `h` or `d`; a bare number counts in `bare`.
    Duration {
        /// Unit of a bare number.
        bare: TimeUnit,
    },
    /// A whole number with `B`, `KiB`, `MiB` or `GiB`; a bare number counts bytes.
    Bytes,
    /// A path of the file system.
    Path,
    /// An IP address with a port, such as `127.0.0.1:50051` or `[::1]:0`.
    Address,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts without commas, separated by commas; in the file also an array of strings.
    List,
    /// A text that is never shown.
    Secret,
}

impl Kind {
    /// What is expected, for errors and documentation.
    pub fn expected(self) -> String {
        match self {
            Kind::Text => "a text that is not empty".to_owned(),
            Kind::Switch => "true or false".to_owned(),
            Kind::Count { min, max: u64::MAX } => format!("a whole number of at least {min}"),
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Duration { bare: TimeUnit::Milliseconds } => {
                "a duration such as 500ms, 30s, 5m, 1h (a bare number is milliseconds)".to_owned()
            }
            Kind::Duration { bare: TimeUnit::Seconds } => {
                "a duration such as 500ms, 30s, 5m, 1h (a bare number is seconds)".to_owned()
            }
            Kind::Bytes => "a size such as 4096, 64KiB, 4MiB, 1GiB (a bare number is bytes)".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Address => "an IP address with a port, such as 127.0.0.1:50051 or [::1]:0".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::List => "texts separated by commas".to_owned(),
            Kind::Secret => "a secret that is not empty".to_owned(),
        }
    }

    /// The placeholder in `--help`.
    pub(super) fn value_name(self) -> &'static str {
        match self {
            Kind::Text | Kind::Choice(_) => "TEXT",
            Kind::Switch => "BOOL",
            Kind::Count { .. } => "N",
            Kind::Duration { .. } => "DURATION",
            Kind::Bytes => "SIZE",
            Kind::Path | Kind::Secret => "PATH",
            Kind::Address => "ADDRESS",
            Kind::List => "LIST",
        }
    }

    /// Whether the text is one of this kind.
    pub(super) fn accepts(self, text: &str) -> bool {
        match self {
            Kind::Text | Kind::Path | Kind::Secret => !text.is_empty(),
            Kind::Switch => parse_switch(text).is_some(),
            Kind::Count { min, max } => parse_count(text).is_some_and(|count| (min..=max).contains(&count)),
            Kind::Duration { bare } => parse_duration(text, bare).is_some(),
            Kind::Bytes => parse_bytes(text).is_some(),
            Kind::Address => text.parse::<SocketAddr>().is_ok(),
            Kind::Choice(words) => words.contains(&text),
            Kind::List => parse_list(text).iter().all(|item| !item.is_empty()),
        }
    }
}

pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Decimal digits only: `u64::from_str` alone would also take `+5`.
pub(super) fn parse_count(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(super) fn parse_duration(text: &str, bare: TimeUnit) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let number = parse_count(number)?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match if unit.is_empty() { bare.suffix() } else { unit } {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => None,
    }
}

pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    parse_count(number)?.checked_mul(factor)
}

pub(super) fn parse_list(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

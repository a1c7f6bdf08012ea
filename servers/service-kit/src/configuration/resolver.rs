//! From layers to resolved settings.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::{ConfigurationError, ConfigurationErrors};
use super::file;
use super::resolved::{Resolved, Source, Value};
use super::setting::{Kind, Setting};

/// Start of every environment variable that sets something.
pub const ENVIRONMENT_PREFIX: &str = "STRONGROOM__";

/// The servers that may share one file and one environment. Another name there is an unknown key.
pub const SERVERS: &[&str] = &["ledger", "auth", "ratelimit"];

/// Collects the layers of one server and resolves them. It reads no environment by itself: pass `std::env::vars_os()`.
pub struct Resolver {
    server: String,
    settings: Vec<&'static Setting>,
    flags: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
    file: Option<PathBuf>,
}

impl Resolver {
    /// A resolver for one of [`SERVERS`] and its table; several tables are chained into one iterator.
    ///
    /// # Panics
    /// When two settings share a key, flag or variable: the table is wrong.
    pub fn new(server: &str, settings: impl IntoIterator<Item = &'static Setting>) -> Self {
        let settings: Vec<_> = settings.into_iter().collect();
        let mut names = HashSet::new();
        for setting in &settings {
            let mut own = vec![setting.key.to_owned()];
            own.extend(setting.is_secret().then(|| format!("{}_file", setting.key)));
            own.extend(setting.aliases.iter().map(|alias| alias.variable.to_owned()));
            for name in own {
                assert!(names.insert(name.clone()), "two settings of {server} share the name {name}");
            }
        }
        Self { server: server.to_owned(), settings, flags: Vec::new(), environment: Vec::new(), file: None }
    }

    /// The flags given on the command line: name without dashes, and value.
    pub fn flags<N: Into<String>, V: Into<String>>(
        mut self,
        flags: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.flags.extend(flags.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The environment, whole: foreign variables are ignored unless they are a documented alias.
    pub fn environment<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The TOML file, if there is one. It must exist then.
    pub fn file(mut self, path: Option<impl AsRef<Path>>) -> Self {
        self.file = path.map(|path| path.as_ref().to_owned());
        self
    }

    /// Resolves every setting.
    ///
    /// # Errors
    /// All problems of all layers: also those of a layer that another one overrides.
    pub fn resolve(self) -> Result<Resolved, ConfigurationErrors> {
        let mut errors = Vec::new();
        let layers = [
            self.flag_layer(&mut errors),
            self.environment_layer(&mut errors),
            self.file_layer(&mut errors),
            self.default_layer(),
        ];
        let mut values = BTreeMap::new();
        // Layers stand strongest first, and so does what is in each: inserted backwards, the strongest stays.
        let strongest_first: Vec<Given> = layers.into_iter().flatten().collect();
        for given in strongest_first.into_iter().rev() {
            let (key, value) = (given.setting.key, self.value_of(given));
            match value {
                Ok(value) => drop(values.insert(key, value)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Resolved { server: self.server, settings: self.settings, values })
        } else {
            Err(ConfigurationErrors(errors))
        }
    }

    fn flag_layer(&self, errors: &mut Vec<ConfigurationError>) -> Vec<Given> {
        let mut layer = Vec::new();
        for (flag, text) in &self.flags {
            match self.settings.iter().find(|setting| setting.flag() == *flag) {
                Some(setting) => layer.push(Given {
                    setting,
                    text: Zeroizing::new(text.clone()),
                    form: if setting.is_secret() { Form::NameOfFile } else { Form::Itself },
                    source: Source::Flag { flag: flag.clone() },
                }),
                None => errors.push(self.unknown(
                    format!("--{flag}"),
                    "the command line",
                    self.settings.iter().map(|setting| format!("--{}", setting.flag())),
                )),
            }
        }
        layer
    }

    fn environment_layer(&self, errors: &mut Vec<ConfigurationError>) -> Vec<Given> {
        let mut own = Vec::new();
        let mut foreign = Vec::new();
        for (name, value) in &self.environment {
            let Some(name) = name.to_str() else { continue };
            let Some((setting, form, alias)) = self.variable(name) else {
                if self.is_unknown(name) {
                    let names = self.settings.iter().map(|setting| setting.variable(&self.server));
                    errors.push(self.unknown(name.to_owned(), "the environment", names));
                }
                continue;
            };
            let Some(text) = value.to_str() else {
                errors.push(ConfigurationError::NotUnicode { variable: name.to_owned() });
                continue;
            };
            let text = match alias {
                Some(position) => setting.aliases.get(position).map(|alias| alias.translate(text.to_owned())),
                None => Some(text.to_owned()),
            };
            let source = Source::Environment { variable: name.to_owned() };
            let given = Given { setting, text: Zeroizing::new(text.unwrap_or_default()), form, source };
            match alias {
                None => own.push(given),
                Some(position) => foreign.push((position, given)),
            }
        }
        report_doubles(&own, "the environment", errors);
        // Within the layer our own name wins over aliases, and an earlier alias over a later one: strongest first.
        foreign.sort_by_key(|(position, _)| *position);
        own.extend(foreign.into_iter().map(|(_, given)| given));
        own
    }

    /// The setting that a variable names, whether it names a file, and which alias it is.
    fn variable(&self, name: &str) -> Option<(&'static Setting, Form, Option<usize>)> {
        self.settings.iter().find_map(|&setting| {
            let own = (setting.variable(&self.server), None);
            let aliases =
                setting.aliases.iter().enumerate().map(|(i, alias)| (alias.variable.to_owned(), Some(i)));
            std::iter::once(own).chain(aliases).find_map(|(candidate, alias)| {
                match name.strip_prefix(&candidate)? {
                    "" => Some((setting, Form::Itself, alias)),
                    "_FILE" if setting.is_secret() => Some((setting, Form::NameOfFile, alias)),
                    _ => None,
                }
            })
        })
    }

    /// A variable under our prefix is ours to understand unless it is another server's.
    fn is_unknown(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { return false };
        let server = rest.split_once("__").map_or(rest, |(server, _)| server).to_lowercase();
        server == self.server || !SERVERS.contains(&server.as_str())
    }

    fn file_layer(&self, errors: &mut Vec<ConfigurationError>) -> Vec<Given> {
        let Some(path) = &self.file else { return Vec::new() };
        let table = match file::read_table(path, &self.server) {
            Ok(table) => table,
            Err(error) => {
                errors.push(error);
                return Vec::new();
            }
        };
        let origin = path.display().to_string();
        let mut layer = Vec::new();
        for (key, value) in &table {
            let found = self.settings.iter().find_map(|&setting| match key.strip_prefix(setting.key)? {
                "" => Some((setting, Form::Itself)),
                "_file" if setting.is_secret() => Some((setting, Form::NameOfFile)),
                _ => None,
            });
            let Some((setting, form)) = found else {
                let names = self.settings.iter().map(|setting| setting.key.to_owned());
                errors.push(self.unknown(format!("{}.{key}", self.server), &origin, names));
                continue;
            };
            let source = Source::File { path: path.clone() };
            match file::text_of(value, setting) {
                Some(text) => layer.push(Given { setting, text: Zeroizing::new(text), form, source }),
                None => errors.push(ConfigurationError::Invalid {
                    key: setting.key.to_owned(),
                    origin: source,
                    value: (!setting.is_secret()).then(|| value.to_string()),
                    expected: setting.kind.expected(),
                }),
            }
        }
        report_doubles(&layer, &origin, errors);
        layer
    }

    fn default_layer(&self) -> Vec<Given> {
        let given = |setting: &&'static Setting| {
            let text = Zeroizing::new(setting.default?.to_owned());
            Some(Given { setting, text, form: Form::Itself, source: Source::Default })
        };
        self.settings.iter().filter_map(given).collect()
    }

    fn value_of(&self, given: Given) -> Result<Value, ConfigurationError> {
        let Given { setting, text, form, source } = given;
        let (text, source) = match form {
            Form::Itself => (text, source),
            Form::NameOfFile => {
                let path = PathBuf::from(text.as_str());
                let secret = file::read_secret(&path, &source.to_string())?;
                (secret, Source::SecretFile { path, named_by: Box::new(source) })
            }
        };
        if setting.kind.accepts(&text) {
            return Ok(Value { text, source });
        }
        Err(ConfigurationError::Invalid {
            key: setting.key.to_owned(),
            origin: source,
            value: (!setting.is_secret()).then(|| text.to_string()),
            expected: setting.kind.expected(),
        })
    }

    fn unknown(&self, key: String, origin: &str, names: impl Iterator<Item = String>) -> ConfigurationError {
        /// More edits than this are another word, not a slip.
        const EDITS_MAX: usize = 3;
        let wanted = key.rsplit(['.']).next().unwrap_or(&key).to_owned();
        let nearest = names.map(|name| (edits_between(&wanted, &name), name)).min();
        let suggestion = nearest.filter(|(edits, _)| *edits <= EDITS_MAX).map(|(_, name)| name);
        ConfigurationError::UnknownKey { key, origin: origin.to_owned(), suggestion }
    }
}

impl fmt::Debug for Resolver {
    /// Without the environment, which holds secrets of this and other programs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("server", &self.server)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A text that some layer gives to a setting.
struct Given {
    setting: &'static Setting,
    text: Zeroizing<String>,
    form: Form,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The text is the value.
    Itself,
    /// The text names the file that holds the value.
    NameOfFile,
}

fn report_doubles(layer: &[Given], origin: &str, errors: &mut Vec<ConfigurationError>) {
    for given in layer.iter().filter(|given| given.form == Form::NameOfFile) {
        let same = |other: &&Given| other.setting.key == given.setting.key && other.form == Form::Itself;
        if layer.iter().any(|other| same(&other)) {
            let key = given.setting.key.to_owned();
            errors.push(ConfigurationError::SecretGivenTwice { key, origin: origin.to_owned() });
        }
    }
}

/// Levenshtein distance: single-character insertions, deletions and substitutions.
fn edits_between(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        let mut next = vec![previous];
        for (b, above) in right.iter().zip(row.iter().skip(1)) {
            let cell = (diagonal + usize::from(a != *b)).min(above + 1).min(previous + 1);
            diagonal = *above;
            previous = cell;
            next.push(cell);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

/// Kinds that the getters of [`Resolved`] ask for are compared by shape, not by bounds.
pub(super) fn same_shape(left: Kind, right: Kind) -> bool {
    std::mem::discriminant(&left) == std::mem::discriminant(&right)
}

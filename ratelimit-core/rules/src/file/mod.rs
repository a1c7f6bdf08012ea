//! Rule files: YAML or TOML, with the line in every message.
//!
//! A file holds one domain (`domain`, `descriptors`) or several (`domains`). The files of the Envoy project's rate limit
//! service are of the first form and mean here what they mean there; what goes beyond them is `limit` in place of `rate_limit`,
//! `on_failure` and `cost`. The format is described in `docs/adr/0019-rule-files-and-reload.md`.

mod civil;
mod descriptor;
mod fields;
mod limit;
mod located;
mod read;
mod toml_syntax;
mod yaml_syntax;

use std::collections::BTreeMap;
use std::path::Path;

use civil::Civil;
pub use civil::Epoch;
use descriptor::{Descriptors, Noted};
use fields::Fields;
use located::{Fault, Located};
use ratelimit_core::LimitError;
use ratelimit_core::rules::{Domain, Node, RuleError, RuleSet};
pub use read::{IdleField, ReadRules, RuleLine, RuleLines};

/// Bytes of a rule file.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Lists and maps within each other.
pub const NESTING_MAX: usize = 64;
/// Values of a file, those that aliases repeat included.
pub const VALUES_MAX: usize = 1_000_000;

/// How a rule file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// YAML 1.2.
    Yaml,
    /// TOML 1.0.
    Toml,
}

impl Syntax {
    /// TOML for files whose names end in `.toml`, else YAML.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("toml") => Self::Toml,
            _ => Self::Yaml,
        }
    }
}

/// A rule file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleFile<'t> {
    /// By which messages call it.
    pub name: &'t str,
    /// What it says.
    pub text: &'t str,
    /// How.
    pub syntax: Syntax,
}

/// The rules of some files together. Each domain is in one of them.
///
/// `epoch` is the wall clock's time at the engine's epoch: windows and calendar units begin with those of that clock.
///
/// # Errors
///
/// The first thing that is wrong, with its file and line.
pub fn read_rules(files: &[RuleFile<'_>], epoch: Epoch) -> Result<RuleSet, RuleFileError> {
    Ok(read_rule_files(files, epoch)?.rules)
}

/// The same, with the place of each rule and what in the files changes nothing.
///
/// # Errors
///
/// As for [`read_rules`].
pub fn read_rule_files(files: &[RuleFile<'_>], epoch: Epoch) -> Result<ReadRules, RuleFileError> {
    let mut civil = Civil::new(epoch);
    let mut domains: Vec<Domain> = Vec::new();
    let mut places: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let (mut lines, mut idle) = (RuleLines::default(), Vec::new());
    for file in files {
        let told = |fault: Fault| RuleFileError {
            file: file.name.to_owned(),
            // What ends too early is told at the last line, not behind it.
            line: fault.line.min(file.text.matches(['\r', '\n']).count().saturating_add(1)),
            problem: fault.problem,
        };
        let (read, noted) = read_file(file, &mut civil).map_err(told)?;
        for (line, domain) in read {
            // Alone, so that what only the core checks is told with this domain's line.
            RuleSet::new([domain.clone()]).map_err(|error| told(Fault::new(line, Problem::Rules(error))))?;
            if let Some((first_file, first_line)) = places.get(&domain.name).cloned() {
                let problem = Problem::DuplicateDomain { domain: domain.name, first_file, first_line };
                return Err(told(Fault::new(line, problem)));
            }
            places.insert(domain.name.clone(), (file.name.to_owned(), line));
            domains.push(domain);
        }
        lines.note(file.name, noted.rules);
        let field = |(field, line)| IdleField { file: file.name.to_owned(), line, field };
        idle.extend(noted.idle.into_iter().map(field));
    }
    let rules = RuleSet::new(domains).map_err(|error| RuleFileError {
        file: files.first().map(|file| file.name.to_owned()).unwrap_or_default(),
        line: 1,
        problem: Problem::Rules(error),
    })?;
    Ok(ReadRules { rules, lines, idle })
}

fn read_file(file: &RuleFile<'_>, civil: &mut Civil) -> Result<(Vec<(usize, Domain)>, Noted), Fault> {
    if file.text.len() > FILE_BYTES_MAX {
        return Err(Fault::new(1, Problem::TooLarge { bytes: file.text.len() }));
    }
    let document = match file.syntax {
        Syntax::Yaml => yaml_syntax::parse(file.text)?,
        Syntax::Toml => toml_syntax::parse(file.text)?,
    };
    let mut descriptors = Descriptors::new(civil);
    let mut fields = Fields::of(&document, "a rule file")?;
    let domains = match fields.list("domains")? {
        None => vec![read_domain(fields, &mut descriptors)?],
        Some(list) => {
            fields.finish()?;
            let read = |domain| read_domain(Fields::of(domain, "a domain")?, &mut descriptors);
            list.iter().map(read).collect::<Result<_, _>>()?
        }
    };
    Ok((domains, descriptors.into_noted()))
}

fn read_domain(mut fields: Fields<'_>, descriptors: &mut Descriptors<'_>) -> Result<(usize, Domain), Fault> {
    let (line, name) = fields.needed_name("domain")?;
    let nodes: &[Located] = fields.list("descriptors")?.unwrap_or_default();
    fields.finish()?;
    let nodes: Vec<Node> = descriptors.read(nodes, &name, 1)?;
    Ok((line, Domain { name, nodes }))
}

/// A rule file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {problem}")]
pub struct RuleFileError {
    /// Which.
    pub file: String,
    /// Where, from 1.
    pub line: usize,
    /// Why.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a rule file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file is too large.
    #[error("the file has {bytes} bytes, {FILE_BYTES_MAX} is the most: split it by domains")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// It is not YAML or TOML.
    #[error("this cannot be read: {told}")]
    Syntax {
        /// What the parser says.
        told: String,
    },
    /// Lists and maps are nested too deeply.
    #[error("lists and maps are nested deeper than {NESTING_MAX} levels: use fewer")]
    TooDeep,
    /// There are too many values; aliases repeat them.
    #[error("there are more than {VALUES_MAX} values, those that aliases repeat included: use fewer")]
    TooManyValues,
    /// YAML that rule files have no use for.
    #[error("{what} is not understood here: leave it out")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// A field is there twice.
    #[error("{field} is there already, in line {first_line}: keep one")]
    DuplicateField {
        /// Its name.
        field: String,
        /// Where it is first.
        first_line: usize,
    },
    /// A field that does not exist.
    #[error("{what} has no field {field}: it may have {known}")]
    UnknownField {
        /// The field.
        field: String,
        /// Of what.
        what: &'static str,
        /// What there is.
        known: String,
    },
    /// A field is not there.
    #[error("{what} has no {field}: name one")]
    Missing {
        /// The field.
        field: &'static str,
        /// Of what.
        what: &'static str,
    },
    /// A value of another kind.
    #[error("{field} has to be {wanted}")]
    WrongKind {
        /// The field.
        field: &'static str,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A value that is none of those that there are.
    #[error("{field} cannot be {value:?}: use {known}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it can be.
        known: &'static str,
    },
    /// Two fields that exclude each other.
    #[error("{one} and {other} do not go together: keep one")]
    Conflict {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// A field of a descriptor without a limit that only has a meaning beside one.
    #[error(
        "{field} has nothing to apply to: this descriptor has no limit, and those below do not take it over; give it a \
         limit, or move {field} to the descriptor that has one"
    )]
    WithoutLimit {
        /// The field.
        field: &'static str,
    },
    /// A text is too long.
    #[error("{field} has {bytes} bytes, {bytes_max} is the most: shorten it")]
    TextTooLong {
        /// The field.
        field: &'static str,
        /// How many it has.
        bytes: usize,
        /// The most.
        bytes_max: usize,
    },
    /// A key with a wildcard.
    #[error("a * is a wildcard in a value, not in a key: name the key, and let value be a pattern")]
    WildcardInKey,
    /// Sharing, and nothing to share.
    #[error("share_threshold needs a value with a *: one value has one counter anyway")]
    NothingToShare,
    /// A descriptor is there twice.
    #[error("this key and value are there already, in line {first_line}: merge them")]
    DuplicateDescriptor {
        /// Where they are first.
        first_line: usize,
    },
    /// A domain is there twice.
    #[error("the domain {domain} is there already, in {first_file}:{first_line}: merge them")]
    DuplicateDomain {
        /// Its name.
        domain: String,
        /// Where it is first.
        first_file: String,
        /// In which line.
        first_line: usize,
    },
    /// A rule replaces itself.
    #[error("the rule replaces itself: remove its own name from what it replaces")]
    ReplacesItself,
    /// A time zone that is not known.
    #[error("there is no time zone {zone:?}: use a name of the IANA database, such as Europe/Berlin")]
    UnknownZone {
        /// Its name.
        zone: String,
    },
    /// A limit that cannot be kept.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Rules that cannot be meant.
    #[error(transparent)]
    Rules(#[from] RuleError),
}

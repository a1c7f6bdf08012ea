//! Turns this machine's Debian package index into lines that `strongroom ledger import` reads.
//!
//! The installed packages come from `/var/lib/dpkg/status`; where `apt-cache dumpavail` knows more (some sixty thousand
//! packages), all of those too. Each package becomes an entity, each of its dependencies a relationship:
//!
//! ```text
//! {"op":"put","key":"pkg/bash","value":"5.2.15-2+b8 shells"}
//! {"op":"relate","resource":"pkg:libc6","relation":"required_by","subject":"pkg:bash"}
//! ```
//!
//! So "who depends on libc6" is a list by resource. The same index always gives the same bytes: packages are sorted,
//! and each one's dependencies are sorted and unique. Memory holds the names only, not the index.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;

/// Where dpkg keeps its record of installed packages.
const STATUS_FILE: &str = "/var/lib/dpkg/status";
/// Longest line that is read; the longest in Debian 12 has some ten thousand bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Most packages that are taken in; Debian 12 has 64 thousand.
const PACKAGES_MAX: usize = 1_000_000;
/// The relation between a package and one that needs it.
const RELATION: &str = "required_by";

/// Turns the Debian package index of this machine into import lines for a ledger.
#[derive(Debug, Parser)]
#[command(name = "dpkg_ledger", version)]
struct Arguments {
    /// File to write; standard output when absent.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// At most this many lines.
    #[arg(long)]
    limit: Option<u64>,
    /// dpkg's status file.
    #[arg(long, default_value = STATUS_FILE)]
    status: PathBuf,
    /// Leave out what `apt-cache dumpavail` knows about packages that are not installed.
    #[arg(long)]
    no_available: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dpkg_ledger: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut index = Index::default();
    let status = File::open(&arguments.status).map_err(|error| {
        format!("cannot open {}: {error}; name another file with --status", arguments.status.display())
    })?;
    index.read(BufReader::new(status), Source::Status)?;
    let installed = index.packages.len();
    if !arguments.no_available {
        read_available(&mut index)?;
    }
    let written = match &arguments.output {
        Some(path) => write_file(&index, path, arguments.limit)?,
        None => write_stdout(&index, arguments.limit)?,
    };
    eprintln!(
        "{} packages ({installed} installed), {} dependencies; wrote {} put and {} relate lines{}",
        index.packages.len(),
        index.dependencies(),
        written.puts,
        written.relates,
        if index.malformed > 0 {
            format!("; left out {} malformed names", index.malformed)
        } else {
            String::new()
        },
    );
    Ok(())
}

/// Adds the packages that apt could install; a machine without apt or without lists adds none.
fn read_available(index: &mut Index) -> Result<(), Box<dyn Error>> {
    let started = Command::new("apt-cache")
        .arg("dumpavail")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            eprintln!("dpkg_ledger: no apt-cache here ({error}); installed packages only");
            return Ok(());
        }
    };
    if let Some(output) = child.stdout.take() {
        index.read(BufReader::new(output), Source::Available)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("apt-cache dumpavail failed ({status}); leave it out with --no-available").into());
    }
    Ok(())
}

/// Which rules a paragraph follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// dpkg's status: packages count only when they are installed.
    Status,
    /// apt's lists: every paragraph counts.
    Available,
}

/// Every package by name.
#[derive(Debug, Default)]
struct Index {
    packages: BTreeMap<String, Package>,
    /// Names that no Debian package can have.
    malformed: u64,
}

#[derive(Debug, Default)]
struct Package {
    /// Version, and the section when there is one.
    value: String,
    /// Names of the packages that it needs, each alternative for itself.
    needs: BTreeSet<String>,
}

/// The fields of one paragraph that matter here.
#[derive(Debug, Default)]
struct Paragraph {
    package: String,
    status: String,
    version: String,
    section: String,
    depends: String,
    pre_depends: String,
}

impl Paragraph {
    /// The field with this name, compared without case as the format asks.
    fn field(&mut self, name: &str) -> Option<&mut String> {
        match name.to_ascii_lowercase().as_str() {
            "package" => Some(&mut self.package),
            "status" => Some(&mut self.status),
            "version" => Some(&mut self.version),
            "section" => Some(&mut self.section),
            "depends" => Some(&mut self.depends),
            "pre-depends" => Some(&mut self.pre_depends),
            _ => None,
        }
    }
}

impl Index {
    /// Reads paragraphs (`Name: value` lines, continuation lines begin with a blank) until the input ends.
    fn read(&mut self, mut input: impl BufRead, source: Source) -> Result<(), Box<dyn Error>> {
        let mut paragraph = Paragraph::default();
        let mut field = String::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
            if length as u64 > LINE_BYTES_MAX {
                return Err(format!("a line of the package index exceeds {LINE_BYTES_MAX} bytes").into());
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end();
            if text.is_empty() {
                self.add(std::mem::take(&mut paragraph), source)?;
                field.clear();
                if length == 0 {
                    return Ok(());
                }
            } else if text.starts_with([' ', '\t']) {
                if let Some(value) = paragraph.field(&field) {
                    value.push_str(text);
                }
            } else if let Some((name, value)) = text.split_once(':') {
                name.clone_into(&mut field);
                if let Some(slot) = paragraph.field(name) {
                    value.trim().clone_into(slot);
                }
            }
        }
    }

    fn add(&mut self, paragraph: Paragraph, source: Source) -> Result<(), Box<dyn Error>> {
        let installed = paragraph.status.split_ascii_whitespace().nth(2) == Some("installed");
        if paragraph.package.is_empty() || (source == Source::Status && !installed) {
            return Ok(());
        }
        if !is_package_name(&paragraph.package) {
            self.malformed += 1;
            return Ok(());
        }
        if self.packages.len() >= PACKAGES_MAX {
            return Err(format!("the package index has more than {PACKAGES_MAX} packages").into());
        }
        // The first paragraph decides the version: what is installed, then apt's first offer. Dependencies of every
        // architecture and version add up.
        let Paragraph { package, version, section, depends, pre_depends, .. } = paragraph;
        let entry = self.packages.entry(package).or_default();
        if entry.value.is_empty() {
            entry.value = if section.is_empty() { version } else { format!("{version} {section}") };
        }
        for alternative in pre_depends.split([',', '|']).chain(depends.split([',', '|'])) {
            let name = dependency_name(alternative);
            if is_package_name(name) {
                entry.needs.insert(name.to_owned());
            } else if !name.is_empty() {
                self.malformed += 1;
            }
        }
        Ok(())
    }

    fn dependencies(&self) -> usize {
        self.packages.values().map(|package| package.needs.len()).sum()
    }

    /// Writes each package followed by its dependencies, in order of the names, up to `limit` lines.
    fn write(&self, mut output: impl Write, limit: Option<u64>) -> io::Result<Written> {
        let limit = limit.unwrap_or(u64::MAX);
        let mut written = Written::default();
        for (name, package) in &self.packages {
            if written.lines() >= limit {
                break;
            }
            let key = serde_json::to_string(&format!("pkg/{name}"))?;
            let value = serde_json::to_string(&package.value)?;
            writeln!(output, r#"{{"op":"put","key":{key},"value":{value}}}"#)?;
            written.puts += 1;
            let subject = serde_json::to_string(&format!("pkg:{name}"))?;
            for needed in &package.needs {
                if written.lines() >= limit {
                    break;
                }
                let resource = serde_json::to_string(&format!("pkg:{needed}"))?;
                writeln!(
                    output,
                    r#"{{"op":"relate","resource":{resource},"relation":"{RELATION}","subject":{subject}}}"#
                )?;
                written.relates += 1;
            }
        }
        output.flush()?;
        Ok(written)
    }
}

/// How many lines of each kind were written.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    puts: u64,
    relates: u64,
}

impl Written {
    fn lines(&self) -> u64 {
        self.puts + self.relates
    }
}

fn write_file(index: &Index, path: &Path, limit: Option<u64>) -> Result<Written, Box<dyn Error>> {
    let file = File::create(path).map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    Ok(index.write(BufWriter::new(file), limit)?)
}

/// A reader that stops early, such as `head`, is not an error.
fn write_stdout(index: &Index, limit: Option<u64>) -> Result<Written, Box<dyn Error>> {
    match index.write(BufWriter::new(io::stdout().lock()), limit) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            eprintln!("dpkg_ledger: the reader closed the pipe early");
            Ok(Written::default())
        }
        other => Ok(other?),
    }
}

/// The name in one alternative such as `python3:any (>= 3.11~) [amd64] <!nocheck>`.
fn dependency_name(alternative: &str) -> &str {
    let end = alternative.find(['(', '[', '<']).unwrap_or(alternative.len());
    let name = alternative.get(..end).unwrap_or_default().trim();
    name.split_once(':').map_or(name, |(name, _architecture)| name)
}

/// Debian policy 5.6.1: lower-case letters, digits, `+ - .`, at least two characters, the first a letter or digit.
fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = include_str!("fixtures/dpkg_status");

    fn index_of(texts: &[(&str, Source)]) -> Index {
        let mut index = Index::default();
        for (text, source) in texts {
            index.read(text.as_bytes(), *source).expect("the fixture is well formed");
        }
        index
    }

    fn lines_of(index: &Index, limit: Option<u64>) -> Vec<String> {
        let mut bytes = Vec::new();
        index.write(&mut bytes, limit).expect("memory takes every byte");
        String::from_utf8(bytes).expect("the lines are UTF-8").lines().map(str::to_owned).collect()
    }

    #[test]
    fn installed_packages_become_entities_and_their_dependencies_relationships() {
        let lines = lines_of(&index_of(&[(STATUS, Source::Status)]), None);
        let expected = [
            r#"{"op":"put","key":"pkg/bash","value":"5.2.15-2+b8 shells"}"#,
            r#"{"op":"relate","resource":"pkg:base-files","relation":"required_by","subject":"pkg:bash"}"#,
            r#"{"op":"relate","resource":"pkg:debianutils","relation":"required_by","subject":"pkg:bash"}"#,
            r#"{"op":"relate","resource":"pkg:libc6","relation":"required_by","subject":"pkg:bash"}"#,
            r#"{"op":"relate","resource":"pkg:libtinfo6","relation":"required_by","subject":"pkg:bash"}"#,
            r#"{"op":"put","key":"pkg/libc6","value":"2.36-9+deb12u10 libs"}"#,
            r#"{"op":"relate","resource":"pkg:gcc-12-base","relation":"required_by","subject":"pkg:libc6"}"#,
            r#"{"op":"relate","resource":"pkg:libcrypt1","relation":"required_by","subject":"pkg:libc6"}"#,
            r#"{"op":"relate","resource":"pkg:libgcc-s1","relation":"required_by","subject":"pkg:libc6"}"#,
            r#"{"op":"put","key":"pkg/python3-demo","value":"1:3.1~rc1"}"#,
            r#"{"op":"relate","resource":"pkg:default-mta","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:libc0.3","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:libc6","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:libc6.1","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:libstdc++6","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:mail-transport-agent","relation":"required_by","subject":"pkg:python3-demo"}"#,
            r#"{"op":"relate","resource":"pkg:python3","relation":"required_by","subject":"pkg:python3-demo"}"#,
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_installed_version_wins_over_the_available_one_and_dependencies_add_up() {
        let available =
            "Package: bash\nVersion: 9\nSection: new\nDepends: libnew1\n\nPackage: zsh\nVersion: 5.9\n";
        let index = index_of(&[(STATUS, Source::Status), (available, Source::Available)]);
        let bash = index.packages.get("bash").expect("bash is there");
        assert_eq!(bash.value, "5.2.15-2+b8 shells");
        assert!(bash.needs.contains("libnew1") && bash.needs.contains("libc6"));
        assert_eq!(index.packages.get("zsh").expect("zsh is available").value, "5.9");
    }

    #[test]
    fn a_package_that_is_not_installed_and_a_folded_description_add_nothing() {
        let index = index_of(&[(STATUS, Source::Status)]);
        assert!(!index.packages.contains_key("oldpkg"));
        assert_eq!(index.packages.get("bash").expect("bash is there").needs.len(), 4);
        assert_eq!(index.malformed, 0);
    }

    #[test]
    fn the_limit_cuts_a_prefix_of_the_full_output() {
        let index = index_of(&[(STATUS, Source::Status)]);
        let all = lines_of(&index, None);
        for limit in [0, 1, 3, 6, 17, 99] {
            let cut = lines_of(&index, Some(limit as u64));
            assert_eq!(cut, all.get(..limit.min(all.len())).expect("a prefix"));
        }
    }

    #[test]
    fn names_that_no_package_can_have_are_counted_and_left_out() {
        let text = "Package: Bad Name\nVersion: 1\n\nPackage: good\nVersion: 1\nDepends: ok-one, B@d, ${shlibs:Depends}\n";
        let index = index_of(&[(text, Source::Available)]);
        assert_eq!(index.packages.len(), 1);
        assert_eq!(index.malformed, 3);
        assert_eq!(index.dependencies(), 1);
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused() {
        let text = format!("Package: a1\nDepends: {}\n", "x".repeat(LINE_BYTES_MAX as usize));
        assert!(Index::default().read(text.as_bytes(), Source::Available).is_err());
    }
}

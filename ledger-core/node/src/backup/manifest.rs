//! The manifest of a backup: which files belong to it, in order, with their hashes.
//!
//! Lines of JSON: what it is, a line per file, and a line with the SHA-256 of the lines before it.

use ledger_core::names::LedgerId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const FORMAT: &str = "strongroom.backup";
/// The newest version that is known: a base of the entry that the file before it ends with.
const VERSION: u32 = 2;
/// What is written as long as it suffices, so that older programs read it.
const VERSION_OLDEST: u32 = 1;
/// Longest manifest: more than a hundred thousand files.
pub(super) const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Digits of an index in a name, so that names sort as indexes do.
const INDEX_DIGITS: usize = 20;

/// What a file of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A snapshot: a chain begins with it.
    Base,
    /// Everything since the file before it.
    Increment,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupFile {
    /// Its name in the folder.
    pub file: String,
    /// What it is.
    pub kind: FileKind,
    /// Index of the log entry after which it begins; 0 of a base.
    pub after: u64,
    /// Index of the last log entry that it covers.
    pub through: u64,
    /// Term of that entry.
    pub term: u64,
    /// When it was begun, unix milliseconds by the node's clock.
    pub created_at_ms: u64,
    /// Time of its last record, unix milliseconds; 0 of a base, and when there is none.
    pub last_time_ms: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 over all of them, hex.
    pub sha256: String,
    /// Vaults at its end.
    pub vaults: u64,
    /// Blocks in an increment; 0 of a base.
    pub blocks: u64,
    /// Transactions in an increment; 0 of a base.
    pub transactions: u64,
    /// Commands without a block in an increment; 0 of a base.
    pub commands: u64,
}

impl BackupFile {
    /// The name that a file with this content has behind the files that are there: a base that was written anew without a
    /// new entry is counted.
    pub fn name_of(before: &[Self], kind: FileKind, after: u64, through: u64) -> String {
        let digits = INDEX_DIGITS;
        match kind {
            FileKind::Base => match before.iter().filter(|file| file.is_base_of(through)).count() {
                0 => format!("{through:0digits$}.base"),
                earlier => format!("{through:0digits$}-{earlier}.base"),
            },
            FileKind::Increment => format!("{after:0digits$}-{through:0digits$}.blocks"),
        }
    }

    fn is_base_of(&self, through: u64) -> bool {
        self.kind == FileKind::Base && self.through == through
    }
}

/// A manifest was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The last line does not have the hash of those before it.
    #[error("its SHA-256 does not match its content, or it is cut off: take another copy of the backup")]
    Checksum,
    /// A newer program wrote it.
    #[error("it has version {found}; this program reads {VERSION}. Use the release that wrote it")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A line is not what it should be.
    #[error("line {line} is none of a manifest: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// Why.
        what: String,
    },
    /// The files do not follow one another.
    #[error("{file} does not follow the file before it")]
    Order {
        /// Its name.
        file: String,
    },
    /// It is too long.
    #[error("it has more than {MANIFEST_BYTES_MAX} bytes")]
    TooLarge,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstLine {
    format: String,
    version: u32,
    ledger_id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    sha256: String,
}

/// Which files belong to a backup, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger.
    pub ledger_id: LedgerId,
    /// The files: a base, then others.
    pub files: Vec<BackupFile>,
}

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let body = text.strip_suffix('\n').ok_or(ManifestError::Checksum)?;
        let (lines, last) = body.rsplit_once('\n').ok_or(ManifestError::Checksum)?;
        let last: LastLine = serde_json::from_str(last).map_err(|_| ManifestError::Checksum)?;
        let covered = text.get(..lines.len().saturating_add(1)).unwrap_or_default();
        if last.sha256 != hex::encode(Sha256::digest(covered.as_bytes())) {
            return Err(ManifestError::Checksum);
        }
        let mut lines = lines.lines();
        let refused = |line: usize, what: String| ManifestError::Line { line, what };
        let first: FirstLine = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|error| refused(1, error.to_string()))?;
        if first.format != FORMAT {
            return Err(refused(1, format!("its format is {:?}", first.format)));
        }
        if !(VERSION_OLDEST..=VERSION).contains(&first.version) {
            return Err(ManifestError::Version { found: first.version });
        }
        let mut id = [0; 16];
        hex::decode_to_slice(&first.ledger_id, &mut id).map_err(|error| refused(1, error.to_string()))?;
        let mut files = Vec::new();
        for (number, line) in (2..).zip(lines) {
            let file: BackupFile =
                serde_json::from_str(line).map_err(|error| refused(number, error.to_string()))?;
            follows(&files, &file)?;
            files.push(file);
        }
        if version_of(&files) > first.version {
            return Err(refused(
                1,
                "its version knows no base of the entry that the file before it ends with".to_owned(),
            ));
        }
        Ok(Self { ledger_id: LedgerId(id), files })
    }

    /// The text of the manifest.
    ///
    /// # Errors
    ///
    /// When it does not encode, or a file does not follow the one before it.
    pub fn encode(&self) -> Result<String, ManifestError> {
        let refused = |error: serde_json::Error| ManifestError::Line { line: 0, what: error.to_string() };
        let version = version_of(&self.files);
        let first = FirstLine { format: FORMAT.to_owned(), version, ledger_id: self.ledger_id.to_string() };
        let mut text = serde_json::to_string(&first).map_err(refused)?;
        text.push('\n');
        for (number, file) in self.files.iter().enumerate() {
            follows(self.files.get(..number).unwrap_or_default(), file)?;
            text.push_str(&serde_json::to_string(file).map_err(refused)?);
            text.push('\n');
        }
        let last = LastLine { sha256: hex::encode(Sha256::digest(text.as_bytes())) };
        text.push_str(&serde_json::to_string(&last).map_err(refused)?);
        text.push('\n');
        if text.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge);
        }
        Ok(text)
    }

    /// The files as chains: each a base and the increments that go on from it.
    pub fn chains(&self) -> Vec<&[BackupFile]> {
        self.files.chunk_by(|_, next| next.kind == FileKind::Increment).collect()
    }

    /// The newest file.
    pub fn newest(&self) -> Option<&BackupFile> {
        self.files.last()
    }
}

/// The version that a manifest of these files needs.
fn version_of(files: &[BackupFile]) -> u32 {
    let is_of_one_entry = |pair: &[BackupFile]| match pair {
        [before, next] => next.kind == FileKind::Base && next.through == before.through,
        _ => false,
    };
    if files.windows(2).any(is_of_one_entry) { VERSION } else { VERSION_OLDEST }
}

/// A name is what the content says, so it leads nowhere else.
fn follows(before: &[BackupFile], file: &BackupFile) -> Result<(), ManifestError> {
    // Bases of one entry stand together: no others are counted.
    let of_this_entry =
        before.len() - before.iter().rev().take_while(|older| older.through == file.through).count();
    let counted = before.get(of_this_entry..).unwrap_or_default();
    let named = file.file == BackupFile::name_of(counted, file.kind, file.after, file.through);
    let placed = match (before.last(), file.kind) {
        (None, FileKind::Base) => file.after == 0,
        (Some(before), FileKind::Base) => file.after == 0 && file.through >= before.through,
        (Some(before), FileKind::Increment) => file.after == before.through && file.through > file.after,
        (None, FileKind::Increment) => false,
    };
    if named && placed { Ok(()) } else { Err(ManifestError::Order { file: file.file.clone() }) }
}

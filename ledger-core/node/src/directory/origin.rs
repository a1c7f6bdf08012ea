//! `origin`: the marker that a copy of a directory breaks, as lines of text.
//!
//! It says which file of the file system it is itself. A copy of it is another file, and a copy that overwrites it says
//! of this file what was true of an earlier one: the marker is a new file after every sound open.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{DirectoryError, durable_file, read_text};

/// The first words of the file, before its version.
const FILE_WORDS: &str = "strongroom origin ";
const VERSION: u32 = 1;
/// Stands where the file system does not tell when a file was made.
const NOTHING: &str = "-";

/// Whether a directory is the one that its node worked on last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// It is, as far as can be seen. So is one of a release that left no marker.
    Original,
    /// It was copied or restored: what the node did after that is missing.
    Copy,
}

/// Which file of which file system a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    device: u64,
    inode: u64,
    /// When it was made, in nanoseconds since 1970. Numbers of inodes are used again, moments are not.
    born_ns: Option<u128>,
}

/// What the marker says.
pub(super) fn check(path: &Path) -> Result<Provenance, DirectoryError> {
    let unreadable = |source| DirectoryError::Io { action: "read", path: path.to_owned(), source };
    let text = match read_text(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Provenance::Original),
        // Text of another encoding is no marker of ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Provenance::Copy),
        Err(source) => return Err(unreadable(source)),
    };
    let found = std::fs::metadata(path).map(|metadata| Origin::of(&metadata)).map_err(unreadable)?;
    match Origin::parse(&text) {
        Some(stored) if stored.is_same(found) => Ok(Provenance::Original),
        _ => Ok(Provenance::Copy),
    }
}

/// Makes the marker anew.
pub(super) fn renew(path: &Path) -> Result<(), DirectoryError> {
    let content = |file: &File| Ok(Origin::of(&file.metadata()?).to_text().into_bytes());
    durable_file::write_telling(path, content, 0o600)
}

impl Origin {
    fn of(metadata: &Metadata) -> Self {
        let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born_ns = born.map(|born| born.as_nanos()).filter(|born| *born != 0);
        Self { device: metadata.dev(), inode: metadata.ino(), born_ns }
    }

    /// The number of a device may be another one after a restart of the machine: it counts only where nothing better is
    /// known.
    fn is_same(self, other: Self) -> bool {
        let is_as_old = match (self.born_ns, other.born_ns) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        };
        self.inode == other.inode && is_as_old
    }

    fn to_text(self) -> String {
        let Self { device, inode, born_ns } = self;
        let born = born_ns.map_or_else(|| NOTHING.to_owned(), |born| born.to_string());
        format!("{FILE_WORDS}{VERSION}\ndevice {device}\ninode {inode}\nborn {born}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name);
        if field(FILE_WORDS)?.parse() != Ok(VERSION) {
            return None;
        }
        let device = field("device ")?.parse().ok()?;
        let inode = field("inode ")?.parse().ok()?;
        let born_ns = match field("born ")? {
            NOTHING => None,
            born => Some(born.parse().ok()?),
        };
        Some(Self { device, inode, born_ns }).filter(|_| lines.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin =
        Origin { device: 65_024, inode: 246_951, born_ns: Some(1_795_298_708_000_000_001) };

    #[test]
    fn the_layout_is_frozen_and_what_does_not_fit_it_is_no_origin() {
        let text = "strongroom origin 1\ndevice 65024\ninode 246951\nborn 1795298708000000001\n";
        assert_eq!(ORIGIN.to_text(), text);
        let unknown = Origin { born_ns: None, ..ORIGIN };
        assert_eq!(unknown.to_text(), "strongroom origin 1\ndevice 65024\ninode 246951\nborn -\n");
        for origin in [ORIGIN, unknown] {
            assert_eq!(Origin::parse(&origin.to_text()), Some(origin));
        }
        for bad in [
            "",
            &text.replace("origin 1", "origin 2"),
            &text.replace("inode", "node"),
            &text[..40],
            &format!("{text}-\n"),
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn inode_and_moment_decide_and_the_device_only_where_the_moment_is_unknown() {
        let renumbered = Origin { device: 1, ..ORIGIN };
        assert!(ORIGIN.is_same(renumbered));
        assert!(!ORIGIN.is_same(Origin { inode: 1, ..ORIGIN }));
        assert!(!ORIGIN.is_same(Origin { born_ns: Some(1), ..ORIGIN }));
        let unknown = Origin { born_ns: None, ..ORIGIN };
        assert!(ORIGIN.is_same(unknown) && unknown.is_same(ORIGIN));
        assert!(!unknown.is_same(Origin { device: 1, ..unknown }));
    }
}

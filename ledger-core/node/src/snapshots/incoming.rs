//! The part of a snapshot that has arrived. It survives a restart, so that the transfer goes on where it was.
//!
//! `snapshots/incoming.part` holds the bytes, `snapshots/incoming.offer` says what they are to become and how many of
//! them are durable; `docs/formats.md` has its layout.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger_core::ports::LogId;
use ledger_verify::Hash;
use ledger_verify::hash::sha256;

/// The bytes that have arrived.
pub(super) const PART: &str = "incoming.part";
/// What they are.
pub(super) const OFFER: &str = "incoming.offer";
const MAGIC: [u8; 8] = *b"SRINCO\x1a\n";
const FORMAT: u8 = 1;
/// Magic, format, id, bytes, term, index, durable bytes, SHA-256 over all before it.
const OFFER_BYTES: usize = 8 + 1 + 32 + 8 + 8 + 8 + 8 + 32;
/// Bytes that are made durable at a time; as many are sent again at most after a crash of the receiver.
const SYNC_EVERY_BYTES: u64 = 16 << 20;

/// What a peer has offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The SHA-256 at the end of the file.
    pub id: Hash,
    /// Bytes of the file.
    pub bytes: u64,
    /// The last log entry in it.
    pub last: LogId,
}

/// A snapshot of which some bytes are there.
#[derive(Debug)]
pub(super) struct Incoming {
    folder: PathBuf,
    file: File,
    pub offered: Offered,
    /// Bytes that are there.
    pub have: u64,
    durable: u64,
}

impl Incoming {
    /// Begins with nothing, in place of whatever was there.
    pub fn begin(folder: &Path, offered: Offered) -> io::Result<Self> {
        discard(folder)?;
        let part = folder.join(PART);
        let file = private().create(true).truncate(true).open(part)?;
        let incoming = Self { folder: folder.to_owned(), file, offered, have: 0, durable: 0 };
        incoming.note()?;
        Ok(incoming)
    }

    /// Goes on with what an earlier process left; `None` when that is nothing that can be used.
    pub fn resume(folder: &Path) -> io::Result<Option<Self>> {
        let noted = match std::fs::read(folder.join(OFFER)) {
            Ok(noted) => decode(&noted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let opened = noted.map(|noted| (noted, private().open(folder.join(PART))));
        let Some(((offered, durable), Ok(file))) = opened else {
            discard(folder)?;
            return Ok(None);
        };
        if file.metadata()?.len() < durable || durable > offered.bytes {
            discard(folder)?;
            return Ok(None);
        }
        // What was not durable may be anything after a power cut.
        file.set_len(durable)?;
        Ok(Some(Self { folder: folder.to_owned(), file, offered, have: durable, durable }))
    }

    /// Adds the next bytes; no more than were offered.
    pub fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let end = self.have.saturating_add(data.len() as u64);
        if end > self.offered.bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all_at(data, self.have)?;
        self.have = end;
        if self.have - self.durable >= SYNC_EVERY_BYTES || self.is_complete() {
            self.file.sync_data()?;
            self.durable = self.have;
            self.note()?;
        }
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.have == self.offered.bytes
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join(PART)
    }

    /// Says durably what is there.
    fn note(&self) -> io::Result<()> {
        let unfinished = self.folder.join(format!("{OFFER}.new"));
        let mut file = private().create(true).truncate(true).open(&unfinished)?;
        file.write_all(&encode(&self.offered, self.durable))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, self.folder.join(OFFER))?;
        File::open(&self.folder)?.sync_all()
    }
}

/// Removes what has arrived of any snapshot.
pub(super) fn discard(folder: &Path) -> io::Result<()> {
    // Without the offer nobody takes the bytes for anything.
    for name in [OFFER, PART] {
        match std::fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn encode(offered: &Offered, durable: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OFFER_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&offered.id);
    for number in [offered.bytes, offered.last.term, offered.last.index, durable] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&sha256(&[&bytes]));
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Offered, u64)> {
    let (content, checksum) = bytes.split_last_chunk::<32>()?;
    if bytes.len() != OFFER_BYTES || sha256(&[content]) != *checksum {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<8>()?;
    let (format, rest) = rest.split_first()?;
    let (id, rest) = rest.split_first_chunk::<32>()?;
    let ([bytes, term, index, durable], []) = rest.as_chunks::<8>() else { return None };
    if *magic != MAGIC || *format != FORMAT {
        return None;
    }
    let number = |field: &[u8; 8]| u64::from_be_bytes(*field);
    let last = LogId { term: number(term), node: 0, index: number(index) };
    Some((Offered { id: *id, bytes: number(bytes), last }, number(durable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: Offered =
        Offered { id: [7; 32], bytes: 40 << 20, last: LogId { term: 3, node: 0, index: 9 } };

    #[test]
    fn what_was_durable_is_there_after_a_restart_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::begin(dir.path(), OFFERED).unwrap();
        for _ in 0..20 {
            incoming.append(&vec![1; 1 << 20]).unwrap();
        }
        drop(incoming);
        let incoming = Incoming::resume(dir.path()).unwrap().unwrap();
        assert_eq!((incoming.offered, incoming.have), (OFFERED, SYNC_EVERY_BYTES));
        assert_eq!(std::fs::metadata(incoming.path()).unwrap().len(), SYNC_EVERY_BYTES);
    }

    #[test]
    fn a_damaged_offer_or_a_part_that_is_too_short_is_not_gone_on_with() {
        for damage in 0..3 {
            let dir = tempfile::tempdir().unwrap();
            let mut incoming = Incoming::begin(dir.path(), OFFERED).unwrap();
            incoming.append(&vec![1; 17 << 20]).unwrap();
            let offer = dir.path().join(OFFER);
            match damage {
                0 => incoming.file.set_len(5).unwrap(),
                1 => {
                    let mut bytes = std::fs::read(&offer).unwrap();
                    bytes[20] ^= 1;
                    std::fs::write(&offer, bytes).unwrap();
                }
                _ => std::fs::remove_file(dir.path().join(PART)).unwrap(),
            }
            assert!(Incoming::resume(dir.path()).unwrap().is_none(), "{damage}");
            assert!(!offer.exists(), "{damage}");
        }
    }

    #[test]
    fn no_more_bytes_are_taken_than_were_offered() {
        let dir = tempfile::tempdir().unwrap();
        let mut incoming = Incoming::begin(dir.path(), Offered { bytes: 10, ..OFFERED }).unwrap();
        incoming.append(&[1; 7]).unwrap();
        assert!(incoming.append(&[1; 4]).is_err());
        incoming.append(&[1; 3]).unwrap();
        assert!(incoming.is_complete());
    }
}

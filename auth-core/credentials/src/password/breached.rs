//! The filter of breached passwords: a file that the operator supplies, asked without a network.
//!
//! A binary fuse filter (Graf and Lemire, 2022) over the first 8 bytes of SHA-1, the form in which lists of breached passwords are
//! published: about 9 bits for each password, 1 GB for a thousand million. A password of the list is always found; of others, one in
//! 256 is found too. The layout is in `docs/formats.md`.

use super::Password;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable as _, Filter as _, FilterRef as _};

/// At most so many passwords fit one filter: positions in it have 32 bits.
pub const BREACHED_KEYS_MAX: u64 = 3_000_000_000;

const MAGIC: [u8; 4] = *b"SRBF";
const VERSION: u16 = 1;
const KIND_SHA1_FUSE8: u16 = 1;
/// magic 4, version 2, kind 2, number of passwords 8, descriptor 20, length of the fingerprints 4, SHA-256 32.
const HEADER_BYTES: usize = 72;
const DESCRIPTOR: core::ops::Range<usize> = 16..36;
const CHECKSUM: core::ops::Range<usize> = 40..72;
/// Of the construction: segments are powers of two up to this.
const SEGMENT_MAX: u32 = 262_144;

/// Why bytes are no filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterRefused {
    /// Not such a file.
    #[error("not a filter of breached passwords")]
    NotAFilter,
    /// A version or kind that this program does not know.
    #[error("a filter of version {version} and kind {kind}, which this program does not know")]
    Unknown {
        /// Its version.
        version: u16,
        /// Its kind.
        kind: u16,
    },
    /// The parts do not fit each other or the file's length.
    #[error("a damaged filter: its parts do not fit each other")]
    Inconsistent,
    /// The checksum does not match.
    #[error("a damaged filter: its checksum does not match")]
    Checksum,
}

/// Why no filter was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterBuildError {
    /// More than [`BREACHED_KEYS_MAX`].
    #[error("more than {BREACHED_KEYS_MAX} passwords")]
    TooMany,
    /// The construction found no arrangement, which it does once in very many times.
    #[error("no filter was found for these passwords")]
    NotFound,
}

/// A filter over bytes that the caller holds: read from a file, or mapped.
pub struct BreachedFilter<B> {
    bytes: B,
    passwords: u64,
}

impl<B: AsRef<[u8]>> BreachedFilter<B> {
    /// Checks everything that a lookup relies on, and the checksum over all bytes: about a second for each gigabyte.
    pub fn open(bytes: B) -> Result<Self, FilterRefused> {
        let passwords = check(bytes.as_ref())?;
        Ok(Self { bytes, passwords })
    }

    /// How many passwords it was built of.
    pub fn passwords(&self) -> u64 {
        self.passwords
    }

    /// Whether the password is in the list, or is one of the 1 in 256 that are taken for one.
    pub fn contains(&self, password: &Password) -> bool {
        let bytes = self.bytes.as_ref();
        // `open` saw both ranges; bytes that change behind its back are taken for "not there".
        let (Some(descriptor), Some(fingerprints)) = (bytes.get(DESCRIPTOR), bytes.get(HEADER_BYTES..))
        else {
            return false;
        };
        BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&key_of(&sha1(password.as_bytes())))
    }
}

impl<B> core::fmt::Debug for BreachedFilter<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "BreachedFilter({} passwords)", self.passwords)
    }
}

/// Makes the file of a list of SHA-1 hashes, in any order, repetitions allowed. Takes tens of bytes of memory for each.
pub fn build_breached_filter(
    hashes: impl IntoIterator<Item = [u8; 20]>,
) -> Result<Vec<u8>, FilterBuildError> {
    let mut keys: Vec<u64> = hashes.into_iter().map(|hash| key_of(&hash)).collect();
    keys.sort_unstable();
    keys.dedup();
    let passwords = keys.len() as u64;
    if passwords > BREACHED_KEYS_MAX {
        return Err(FilterBuildError::TooMany);
    }
    let filter = BinaryFuse8::try_from(&keys).map_err(|_| FilterBuildError::NotFound)?;
    let fingerprints = filter.dma_fingerprints();
    let length = u32::try_from(fingerprints.len()).map_err(|_| FilterBuildError::TooMany)?;
    let mut descriptor = [0; BinaryFuse8::DESCRIPTOR_LEN];
    filter.dma_copy_descriptor_to(&mut descriptor);

    let mut file = Vec::with_capacity(HEADER_BYTES + fingerprints.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&VERSION.to_be_bytes());
    file.extend_from_slice(&KIND_SHA1_FUSE8.to_be_bytes());
    file.extend_from_slice(&passwords.to_be_bytes());
    file.extend_from_slice(&descriptor);
    file.extend_from_slice(&length.to_be_bytes());
    let checksum = checksum(&file, fingerprints);
    file.extend_from_slice(&checksum);
    file.extend_from_slice(fingerprints);
    Ok(file)
}

fn check(bytes: &[u8]) -> Result<u64, FilterRefused> {
    let (header, fingerprints) = bytes.split_at_checked(HEADER_BYTES).ok_or(FilterRefused::NotAFilter)?;
    let mut fields = Fields(header);
    if fields.take() != Some(MAGIC) {
        return Err(FilterRefused::NotAFilter);
    }
    let inconsistent = FilterRefused::Inconsistent;
    let version = fields.take().map(u16::from_be_bytes).ok_or(inconsistent)?;
    let kind = fields.take().map(u16::from_be_bytes).ok_or(inconsistent)?;
    if (version, kind) != (VERSION, KIND_SHA1_FUSE8) {
        return Err(FilterRefused::Unknown { version, kind });
    }
    let passwords = fields.take().map(u64::from_be_bytes).ok_or(inconsistent)?;
    let _seed = fields.take().map(u64::from_le_bytes).ok_or(inconsistent)?;
    let segment = fields.take().map(u32::from_le_bytes).ok_or(inconsistent)?;
    let mask = fields.take().map(u32::from_le_bytes).ok_or(inconsistent)?;
    let segments_length = fields.take().map(u32::from_le_bytes).ok_or(inconsistent)?;
    let length = fields.take().map(u32::from_be_bytes).ok_or(inconsistent)?;
    // A position is `h < segments_length`, then `h + segment` and `h + 2 · segment` with bits below `segment` changed: with whole
    // segments of a power of two, all three are below `segments_length + 2 · segment`, which is therefore the length.
    let whole = segment.is_power_of_two()
        && segment <= SEGMENT_MAX
        && mask == segment - 1
        && segments_length != 0
        && segments_length & mask == 0;
    let expected = u64::from(segments_length) + 2 * u64::from(segment);
    if !whole || u64::from(length) != expected || fingerprints.len() as u64 != expected {
        return Err(inconsistent);
    }
    let (before, _) = header.split_at_checked(CHECKSUM.start).ok_or(inconsistent)?;
    if header.get(CHECKSUM) != Some(checksum(before, fingerprints).as_slice()) {
        return Err(FilterRefused::Checksum);
    }
    Ok(passwords)
}

fn checksum(before: &[u8], fingerprints: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(fingerprints).finalize().into()
}

/// The first 8 bytes of the SHA-1, big-endian.
fn key_of(sha1: &[u8; 20]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *sha1;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// SHA-1 is what the published lists are made of; nothing depends on its strength.
fn sha1(bytes: &[u8]) -> [u8; 20] {
    use aws_lc_rs::digest;
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    // SHA-1 has 20 bytes; zeros would be in no list.
    digest.as_ref().try_into().unwrap_or([0; 20])
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

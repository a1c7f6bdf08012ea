//! `node_id`: who this node is, as decimal text.
//!
//! A node id is never given to another node: one that starts with an empty log under the id of another
//! could elect itself on what the other had promised. So it is minted, not configured: 41 bits of
//! milliseconds since 2024, 16 random bits, 6 bits of sequence.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ferroid::generator::AtomicSnowflakeGenerator;
use ferroid::time::TimeSource;

use super::{DirectoryError, durable_file, random_bytes, read_text};

ferroid::define_snowflake_id!(
    NodeSnowflake, u64,
    reserved: 1,
    timestamp: 41,
    machine_id: 16,
    sequence: 6
);

/// 2024-01-01T00:00:00Z in unix milliseconds.
const EPOCH_MS: u64 = 1_704_067_200_000;

struct SinceEpoch;

impl TimeSource<u64> for SinceEpoch {
    fn current_millis(&self) -> u64 {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(unix.as_millis()).unwrap_or(u64::MAX).saturating_sub(EPOCH_MS)
    }
}

pub(super) fn read_or_mint(path: &Path, is_new: bool) -> Result<u64, DirectoryError> {
    match read_text(path) {
        Ok(text) => {
            text.trim_end().parse().ok().filter(|id| *id != 0).ok_or_else(|| DirectoryError::Damaged {
                path: path.to_owned(),
                reason: "it is not a positive number".to_owned(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_new => mint(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DirectoryError::Missing { path: path.to_owned() })
        }
        Err(source) => Err(DirectoryError::Io { action: "read", path: path.to_owned(), source }),
    }
}

fn mint(path: &Path) -> Result<u64, DirectoryError> {
    let random = u64::from(u16::from_be_bytes(random_bytes()?));
    let generator = AtomicSnowflakeGenerator::<NodeSnowflake, _>::new(random, SinceEpoch);
    // One id from a fresh generator: its sequence cannot be exhausted, so the wait never happens.
    let id = generator.next_id(|_| std::thread::yield_now()).to_raw();
    durable_file::write(path, format!("{id}\n").as_bytes(), 0o600)?;
    Ok(id)
}

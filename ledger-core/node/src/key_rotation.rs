//! Replacing the key that signs checkpoints, while nobody serves the ledger.
//!
//! The new key has the name of the old one. Nothing that was signed is signed again: clients that trusted the old key
//! are told of the new one, and a checkpoint under it must extend the last one that they saw, as ever.

use ledger_core::ports::{LogKind, StoreError};
use ledger_verify::note::{NoteError, SigningKey, VerifierKey};
use zeroize::Zeroizing;

use crate::directory::{DataDirectory, DirectoryError, key_name, random_bytes};
use crate::ledger::Stores;
use crate::raft;

/// How much of the log is read at once.
const READ_BYTES: usize = 4 * 1_048_576;

/// A key was replaced by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedKey {
    /// Signed until now. Its private part is gone.
    pub old: VerifierKey,
    /// Signs from now on.
    pub new: VerifierKey,
}

/// A key was not replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Other nodes hold the same key: they would go on to sign with the old one.
    #[error(
        "the ledger has {count} members, and all of them hold its key: a key is rotated on a ledger of one node. Remove the \
         other members, rotate, and take them in again with empty directories"
    )]
    Members {
        /// How many.
        count: usize,
    },
    /// A membership in the stores does not decode.
    #[error("the stores hold a membership that cannot be read: {reason}")]
    Membership {
        /// Why.
        reason: String,
    },
    /// The stores cannot be read.
    #[error("the stores cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The directory cannot be written, or there is no randomness.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The ledger's name makes no key's name.
    #[error("no key can be made for this ledger: {0}")]
    Key(#[from] NoteError),
}

/// Gives a ledger of one node another signing key. Clients must be told the new public key.
///
/// # Errors
/// See [`RotationError`]; nothing was changed then.
pub fn rotate_key(directory: &mut DataDirectory, stores: &Stores) -> Result<RotatedKey, RotationError> {
    let count = most_members(stores)?;
    if count > 1 {
        return Err(RotationError::Members { count });
    }
    let seed = Zeroizing::new(random_bytes::<32>()?);
    let key = SigningKey::from_seed(&key_name(directory.ledger_id()), &seed)?;
    let rotated = RotatedKey { old: directory.signing_key().verifier_key(), new: key.verifier_key() };
    directory.replace_key(key)?;
    Ok(rotated)
}

/// Members of the newest membership that the state holds, or of any that stands in the log after it.
fn most_members(stores: &Stores) -> Result<usize, RotationError> {
    let count = |bytes: &[u8]| {
        raft::member_count(bytes).map_err(|error| RotationError::Membership { reason: error.to_string() })
    };
    let applied = stores.state.applied()?;
    let mut most = applied.as_ref().map_or(Ok(0), |applied| count(&applied.membership))?;
    let log = stores.log.snapshot()?;
    let end = log.last.map_or(0, |last| last.index.saturating_add(1));
    let mut from = applied.map_or(0, |applied| applied.last_applied.index.saturating_add(1));
    if let Some(purged) = log.purged {
        from = from.max(purged.index.saturating_add(1));
    }
    while from < end {
        let records = stores.log.read(from, end, READ_BYTES)?;
        let Some(last) = records.last() else { break };
        from = last.id.index.saturating_add(1);
        for record in records.iter().filter(|record| record.kind == LogKind::Membership) {
            most = most.max(count(&record.payload)?);
        }
    }
    Ok(most)
}

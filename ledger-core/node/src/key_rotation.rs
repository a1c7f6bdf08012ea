//! Replacing the key that signs checkpoints, while nobody serves the ledger.
//!
//! The new key has the name of the old one. Nothing that was signed is signed again: clients that trusted the old key
//! are told of the new one, and a checkpoint under it must extend the last one that they saw, as ever.

use ledger_core::ports::StoreError;
use ledger_verify::note::{NoteError, SigningKey, VerifierKey};
use zeroize::Zeroizing;

use crate::directory::{DataDirectory, DirectoryError, key_name, random_bytes};
use crate::forming::{StoredMembersError, stored_members};
use crate::ledger::Stores;

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
    /// The node is no member any more: others go on with the ledger and its key.
    #[error(
        "this node was taken out of its cluster, which goes on with the ledger's key: rotate it on the one member that is left \
         there"
    )]
    TakenOut,
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
    check_alone(directory.node_id(), stores)?;
    let seed = Zeroizing::new(random_bytes::<32>()?);
    let key = SigningKey::from_seed(&key_name(directory.ledger_id()), &seed)?;
    let rotated = RotatedKey { old: directory.signing_key().verifier_key(), new: key.verifier_key() };
    directory.replace_key(key)?;
    Ok(rotated)
}

/// The newest membership in the log counts, committed or not: one whose only voter is this node needs nobody else's copy,
/// and any other has nodes that hold the key.
fn check_alone(node_id: u64, stores: &Stores) -> Result<(), RotationError> {
    let members = stored_members(stores).map_err(|error| match error {
        StoredMembersError::Store(error) => RotationError::Store(error),
        StoredMembersError::Content { reason } => RotationError::Membership { reason },
    })?;
    match members.len() {
        0 => Ok(()),
        1 if members.contains_key(&node_id) => Ok(()),
        _ if !members.contains_key(&node_id) => Err(RotationError::TakenOut),
        count => Err(RotationError::Members { count }),
    }
}

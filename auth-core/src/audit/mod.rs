//! What happened, in the commit in which it did: entries in chains, each with the hash of the one before it.

mod append;
mod event;
mod verify;

pub use append::{AUDIT_SHARDS, shard_of};
pub(crate) use append::{AuditDraft, append};
pub use event::{AuditEvent, Severity};
pub use verify::{ChainBroken, ChainPoint, verify_chain};

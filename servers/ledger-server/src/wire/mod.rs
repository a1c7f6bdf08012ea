//! The protocol's messages and the ledger's values: every field of a request is checked here, and only here.

pub(crate) mod address;
pub(crate) mod cluster;
pub(crate) mod field;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod maintenance;
pub(crate) mod paging;
pub(crate) mod read;
pub(crate) mod snapshot;
pub(crate) mod token;
pub(crate) mod transaction;

pub(crate) use field::{AtField, required};
pub use field::{BadField, EXPIRES_AT_MS_MAX, FieldFault};
pub use paging::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};

/// Largest request that is decoded, in bytes: the largest transaction, and 64 KiB for the message around it.
pub const REQUEST_BYTES_MAX: usize = 4 * 1_048_576 + 65_536;
/// Largest answer that is sent, in bytes. Answers are paged at 4 MiB of content; the rest is the message around it.
pub const ANSWER_BYTES_MAX: usize = 4 * 1_048_576 + 65_536;
/// Content of one answer, in bytes.
pub const ANSWER_CONTENT_BYTES_MAX: usize = 4 * 1_048_576;

use std::path::PathBuf;
use std::sync::Arc;

use super::layout::FORMAT_VERSION;
use super::options::{NAME_BYTES_MAX, POLICIES_MAX};
use crate::redb::one_file::FileFault;

/// Why a store of counters cannot be opened, changed or asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RedbRateError {
    /// A limit whose state is no single word.
    #[error(
        "the policy {name} has a limit that a file cannot keep: use a bucket, a fixed window or a calendar quota, or \
         keep it in memory"
    )]
    Unsupported {
        /// Its policy.
        name: String,
    },
    /// Two policies of one name.
    #[error("two policies are called {name}: counters are found again by the name, give each its own")]
    SameName {
        /// The name.
        name: String,
    },
    /// A name that does not fit.
    #[error("the name of a policy has {bytes} bytes, {NAME_BYTES_MAX} is the most: shorten it")]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Too many policies.
    #[error("{policies} policies are too many, {POLICIES_MAX} is the most: merge some")]
    TooManyPolicies {
        /// How many there are.
        policies: usize,
    },
    /// The path is none of a file in a directory.
    #[error("{} names no file: give the path of a file in a directory that exists", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {name}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        name: String,
        /// What it said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another process, or this one, has the file open.
    #[error("{name} is in use by another process: stop it first, or give this one a file of its own")]
    InUse {
        /// The file.
        name: String,
    },
    /// The file is none of this kind.
    #[error("{name} is not a file of rate limit counters: give the path of one, or of a new file")]
    Foreign {
        /// The file.
        name: String,
    },
    /// A newer program wrote the file.
    #[error("{name} has format {found}, this program knows {known}: use the newer program, or another file")]
    Format {
        /// The file.
        name: String,
        /// Its version.
        found: u32,
        /// The newest that is known.
        known: u32,
    },
    /// What is in the file is not what was written.
    #[error(
        "{name} is damaged ({reason}): remove it, when clients may have their limits anew, or bring back a copy"
    )]
    Damaged {
        /// The file.
        name: String,
        /// What was found.
        reason: String,
    },
    /// The disk did not take a commit. Nothing is admitted from then on, for it is unknown what is on the disk.
    #[error(
        "the counters could not be made durable: {reason}. Make room or replace the disk, then recover or restart"
    )]
    Failed {
        /// What the engine said.
        reason: String,
    },
    /// The store was closed.
    #[error("the store of counters is closed")]
    Closed,
}

impl From<FileFault> for RedbRateError {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::NoFile { path } => Self::NoFile { path },
            FileFault::Io { action, name, source } => Self::Io { action, name, source },
            FileFault::InUse { name } => Self::InUse { name },
            FileFault::Foreign { name } => Self::Foreign { name },
            FileFault::Format { name, found } => Self::Format { name, found, known: FORMAT_VERSION },
            FileFault::Damaged { name, reason } => Self::Damaged { name, reason },
        }
    }
}

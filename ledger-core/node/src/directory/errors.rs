//! Why a data directory is not opened.

use std::io;
use std::path::PathBuf;

use ledger_core::names::LedgerId;
use ledger_verify::note::NoteError;

use super::FORMAT;
use crate::peers::{ClusterId, IdentityError, NodeName};

/// A data directory could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Something else has the path.
    #[error("{path} is not a directory: give the path of a directory, it is created when it is missing")]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be written.
    #[error("{path} is not writable for this user: {source}. Change its owner or give another path")]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by {}, and one process at a time has a data directory: stop that one first", holder(*pid))]
    Locked {
        /// The path.
        path: PathBuf,
        /// The process that holds the lock, where it left its number.
        pid: Option<u32>,
    },
    /// The layout is newer than this program.
    #[error("{path} has layout {found}; this program reads layout {FORMAT}. Use the release that wrote it")]
    FormatNewer {
        /// The path.
        path: PathBuf,
        /// The layout found.
        found: u32,
    },
    /// The layout is older than this program, and nobody has made a copy of it yet.
    #[error(
        "{path} has layout {found}; this program works with layout {FORMAT}. Start the server on it once: it copies \
         the directory and brings it up to date"
    )]
    FormatOlder {
        /// The path.
        path: PathBuf,
        /// The layout found.
        found: u32,
    },
    /// There is something where the copy before an upgrade goes.
    #[error(
        "{path} must be upgraded, which begins with a copy of it, but {copy} exists: move it away, or remove it with \
         `rm -r` if it is not needed"
    )]
    CopyExists {
        /// The data directory.
        path: PathBuf,
        /// Where the copy goes.
        copy: PathBuf,
    },
    /// There is no room for the copy before an upgrade.
    #[error(
        "{path} must be upgraded, which begins with a copy of it to {copy}: that needs {needed_bytes} bytes, and \
         {available_bytes} are available. Make room and start again"
    )]
    NoRoomForCopy {
        /// The data directory.
        path: PathBuf,
        /// Where the copy goes.
        copy: PathBuf,
        /// Bytes of the copy and a reserve.
        needed_bytes: u64,
        /// Bytes of the file system that this process may use.
        available_bytes: u64,
    },
    /// A file that belongs to the directory is missing.
    #[error("{path} is missing, but the directory holds a ledger: restore the file from a backup")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The private key is missing, as after a restore without it.
    #[error(
        "{path} is missing, but the directory holds a ledger: put its key there with `strongroom ledger key import FILE \
         --data DIR`"
    )]
    KeyMissing {
        /// The file.
        path: PathBuf,
    },
    /// Something is restored into the directory, or was until that was refused or broken off.
    #[error("{path} holds a restore that did not finish: restore into it again, or remove it")]
    RestoreUnfinished {
        /// The directory.
        path: PathBuf,
    },
    /// A ledger is restored into an empty directory only.
    #[error("{path} is not empty (it holds {found}): give a directory that is empty or missing")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// A file has not the content that it should.
    #[error("{path} is damaged ({reason}): restore the file from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The private key can be read by others.
    #[error(
        "{path} may be read by others (mode {mode:03o}): run `chmod 600` on it, and rotate the key if others could read it"
    )]
    KeyPermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The private key does not parse, or cannot be minted.
    #[error("{path} is no log key: {source}")]
    Key {
        /// The key file.
        path: PathBuf,
        /// Why.
        source: NoteError,
    },
    /// The node promised itself to a cluster that others know about.
    #[error(
        "{path} belongs to a node that promised itself to cluster {cluster}, which node {coordinator} coordinates: start it \
         as it was started then, with the same --bootstrap, or remove {path} to give it up"
    )]
    Promised {
        /// The directory.
        path: PathBuf,
        /// The cluster that may exist.
        cluster: ClusterId,
        /// Who decides.
        coordinator: u64,
    },
    /// The node gave its identity up, and is to join its former cluster as a new one.
    #[error(
        "{path} was that of a node of cluster {former}, which may not go on as that node: a new one joins the cluster with it. \
         Say with --join or --discovery where the cluster's nodes are. For a ledger of its own, give an empty directory"
    )]
    Renounced {
        /// The directory.
        path: PathBuf,
        /// The cluster.
        former: ClusterId,
    },
    /// The node belongs to a cluster or to a ledger already.
    #[error("{path} belongs to a node of {}: give another directory", of_cluster(*cluster))]
    Formed {
        /// The directory.
        path: PathBuf,
        /// Its cluster, when it has one.
        cluster: Option<ClusterId>,
    },
    /// The node belongs to no ledger yet, or its key is gone.
    #[error(
        "{path} belongs to no ledger yet, or its key is missing: put the file log.key back, which every member of its cluster \
         has too; without it, restore a backup"
    )]
    Unformed {
        /// The directory.
        path: PathBuf,
    },
    /// The key in the directory is not that of the cluster's ledger.
    #[error(
        "{path} holds the key of ledger {found}, the cluster's ledger is {expected}: give another directory, or join another \
         cluster"
    )]
    OtherLedger {
        /// The key file.
        path: PathBuf,
        /// The ledger of the key found.
        found: LedgerId,
        /// The ledger of the cluster.
        expected: LedgerId,
    },
    /// A key that was rotated away here is said to sign still.
    #[error(
        "the leader of the cluster signs with {key}, which was retired in this directory: the leader missed the rotation. \
         Remove that node from the cluster, and let it join again"
    )]
    RetiredKey {
        /// The public key.
        key: String,
    },
    /// The node has another name, which its cluster knows.
    #[error(
        "{path} belongs to node {stored}, not to {given}: leave out --name, or give the name that its cluster knows"
    )]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// Its name.
        stored: NodeName,
        /// The name asked for.
        given: NodeName,
    },
    /// A text that is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness: {0}")]
    Randomness(String),
    /// Another error of the file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

fn of_cluster(cluster: Option<ClusterId>) -> String {
    cluster.map_or_else(|| "a ledger that it forms alone".to_owned(), |cluster| format!("cluster {cluster}"))
}

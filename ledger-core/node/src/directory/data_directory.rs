//! The data directory of a node that belongs to a ledger: what an engine is opened on.

use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use ledger_verify::note::SigningKey;

use super::{DirectoryError, Formation, NodeDirectory, Provenance};
use crate::peers::{ClusterId, LedgerKey, PeerIdentity};

/// The data directory of one node, locked for this process until it is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    node: NodeDirectory,
    ledger_id: LedgerId,
    signing_key: SigningKey,
    /// It was decided in memory that the node is alone; opening the ledger writes that.
    unwritten: bool,
}

impl DataDirectory {
    /// Opens or creates (mode 0700) a directory. A new one gets a node id and a log key, and with it the
    /// identity of the ledger: it belongs to a cluster of its own. One of an older layout is left as it is: see
    /// [`copied_for_upgrade`](Self::copied_for_upgrade).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DirectoryError> {
        NodeDirectory::open(path, None)?.into_data_directory()
    }

    /// A new directory under the system's temporary directory that is removed when this is dropped.
    pub fn ephemeral() -> Result<Self, DirectoryError> {
        NodeDirectory::ephemeral(None)?.into_data_directory()
    }

    pub(super) fn new(node: NodeDirectory, ledger: (LedgerId, SigningKey), unwritten: bool) -> Self {
        let (ledger_id, signing_key) = ledger;
        Self { node, ledger_id, signing_key, unwritten }
    }

    /// The directory: stores put their files here.
    pub fn path(&self) -> &Path {
        self.node.path()
    }

    /// Identity of the node, minted with the directory.
    pub fn node_id(&self) -> u64 {
        self.node.node_id()
    }

    /// Who the node is among others.
    pub fn identity(&self) -> PeerIdentity {
        self.node.identity()
    }

    /// The cluster that the node belongs to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.node.cluster_id()
    }

    /// How the node came into its cluster.
    pub fn formation(&self) -> &Formation {
        self.node.formation()
    }

    /// Whether the directory is the one that its node worked on last.
    pub fn provenance(&self) -> Provenance {
        self.node.provenance()
    }

    /// Identity of the ledger that the log key belongs to.
    pub fn ledger_id(&self) -> LedgerId {
        self.ledger_id
    }

    /// The key that signs checkpoints.
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing_key
    }

    pub(super) fn set_signing_key(&mut self, key: SigningKey) {
        self.signing_key = key;
    }

    /// The key as peers are told it.
    pub fn key(&self) -> LedgerKey {
        LedgerKey::new(self.signing_key.to_secret_text().to_string())
    }

    /// Refuses a directory of an older layout.
    ///
    /// # Errors
    /// [`DirectoryError::FormatOlder`].
    pub fn require_present_layout(&self) -> Result<(), DirectoryError> {
        self.node.require_present_layout()
    }

    /// Makes a complete copy of a directory of an older layout, `PATH.format-N`, so that its files may be brought
    /// up to date; [`Ledger::open`](crate::Ledger::open) finishes that. Does nothing to a directory of the present
    /// layout. A crash at any moment loses nothing: the next call goes on.
    ///
    /// # Errors
    /// When the copy exists already but was not made by an upgrade that was interrupted, when there is no room for
    /// it, or when it cannot be written.
    pub fn copied_for_upgrade(mut self) -> Result<Self, DirectoryError> {
        self.node = self.node.copied_for_upgrade()?;
        Ok(self)
    }

    /// Names the present layout in the format file, once the stores have it, and writes what the node is part of.
    pub(crate) fn finish_upgrade(&mut self) -> Result<(), DirectoryError> {
        self.node.finish_upgrade()?;
        if self.unwritten {
            self.node.write_cluster()?;
            self.unwritten = false;
        }
        Ok(())
    }
}

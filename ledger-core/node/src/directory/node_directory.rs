//! The data directory of a node before it opens a ledger: who it is, and what it is part of.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use ledger_core::names::LedgerId;
use ledger_verify::note::{SigningKey, VerifierKey};

use super::cluster_file::ClusterFile;
use super::{
    CLUSTER_FILE, DataDirectory, DirectoryError, FORMAT, Formation, LEDGER_FILES, LOG_KEY_FILE, NODE_ID_FILE,
    ORIGIN_FILE, PID_FILE, Promise, Provenance, RENOUNCING_FILE, RESTORING_FILE, check_format, create,
    durable_file, lock, log_key, node_id, not_writable, origin, random_bytes, upgrade, write_format,
};
use crate::peers::{ClusterId, Incarnation, LedgerKey, MemberRecord, NodeName, PeerIdentity};

/// A data directory, locked for this process until it is dropped. It becomes a [`DataDirectory`] once its node belongs
/// to a ledger.
#[derive(Debug)]
pub struct NodeDirectory {
    path: PathBuf,
    node_id: u64,
    cluster: ClusterFile,
    ledger: Option<(LedgerId, SigningKey)>,
    lifetime: Lifetime,
    layout: Layout,
    provenance: Provenance,
    /// Released by the system when the file is closed.
    _lock: File,
}

/// The layout that the format file names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Present,
    Older(u32),
    /// As before, and there is a copy of it.
    OlderAndCopied,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Kept,
    RemovedAtDrop,
}

impl NodeDirectory {
    /// Opens or creates (mode 0700) a directory. A new one gets a node id, an incarnation and the name, `node-` and
    /// four digits of the id when none is given. One of an older layout is left as it is: see
    /// [`copied_for_upgrade`](Self::copied_for_upgrade).
    ///
    /// # Errors
    /// Among others, when it belongs to a node that its cluster knows under another name.
    pub fn open(path: impl Into<PathBuf>, name: Option<NodeName>) -> Result<Self, DirectoryError> {
        Self::open_for(path.into(), name, Lifetime::Kept)
    }

    /// A new directory under the system's temporary directory that is removed when this is dropped.
    pub fn ephemeral(name: Option<NodeName>) -> Result<Self, DirectoryError> {
        let random = random_bytes::<8>()?;
        let directory = format!("strongroom-{:016x}", u64::from_be_bytes(random));
        Self::open_for(std::env::temp_dir().join(directory), name, Lifetime::RemovedAtDrop)
    }

    /// The directory: stores put their files here.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Identity of the node, minted with the directory.
    pub fn node_id(&self) -> u64 {
        self.node_id
    }

    /// Who the node is among others.
    pub fn identity(&self) -> PeerIdentity {
        PeerIdentity {
            node_id: self.node_id,
            name: self.cluster.name.clone(),
            incarnation: self.cluster.incarnation,
        }
    }

    /// The cluster that the node belongs to.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster.cluster
    }

    /// What the node is part of.
    pub fn formation(&self) -> &Formation {
        &self.cluster.formation
    }

    /// Whether the directory is the one that its node worked on last. A copy stays one, over any number of opens, until
    /// its node becomes another one, leaves its cluster, or is [taken](Self::take_as_original) for the original.
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// From now on this is the node's directory. Not for a member of a cluster: it may lack what its peers know that it
    /// acknowledged.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn take_as_original(&mut self) -> Result<(), DirectoryError> {
        self.provenance = Provenance::Original;
        self.renew_origin()
    }

    /// Whether there are files of a ledger, of whatever content.
    pub fn holds_ledger(&self) -> bool {
        LEDGER_FILES.iter().any(|name| self.path.join(name).exists())
    }

    /// The ledger's key, once there is one.
    pub fn key(&self) -> Option<LedgerKey> {
        self.ledger.as_ref().map(|(_, key)| LedgerKey::new(key.to_secret_text().to_string()))
    }

    pub(super) fn verifier_key(&self) -> Option<VerifierKey> {
        self.ledger.as_ref().map(|(_, key)| key.verifier_key())
    }

    /// Promises the node to a cluster, durably.
    ///
    /// # Errors
    /// When it belongs to one, or promised itself to another one.
    pub fn promise(&mut self, promise: Promise) -> Result<(), DirectoryError> {
        match &self.cluster.formation {
            Formation::Unformed => {}
            Formation::Promised(given) if given.cluster == promise.cluster => {}
            _ => return Err(self.refused()),
        }
        self.store(None, Formation::Promised(promise))
    }

    /// Takes a promise back: its cluster will never exist.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn release(&mut self) -> Result<(), DirectoryError> {
        match &self.cluster.formation {
            Formation::Promised(_) => self.store(None, Formation::Unformed),
            _ => Ok(()),
        }
    }

    /// Founds a cluster of this node alone; mints the ledger's key when there is none.
    ///
    /// # Errors
    /// When the node belongs to a cluster or promised itself to one.
    pub fn found_single(&mut self, cluster: ClusterId) -> Result<(), DirectoryError> {
        self.require_unformed()?;
        self.mint_key()?;
        self.store(Some(cluster), Formation::Single)
    }

    /// Founds the cluster that all its members promised themselves to; mints the ledger's key. The coordinator does
    /// this: from then on the cluster exists.
    ///
    /// # Errors
    /// When this node promised itself to another cluster, or to none.
    pub fn found(&mut self, cluster: ClusterId) -> Result<(), DirectoryError> {
        let members = self.promised_members(cluster)?;
        self.mint_key()?;
        self.store(Some(cluster), Formation::Settled { members })
    }

    /// Takes key and members of the cluster that the node promised itself to, which exists now.
    ///
    /// # Errors
    /// When this node promised itself to another cluster, or when the directory holds another ledger's key.
    pub fn settle(&mut self, cluster: ClusterId, key: &LedgerKey) -> Result<(), DirectoryError> {
        let members = self.promised_members(cluster)?;
        self.take_key(key)?;
        self.store(Some(cluster), Formation::Settled { members })
    }

    /// Takes cluster and key of the cluster that took the node in.
    ///
    /// # Errors
    /// When it belongs to another one or promised itself to one, or when the directory holds another ledger's key.
    pub fn adopt(&mut self, cluster: ClusterId, key: &LedgerKey) -> Result<(), DirectoryError> {
        if self.cluster.cluster == Some(cluster) {
            return self.take_key(key);
        }
        if !matches!(self.cluster.formation, Formation::Renounced { .. }) {
            self.require_unformed()?;
        }
        self.take_key(key)?;
        self.store(Some(cluster), Formation::Joined)
    }

    /// Leaves the old cluster for a new one of this node alone, with the same ledger.
    ///
    /// # Errors
    /// When the directory belongs to no cluster, or cannot be written.
    pub fn found_anew(&mut self, cluster: ClusterId) -> Result<(), DirectoryError> {
        if self.cluster.cluster.is_none() || self.ledger.is_none() {
            return Err(DirectoryError::Unformed { path: self.path.clone() });
        }
        self.store(Some(cluster), Formation::Single)?;
        // Last: until here the copy of a member must not vote.
        self.take_as_original()
    }

    /// Makes this the directory of another, new node, without any part of a ledger: with a log and a vote that went
    /// back in time a node may not take part under the id that its peers trust. When there was a cluster, the new node can
    /// only join one. A crash on the way is made good by the next open.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn renounce_identity(&mut self) -> Result<(), DirectoryError> {
        durable_file::write(&self.path.join(RENOUNCING_FILE), b"this node becomes another one\n", 0o600)?;
        (self.node_id, self.cluster) = renounce(&self.path, &self.cluster)?;
        self.ledger = None;
        self.provenance = Provenance::Original;
        Ok(())
    }

    /// Refuses a directory of an older layout, which only a start of the server brings up to date.
    pub(super) fn require_present_layout(&self) -> Result<(), DirectoryError> {
        match self.layout {
            Layout::Present | Layout::OlderAndCopied => Ok(()),
            Layout::Older(found) => Err(DirectoryError::FormatOlder { path: self.path.clone(), found }),
        }
    }

    /// As [`DataDirectory::copied_for_upgrade`].
    ///
    /// # Errors
    /// As there.
    pub fn copied_for_upgrade(mut self) -> Result<Self, DirectoryError> {
        if let Layout::Older(found) = self.layout {
            upgrade::copy(&self.path, found)?;
            self.layout = Layout::OlderAndCopied;
        }
        Ok(self)
    }

    /// Mints the key of a directory that has neither a key nor a ledger. Before its stores come into being: stores without
    /// a key have lost it.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn mint_first_key(&mut self) -> Result<(), DirectoryError> {
        let is_new = matches!(self.cluster.formation, Formation::Unformed) && !self.holds_ledger();
        if is_new { self.mint_key() } else { Ok(()) }
    }

    /// The directory of a node that belongs to a ledger. One that belongs to no cluster becomes one of its own, which
    /// is written when the ledger is opened.
    ///
    /// # Errors
    /// When the ledger's key is missing, or when the node promised itself to a cluster that may exist.
    pub fn into_data_directory(mut self) -> Result<DataDirectory, DirectoryError> {
        let mut unwritten = false;
        match &self.cluster.formation {
            Formation::Promised(_) | Formation::Renounced { .. } => return Err(self.refused()),
            Formation::Unformed => {
                if self.ledger.is_none() && self.holds_ledger() {
                    return Err(DirectoryError::KeyMissing { path: self.path.join(LOG_KEY_FILE) });
                }
                self.mint_key()?;
                self.cluster.cluster = Some(ClusterId(random_bytes()?));
                self.cluster.formation = Formation::Single;
                unwritten = true;
            }
            Formation::Single | Formation::Settled { .. } | Formation::Joined => {}
        }
        let Some(ledger) = self.ledger.clone() else {
            return Err(DirectoryError::KeyMissing { path: self.path.join(LOG_KEY_FILE) });
        };
        Ok(DataDirectory::new(self, ledger, unwritten))
    }

    /// Names the present layout in the format file, once the stores have it, and writes what the node is part of.
    pub(super) fn finish_upgrade(&mut self) -> Result<(), DirectoryError> {
        match self.layout {
            Layout::Older(found) => {
                return Err(DirectoryError::FormatOlder { path: self.path.clone(), found });
            }
            Layout::Present => {}
            Layout::OlderAndCopied => {
                self.cluster.write(&self.path.join(CLUSTER_FILE))?;
                write_format(&self.path)?;
                upgrade::forget(&self.path)?;
                self.layout = Layout::Present;
                self.renew_origin()?;
            }
        }
        Ok(())
    }

    /// Writes what the node is part of, unless the layout does not know it yet.
    pub(super) fn write_cluster(&self) -> Result<(), DirectoryError> {
        match self.layout {
            Layout::Present => self.cluster.write(&self.path.join(CLUSTER_FILE)),
            Layout::Older(_) | Layout::OlderAndCopied => Ok(()),
        }
    }

    /// The marker of a copy stays as it is, and so does a directory of an older layout.
    fn renew_origin(&self) -> Result<(), DirectoryError> {
        match (self.provenance, self.layout) {
            (Provenance::Original, Layout::Present) => origin::renew(&self.path.join(ORIGIN_FILE)),
            _ => Ok(()),
        }
    }

    fn store(&mut self, cluster: Option<ClusterId>, formation: Formation) -> Result<(), DirectoryError> {
        let before = self.cluster.clone();
        (self.cluster.cluster, self.cluster.formation) = (cluster, formation);
        self.write_cluster().inspect_err(|_| self.cluster = before)
    }

    fn promised_members(&self, cluster: ClusterId) -> Result<Vec<MemberRecord>, DirectoryError> {
        match &self.cluster.formation {
            Formation::Promised(promise) if promise.cluster == cluster => Ok(promise.members.clone()),
            Formation::Settled { members } if self.cluster.cluster == Some(cluster) => Ok(members.clone()),
            _ => Err(self.refused()),
        }
    }

    fn require_unformed(&self) -> Result<(), DirectoryError> {
        match self.cluster.formation {
            Formation::Unformed => Ok(()),
            _ => Err(self.refused()),
        }
    }

    fn refused(&self) -> DirectoryError {
        let path = self.path.clone();
        match &self.cluster.formation {
            Formation::Promised(promise) => {
                let coordinator = promise.coordinator().map_or(0, |member| member.identity.node_id);
                DirectoryError::Promised { path, cluster: promise.cluster, coordinator }
            }
            Formation::Unformed => DirectoryError::Unformed { path },
            Formation::Renounced { former } => DirectoryError::Renounced { path, former: *former },
            _ => DirectoryError::Formed { path, cluster: self.cluster.cluster },
        }
    }

    fn mint_key(&mut self) -> Result<(), DirectoryError> {
        if self.ledger.is_none() {
            self.ledger = Some(log_key::mint(&self.path.join(LOG_KEY_FILE))?);
        }
        Ok(())
    }

    pub(super) fn take_key(&mut self, key: &LedgerKey) -> Result<(), DirectoryError> {
        let path = self.path.join(LOG_KEY_FILE);
        let (ledger_id, key) = log_key::parse(&path, key.secret_text())?;
        match &self.ledger {
            Some((found, _)) if *found != ledger_id => {
                return Err(DirectoryError::OtherLedger { path, found: *found, expected: ledger_id });
            }
            _ => log_key::write(&path, ledger_id, &key)?,
        }
        self.ledger = Some((ledger_id, key));
        Ok(())
    }

    fn open_for(path: PathBuf, name: Option<NodeName>, lifetime: Lifetime) -> Result<Self, DirectoryError> {
        create(&path)?;
        let lock = lock(&path)?;
        if path.join(RESTORING_FILE).exists() {
            return Err(DirectoryError::RestoreUnfinished { path });
        }
        let found = check_format(&path)?;
        let is_new = found.is_none();
        let renouncing = path.join(RENOUNCING_FILE).exists();
        let stored = ClusterFile::read(&path.join(CLUSTER_FILE))?;
        let (node_id, stored) = match stored {
            Some(stored) if renouncing => {
                let (node_id, stored) = renounce(&path, &stored)?;
                (node_id, Some(stored))
            }
            stored => (node_id::read_or_mint(&path.join(NODE_ID_FILE), is_new)?, stored),
        };
        let ledger = log_key::read(&path.join(LOG_KEY_FILE))?;
        let layout = match found {
            Some(found) if found < FORMAT => Layout::Older(found),
            _ => Layout::Present,
        };
        let provenance = origin::check(&path.join(ORIGIN_FILE))?;
        let cluster = named(&path, node_id, stored, name)?;
        let mut directory =
            Self { path, node_id, cluster, ledger, lifetime, layout, provenance, _lock: lock };
        directory.write_what_is_new(is_new)?;
        Ok(directory)
    }

    fn write_what_is_new(&mut self, is_new: bool) -> Result<(), DirectoryError> {
        self.write_cluster()?;
        self.renew_origin()?;
        if is_new {
            // Last: a directory without a format file is finished by the next open.
            write_format(&self.path)?;
        }
        if self.layout == Layout::Present {
            upgrade::forget(&self.path)?;
        }
        let pid = format!("{}\n", std::process::id());
        durable_file::write(&self.path.join(PID_FILE), pid.as_bytes(), 0o600)
    }
}

impl Drop for NodeDirectory {
    fn drop(&mut self) {
        // Nothing depends on either: the lock is what counts, and it goes with its file.
        let _ = match self.lifetime {
            Lifetime::Kept => std::fs::remove_file(self.path.join(PID_FILE)),
            Lifetime::RemovedAtDrop => std::fs::remove_dir_all(&self.path),
        };
    }
}

/// The cluster file with the name asked for. A name that others rely on does not change.
fn named(
    path: &Path,
    node_id: u64,
    stored: Option<ClusterFile>,
    name: Option<NodeName>,
) -> Result<ClusterFile, DirectoryError> {
    let default = || NodeName::new(format!("node-{:04x}", node_id & 0xffff));
    let Some(mut stored) = stored else {
        let name = name.map_or_else(default, Ok)?;
        let incarnation = Incarnation(random_bytes()?);
        return Ok(ClusterFile { cluster: None, name, incarnation, formation: Formation::Unformed });
    };
    match name {
        Some(given) if given != stored.name => match stored.formation {
            Formation::Unformed | Formation::Renounced { .. } | Formation::Single => stored.name = given,
            _ => return Err(DirectoryError::OtherName { path: path.to_owned(), stored: stored.name, given }),
        },
        _ => {}
    }
    Ok(stored)
}

/// Removes all that is a ledger's and mints a new identity; the marker goes last, so that this may be repeated.
fn renounce(path: &Path, old: &ClusterFile) -> Result<(u64, ClusterFile), DirectoryError> {
    for name in LEDGER_FILES.into_iter().chain([LOG_KEY_FILE, NODE_ID_FILE]) {
        let file = path.join(name);
        let removed = match file.is_dir() {
            true => std::fs::remove_dir_all(&file),
            false => std::fs::remove_file(&file),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(not_writable(&file, error, "remove"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let node_id = node_id::read_or_mint(&path.join(NODE_ID_FILE), true)?;
    let incarnation = Incarnation(random_bytes()?);
    let formation = match (old.cluster, &old.formation) {
        (Some(former), _) => Formation::Renounced { former },
        (None, Formation::Renounced { former }) => Formation::Renounced { former: *former },
        (None, _) => Formation::Unformed,
    };
    let cluster = ClusterFile { cluster: None, name: old.name.clone(), incarnation, formation };
    cluster.write(&path.join(CLUSTER_FILE))?;
    origin::renew(&path.join(ORIGIN_FILE))?;
    let marker = path.join(RENOUNCING_FILE);
    std::fs::remove_file(&marker).map_err(|source| not_writable(&marker, source, "remove"))?;
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| not_writable(path, source, "sync"))?;
    Ok((node_id, cluster))
}

//! What this node was found to have otherwise than its cluster, and what became of it: a short list, kept in the data
//! directory (`divergences.json`) so that it outlives the recovery and the process, for reports and for the doctor.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ledger_core::names::VaultId;
use ledger_verify::Hash;
use serde::{Deserialize, Serialize};

use crate::blocking_work::BlockingWork;
use crate::directory::write_durably;

/// The file in the data directory.
const FILE: &str = "divergences.json";
/// Version of its layout.
const FORMAT: u32 = 1;
/// Divergences that are remembered; the oldest settled one goes first.
const REMEMBERED_MAX: usize = 64;
/// A largest file: so many divergences with long texts take less.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A node that differs again so soon after a recovery is not recovered again by itself (one hour).
const AGAIN_WITHIN_MS: u64 = 60 * 60 * 1_000;

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DivergenceKind {
    /// A block of a vault, and with it the state root.
    Block,
    /// Which idempotency keys of a vault are remembered, and with what answers.
    IdempotencyKeys,
    /// Who belongs to the cluster.
    Membership,
}

impl DivergenceKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::IdempotencyKeys => "idempotency_keys",
            Self::Membership => "membership",
        }
    }
}

/// What became of a divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DivergenceState {
    /// It waits for clear evidence, or for the next attempt to recover.
    Open,
    /// The node recovers from the leader.
    Recovering,
    /// The node has the leader's content.
    Recovered,
    /// The node does not recover by itself: an operator decides.
    StaysFenced,
    /// A majority has what this node has: the leader is wrong, nothing was fenced here.
    LeaderAlone,
}

impl DivergenceState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recovering => "recovering",
            Self::Recovered => "recovered",
            Self::StaysFenced => "stays_fenced",
            Self::LeaderAlone => "leader_alone",
        }
    }
}

/// What a node has at the place where it differs, or another one has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The block's hash, or the digest of what is beside blocks.
    #[serde(with = "hex_text")]
    pub digest: Hash,
    /// The state root after the block, where it is known.
    #[serde(with = "optional_hex")]
    pub state_root: Option<Hash>,
}

impl Side {
    /// Whether both are the same as far as both are known: a block's hash covers its state root, so one that is said with
    /// another root is not believed.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let roots = self.state_root.zip(other.state_root);
        self.digest == other.digest && roots.is_none_or(|(one, other)| one == other)
    }
}

/// Something that this node has otherwise than its leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Divergence {
    /// What differs.
    pub kind: DivergenceKind,
    /// The vault; `None` = it concerns the whole node.
    #[serde(with = "vault_text")]
    pub vault: Option<VaultId>,
    /// `NAMESPACE/VAULT`, as it was when it was found; empty when it concerns the whole node.
    pub vault_name: String,
    /// Height of the block, or the log entry after which the digests were compared.
    pub position: u64,
    /// What this node had.
    pub own: Side,
    /// What the leader has.
    pub leader: Side,
    /// Who led.
    pub leader_id: u64,
    /// Voters that have what the leader has, itself included, as far as they answered.
    pub with_leader: Vec<u64>,
    /// Voters that have what this node has, itself included.
    pub with_this_node: Vec<u64>,
    /// When it was found, unix milliseconds by the node's clock.
    pub found_at_ms: u64,
    /// What became of it.
    pub state: DivergenceState,
    /// Recoveries that were begun for it.
    pub attempts: u32,
    /// When `state` changed last, unix milliseconds by the node's clock.
    pub changed_at_ms: u64,
    /// Why it is as it is, for people; empty = nothing to say.
    pub reason: String,
}

impl Divergence {
    /// Whether a recovery would help.
    pub fn is_pending(&self) -> bool {
        !matches!(self.state, DivergenceState::Recovered | DivergenceState::LeaderAlone)
    }

    pub(crate) fn is_of(&self, kind: DivergenceKind, vault: Option<VaultId>) -> bool {
        self.kind == kind && self.vault == vault
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    divergences: Vec<Divergence>,
}

/// The list. Clones share it.
#[derive(Clone)]
pub(crate) struct DivergenceRegister(Arc<Inner>);

struct Inner {
    path: PathBuf,
    blocking: BlockingWork,
    list: Mutex<Vec<Divergence>>,
    /// Whoever has it writes the file: an older list never comes after a newer one.
    writing: tokio::sync::Mutex<()>,
}

/// Reads the list of a data directory that no process has open, oldest first; empty when nothing was ever found.
///
/// # Errors
/// When the file is there and cannot be read, or is none of this layout.
pub fn read_divergences(directory: &Path) -> io::Result<Vec<Divergence>> {
    let path = directory.join(FILE);
    let length = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    if length > FILE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let document: Document = serde_json::from_slice(&std::fs::read(&path)?)?;
    if document.format == FORMAT {
        Ok(document.divergences)
    } else {
        Err(io::Error::other(format!("{FILE} has format {}, this program reads {FORMAT}", document.format)))
    }
}

impl DivergenceRegister {
    /// Goes on with what is in a data directory. A list that cannot be read is no reason not to serve: it begins anew.
    pub fn open(directory: &Path, blocking: BlockingWork) -> Self {
        let list = read_divergences(directory).unwrap_or_else(|error| {
            tracing::warn!(%error, "the list of divergences cannot be read: it begins anew");
            Vec::new()
        });
        Self(Arc::new(Inner {
            path: directory.join(FILE),
            blocking,
            list: Mutex::new(list),
            writing: tokio::sync::Mutex::new(()),
        }))
    }

    /// Everything, oldest first.
    pub fn list(&self) -> Vec<Divergence> {
        self.lock().clone()
    }

    /// What is not settled.
    pub fn pending(&self) -> Vec<Divergence> {
        self.lock().iter().filter(|known| known.is_pending()).cloned().collect()
    }

    /// Whether anything of a vault is on the list and not settled.
    pub fn is_vault_pending(&self, vault: VaultId) -> bool {
        self.lock().iter().any(|known| known.is_pending() && known.vault == Some(vault))
    }

    /// Whether the same place is on the list and not settled.
    pub fn is_pending(&self, kind: DivergenceKind, vault: Option<VaultId>) -> bool {
        self.lock().iter().any(|known| known.is_pending() && known.is_of(kind, vault))
    }

    /// Adds what was found. A node that has recovered lately and differs again is not recovered again by itself.
    pub async fn add(&self, mut found: Divergence) -> Divergence {
        {
            let mut list = self.lock();
            let recovered = list.iter().filter(|known| known.state == DivergenceState::Recovered);
            let newest_ms = recovered.map(|known| known.changed_at_ms).max();
            let ago_ms = newest_ms.map(|newest_ms| found.found_at_ms.saturating_sub(newest_ms));
            if let Some(ago_ms) = ago_ms.filter(|ago_ms| *ago_ms < AGAIN_WITHIN_MS && found.is_pending()) {
                found.state = DivergenceState::StaysFenced;
                found.reason = format!(
                    "it differs again {} s after a recovery: the memory, the disk or the program of this node makes \
                     something else of the same entries. Look for the cause, then recover it or replace the node",
                    ago_ms / 1_000
                );
            }
            // One that led alone before is the same place seen again.
            list.retain(|known| {
                known.state != DivergenceState::LeaderAlone || !known.is_of(found.kind, found.vault)
            });
            if list.len() >= REMEMBERED_MAX {
                let settled = list.iter().position(|known| !known.is_pending());
                list.remove(settled.unwrap_or(0));
            }
            list.push(found.clone());
        }
        self.write().await;
        found
    }

    /// Changes everything that is not settled.
    pub async fn change_pending(&self, mut change: impl FnMut(&mut Divergence)) {
        self.lock().iter_mut().filter(|known| known.is_pending()).for_each(&mut change);
        self.write().await;
    }

    /// What was pending at a place is settled; without an outcome it is as if it had not been found.
    pub async fn settle(
        &self,
        (kind, vault): (DivergenceKind, Option<VaultId>),
        outcome: Option<DivergenceState>,
        now_ms: u64,
    ) {
        {
            let mut list = self.lock();
            let is_it = |known: &Divergence| known.is_pending() && known.is_of(kind, vault);
            match outcome {
                None => list.retain(|known| !is_it(known)),
                Some(state) => list.iter_mut().filter(|known| is_it(known)).for_each(|known| {
                    known.state = state;
                    known.changed_at_ms = now_ms;
                }),
            }
        }
        self.write().await;
    }

    /// A list that cannot be written is still known to this process.
    async fn write(&self) {
        let _turn = self.0.writing.lock().await;
        let document = Document { format: FORMAT, divergences: self.list() };
        let path = self.0.path.clone();
        let write = move || -> Result<(), String> {
            let text = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
            write_durably(&path, &text).map_err(|error| error.to_string())
        };
        match self.0.blocking.short(write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the list of divergences cannot be written"),
            Err(error) => tracing::warn!(%error, "the list of divergences may not be written"),
        }
    }

    /// Every change of the list is whole.
    fn lock(&self) -> MutexGuard<'_, Vec<Divergence>> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes and ids as hexadecimal digits.
mod hex_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Hash;

    pub fn serialize<S: Serializer>(hash: &Hash, serializer: S) -> Result<S::Ok, S::Error> {
        hex::encode(hash).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
        decode(&String::deserialize(deserializer)?)
    }

    pub fn decode<const N: usize, E: serde::de::Error>(text: &str) -> Result<[u8; N], E> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(E::custom)?;
        Ok(bytes)
    }
}

/// A hash, or null.
mod optional_hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Hash, hex_text};

    pub fn serialize<S: Serializer>(hash: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
        hash.map(hex::encode).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Hash>, D::Error> {
        Option::<String>::deserialize(deserializer)?.as_deref().map(hex_text::decode).transpose()
    }
}

/// A vault's id, or null.
mod vault_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{VaultId, hex_text};

    pub fn serialize<S: Serializer>(vault: &Option<VaultId>, serializer: S) -> Result<S::Ok, S::Error> {
        vault.map(|vault| hex::encode(vault.0)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<VaultId>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        Ok(text.as_deref().map(hex_text::decode).transpose()?.map(VaultId))
    }
}

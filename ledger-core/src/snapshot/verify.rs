//! Believing a snapshot: every row is read, every tree is rebuilt, every root compared.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::ControlFlow;

use ledger_verify::Hash;
use ledger_verify::note::{SignedCheckpoint, VerifierKey};

use super::content::{Counts, vault_of};
use super::error::SnapshotError;
use super::read::{Reader, Row};
use super::vault_content::{KeptVault, VaultContent};
use super::{Header, Progress, Trailer, VaultEntry};
use crate::access_token::AccessToken;
use crate::codec;
use crate::ledger_state::KEYS_MAX;
use crate::names::{LedgerId, NamespaceName, VaultId};
use crate::ports::{RowChange, StoreError, Table};
use crate::rows::{self, ClientRow, IdempotencyRow, LedgerRow, NamespaceRow};

/// A snapshot that holds what it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its header.
    pub header: Header,
    /// Its trailer.
    pub trailer: Trailer,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The SHA-256 at its end.
    pub sha256: Hash,
    /// Its vaults, by number.
    pub vaults: Vec<VerifiedVault>,
}

/// A vault whose rows, blocks and log fit its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedVault {
    /// `NAMESPACE/VAULT`.
    pub vault: String,
    /// Its identity.
    pub id: VaultId,
    /// Height of the newest block.
    pub height: u64,
    /// Hash of the newest block.
    pub block_hash: Hash,
    /// Root over its entities and relationships, rebuilt.
    pub state_root: Hash,
    /// Root over its blocks, rebuilt.
    pub log_root: Hash,
    /// Entities and relationships.
    pub keys: u64,
    /// The oldest block whose transactions are there; `None` = of no block.
    pub first_body: Option<u64>,
    /// Whether its rows did not fit its headers when the snapshot was taken: nothing of it was checked.
    pub fenced: bool,
    /// The trusted key that signed its checkpoint; `None` when no keys were given.
    pub signed_by: Option<VerifierKey>,
}

/// Verifies a snapshot: structure, hash, and every vault against its headers; with `keys` also that one of them
/// signed the checkpoint of every vault. `watch` is called after every frame.
///
/// # Errors
///
/// [`SnapshotError`]: the first thing that does not fit.
pub fn verify<R: Read>(
    input: R,
    keys: &[VerifierKey],
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Verified, SnapshotError> {
    read_all(input, keys, &mut |_, _| Ok(()), None, watch).map(|(verified, _)| verified)
}

/// As [`verify`], and hands over what was built of every vault that was not fenced, with the roots that its log had at the
/// `sizes` asked for.
pub(crate) fn verify_keeping<R: Read>(
    input: R,
    keys: &[VerifierKey],
    sizes: &BTreeMap<VaultId, BTreeSet<u64>>,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(Verified, Vec<(VaultEntry, KeptVault)>), SnapshotError> {
    read_all(input, keys, &mut |_, _| Ok(()), Some(sizes), watch)
}

/// As [`verify`], and hands every row to `store` with the header before it, ordered by table and key. Rows are handed over before all is known
/// about them: drop what was stored when this fails.
///
/// # Errors
///
/// As [`verify`], and the first error of `store`.
pub fn restore<R: Read>(
    input: R,
    keys: &[VerifierKey],
    store: &mut dyn FnMut(&Header, RowChange) -> Result<(), StoreError>,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Verified, SnapshotError> {
    read_all(
        input,
        keys,
        &mut |header, row| {
            store(header, RowChange { table: row.table, key: row.key, value: Some(row.value) })
                .map_err(SnapshotError::Sink)
        },
        None,
        watch,
    )
    .map(|(verified, _)| verified)
}

fn read_all<R: Read>(
    input: R,
    keys: &[VerifierKey],
    store: &mut dyn FnMut(&Header, Row) -> Result<(), SnapshotError>,
    sizes: Option<&BTreeMap<VaultId, BTreeSet<u64>>>,
    watch: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<(Verified, Vec<(VaultEntry, KeptVault)>), SnapshotError> {
    let mut reader = Reader::open(input)?;
    let signers = signers(&reader.header, keys)?;
    let mut content = Content::new(&reader.header, sizes)?;
    let mut frames = 0;
    while let Some(row) = reader.next_row()? {
        content.row(&row)?;
        store(&reader.header, row)?;
        if frames != reader.frames.frames {
            frames = reader.frames.frames;
            if watch(&content.counts.progress(reader.frames.input.bytes)).is_break() {
                return Err(SnapshotError::Cancelled);
            }
        }
    }
    let header = reader.header.clone();
    let (trailer, file_bytes, sha256) = reader.finish()?;
    let counts = content.counts.trailer();
    if counts != trailer {
        return Err(SnapshotError::inconsistent("its trailer does not count what it holds"));
    }
    let vaults = content.finish(&header, signers)?;
    let kept = match sizes {
        Some(_) => content.keep(),
        None => Vec::new(),
    };
    Ok((Verified { header, trailer, file_bytes, sha256, vaults }, kept))
}

/// By vault: the key that signed its checkpoint, when keys were given. Checkpoints that contradict the header are
/// refused either way.
fn signers(header: &Header, keys: &[VerifierKey]) -> Result<Vec<Option<VerifierKey>>, SnapshotError> {
    header.vaults.iter().map(|entry| signer(header.ledger_id, entry, keys)).collect()
}

pub(crate) fn signer(
    ledger: LedgerId,
    entry: &VaultEntry,
    keys: &[VerifierKey],
) -> Result<Option<VerifierKey>, SnapshotError> {
    let Some(note) = &entry.checkpoint else {
        return if keys.is_empty() {
            Ok(None)
        } else {
            Err(SnapshotError::Unsigned { vault: entry.label() })
        };
    };
    let refused = |source| SnapshotError::Checkpoint { vault: entry.label(), source };
    let signed = SignedCheckpoint::parse(note).map_err(refused)?;
    let checkpoint = signed.checkpoint();
    let tip = ledger_verify::header::BlockHeader::decode(&entry.header).ok();
    let fits = checkpoint.origin == format!("strongroom/{ledger}/{}", entry.id)
        && tip.is_some_and(|tip| tip.height.checked_add(1) == Some(checkpoint.size))
        && checkpoint.root == entry.log_root;
    if !fits {
        let what = "its checkpoint is about another log".to_owned();
        return Err(SnapshotError::Vault { vault: entry.label(), what });
    }
    if keys.is_empty() {
        return Ok(None);
    }
    signed.verify(keys).map(|key| Some(key.clone())).map_err(refused)
}

/// Everything that is rebuilt from the rows.
struct Content {
    ledger_id: LedgerId,
    applied_index: u64,
    counts: Counts,
    previous: Option<(Table, Vec<u8>)>,
    has_ledger_row: bool,
    namespaces: BTreeSet<NamespaceName>,
    /// By number, with the vaults whose row has not come yet.
    vaults: BTreeMap<u64, (VaultEntry, VaultContent)>,
    vault_rows: u64,
    state_is_checked: bool,
    keys: u64,
}

impl Content {
    fn new(header: &Header, sizes: Option<&BTreeMap<VaultId, BTreeSet<u64>>>) -> Result<Self, SnapshotError> {
        let mut vaults = BTreeMap::new();
        for entry in &header.vaults {
            let refused = |what| SnapshotError::Vault { vault: entry.label(), what };
            let asked = sizes.map(|sizes| sizes.get(&entry.id).cloned().unwrap_or_default());
            let content = VaultContent::new(entry, asked).map_err(refused)?;
            if content.tip.ledger_id != header.ledger_id.0 {
                return Err(refused("its newest header is of another ledger".to_owned()));
            }
            if vaults.insert(entry.number, (entry.clone(), content)).is_some() {
                return Err(SnapshotError::inconsistent("two vaults of its header have one number"));
            }
        }
        Ok(Self {
            ledger_id: header.ledger_id,
            applied_index: header.applied.index,
            counts: Counts::default(),
            previous: None,
            has_ledger_row: false,
            namespaces: BTreeSet::new(),
            vaults,
            vault_rows: 0,
            state_is_checked: false,
            keys: 0,
        })
    }

    fn row(&mut self, row: &Row) -> Result<(), SnapshotError> {
        let ascends = self
            .previous
            .as_ref()
            .is_none_or(|(table, key)| (*table, key.as_slice()) < (row.table, row.key.as_slice()));
        if !ascends {
            return Err(SnapshotError::inconsistent("its rows are out of order"));
        }
        self.previous = Some((row.table, row.key.clone()));
        if row.table > Table::Relationships {
            self.finish_states()?;
        }
        self.counts.row(row.table, &row.key, &row.value);
        match row.table {
            Table::Ledger => self.ledger_row(row),
            Table::Namespaces => self.namespace_row(row),
            Table::Vaults => self.vault_row(row),
            Table::Idempotency => self.idempotency_row(row),
            _ => self.row_of_vault(row),
        }
    }

    /// The tables of the state have passed.
    fn finish_states(&mut self) -> Result<(), SnapshotError> {
        if std::mem::replace(&mut self.state_is_checked, true) {
            return Ok(());
        }
        for (entry, content) in self.vaults.values_mut().filter(|(entry, _)| !entry.fenced) {
            content.finish_state().map_err(|what| SnapshotError::Vault { vault: entry.label(), what })?;
        }
        Ok(())
    }

    fn ledger_row(&mut self, row: &Row) -> Result<(), SnapshotError> {
        if row.key.starts_with(rows::TOKEN_PREFIX) {
            let token: AccessToken = decode("a token row", &row.value)?;
            return match rows::token_key(token.id) == row.key {
                true => Ok(()),
                false => Err(SnapshotError::inconsistent("a token row has the key of another token")),
            };
        }
        if row.key != rows::LEDGER_KEY {
            // What entries of the log have decided for the ledger as a whole; no header commits to it.
            return Ok(());
        }
        let ledger: LedgerRow = decode("the ledger row", &row.value)?;
        if ledger.ledger_id != self.ledger_id {
            return Err(SnapshotError::inconsistent("its rows are of another ledger than its header"));
        }
        self.has_ledger_row = true;
        Ok(())
    }

    fn namespace_row(&mut self, row: &Row) -> Result<(), SnapshotError> {
        decode::<NamespaceRow>("a namespace row", &row.value)?;
        let name = std::str::from_utf8(&row.key).ok().and_then(|name| NamespaceName::new(name).ok());
        let name = name.ok_or_else(|| SnapshotError::inconsistent("a namespace has no valid name"))?;
        self.namespaces.insert(name);
        Ok(())
    }

    fn vault_row(&mut self, row: &Row) -> Result<(), SnapshotError> {
        let (vault, _) =
            rows::decode_vault(&row.value).map_err(|error| SnapshotError::inconsistent(error.to_string()))?;
        if vault.deleted_at_ms.is_some() {
            return Ok(());
        }
        let number = vault_of(&row.key).filter(|_| row.key.len() == 8);
        let entry = number.and_then(|number| self.vaults.get(&number)).map(|(entry, _)| entry);
        let fits = entry.is_some_and(|entry| {
            entry.id == vault.id
                && entry.namespace == vault.namespace
                && entry.name == vault.name
                && entry.header == vault.header
                && self.namespaces.contains(&vault.namespace)
        });
        if !fits {
            let what =
                format!("its row of vault {}/{} is not what its header says", vault.namespace, vault.name);
            return Err(SnapshotError::inconsistent(what));
        }
        self.vault_rows += 1;
        Ok(())
    }

    fn idempotency_row(&mut self, row: &Row) -> Result<(), SnapshotError> {
        decode::<IdempotencyRow>("an idempotency row", &row.value)?;
        match rows::idempotency_of(&row.key) {
            Some((log_index, _)) if log_index <= self.applied_index => Ok(()),
            _ => Err(SnapshotError::inconsistent("an idempotency row is beyond its last log entry")),
        }
    }

    fn row_of_vault(&mut self, row: &Row) -> Result<(), SnapshotError> {
        let found = vault_of(&row.key).and_then(|number| self.vaults.get_mut(&number));
        let Some((entry, vault)) = found else {
            let what = format!("it has a row of {} that belongs to no vault", row.table.name());
            return Err(SnapshotError::inconsistent(what));
        };
        if entry.fenced {
            return Ok(());
        }
        let checked = match row.table {
            Table::Entities => vault.entity(&row.key, &row.value),
            Table::Relationships => vault.relationship(&row.key, &row.value),
            Table::RelationshipsBySubject => vault.by_subject(&row.key),
            Table::Expiries => vault.expiry(&row.key),
            Table::Blocks => vault.block(&row.key, &row.value),
            Table::Tiles => vault.tile(&row.key, &row.value),
            Table::Clients => codec::decode::<ClientRow>("a client row", &row.value)
                .map(drop)
                .map_err(|error| error.to_string()),
            // Ledger, namespaces, vaults and idempotency have no vault; what is left proves itself elsewhere.
            _ => Ok(()),
        };
        checked.map_err(|what| SnapshotError::Vault { vault: entry.label(), what })?;
        if matches!(row.table, Table::Entities | Table::Relationships) {
            self.keys += 1;
            if self.keys > KEYS_MAX {
                return Err(SnapshotError::inconsistent(format!("it has more than {KEYS_MAX} keys")));
            }
        }
        Ok(())
    }

    fn keep(self) -> Vec<(VaultEntry, KeptVault)> {
        let whole = self.vaults.into_values().filter(|(entry, _)| !entry.fenced);
        whole.map(|(entry, content)| (entry, content.keep())).collect()
    }

    fn finish(
        &mut self,
        header: &Header,
        signers: Vec<Option<VerifierKey>>,
    ) -> Result<Vec<VerifiedVault>, SnapshotError> {
        self.finish_states()?;
        if !self.has_ledger_row || self.vault_rows != self.vaults.len() as u64 {
            return Err(SnapshotError::inconsistent("it lacks the row of the ledger or of a vault"));
        }
        let mut verified = Vec::with_capacity(header.vaults.len());
        for (entry, signed_by) in header.vaults.iter().zip(signers) {
            let Some((_, content)) = self.vaults.get_mut(&entry.number) else { continue };
            if !entry.fenced {
                content
                    .finish(&entry.log_root)
                    .map_err(|what| SnapshotError::Vault { vault: entry.label(), what })?;
            }
            verified.push(VerifiedVault {
                vault: entry.label(),
                id: entry.id,
                height: content.tip.height,
                block_hash: content.tip.leaf_hash(),
                state_root: content.tip.state_root,
                log_root: entry.log_root,
                keys: content.keys,
                first_body: content.first_body,
                fenced: entry.fenced,
                signed_by,
            });
        }
        Ok(verified)
    }
}

fn decode<T: serde::de::DeserializeOwned>(what: &'static str, value: &[u8]) -> Result<T, SnapshotError> {
    codec::decode(what, value).map_err(|error| SnapshotError::inconsistent(error.to_string()))
}

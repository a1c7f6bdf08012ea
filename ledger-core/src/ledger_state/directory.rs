//! Namespaces and vaults: creating, deleting, listing.

use std::ops::Bound;

use ledger_verify::hash;
use ledger_verify::header::BlockHeader;

use super::{LedgerState, Namespace, StateError, Vault};
use crate::codec;
use crate::command::{AdminRefusal, NAMESPACES_MAX, NamespaceInfo, Retention, VAULTS_MAX, VaultInfo};
use crate::list_sets::ListSets;
use crate::log_tree::LogTree;
use crate::names::{NamespaceName, VaultId, VaultNumber, VaultRef};
use crate::ports::{LogId, Table};
use crate::rows::{self, HorizonRow, NamespaceRow};
use crate::state_tree::StateTree;

type Answer<T> = Result<Result<T, AdminRefusal>, StateError>;

impl LedgerState {
    pub(super) fn create_namespace(&mut self, name: &NamespaceName, time_ms: u64) -> Answer<NamespaceInfo> {
        if self.namespaces.contains_key(name) {
            return Ok(Err(AdminRefusal::NamespaceExists(name.clone())));
        }
        if self.namespaces.len() >= NAMESPACES_MAX {
            return Ok(Err(AdminRefusal::TooManyNamespaces));
        }
        let row = codec::encode("a namespace row", &NamespaceRow { created_at_ms: time_ms })?;
        self.overlay.put(Table::Namespaces, name.as_str().as_bytes().to_vec(), row);
        let namespace = Namespace { created_at_ms: time_ms, vaults: Default::default() };
        let info = namespace.info(name);
        self.namespaces.insert(name.clone(), namespace);
        Ok(Ok(info))
    }

    pub(super) fn delete_namespace(&mut self, name: &NamespaceName) -> Result<NamespaceInfo, AdminRefusal> {
        let namespace =
            self.namespaces.get(name).ok_or_else(|| AdminRefusal::NamespaceNotFound(name.clone()))?;
        let info = namespace.info(name);
        if info.vault_count > 0 {
            return Err(AdminRefusal::NamespaceNotEmpty {
                name: name.clone(),
                vault_count: info.vault_count,
            });
        }
        self.overlay.delete(Table::Namespaces, name.as_str().as_bytes().to_vec());
        self.namespaces.remove(name);
        Ok(info)
    }

    pub(super) fn create_vault(
        &mut self,
        at: LogId,
        vault: &VaultRef,
        id: VaultId,
        retention: Retention,
        time_ms: u64,
    ) -> Answer<VaultInfo> {
        if self.vaults.len() >= VAULTS_MAX {
            return Ok(Err(AdminRefusal::TooManyVaults));
        }
        if self.vault_ids_used.contains(&id) {
            return Ok(Err(AdminRefusal::VaultIdUsed(id)));
        }
        let Some(identity) = self.identity.as_mut() else { return Err(StateError::NotInitialised) };
        let Some(namespace) = self.namespaces.get_mut(&vault.namespace) else {
            return Ok(Err(AdminRefusal::NamespaceNotFound(vault.namespace.clone())));
        };
        if namespace.vaults.contains_key(&vault.vault) {
            return Ok(Err(AdminRefusal::VaultExists(vault.clone())));
        }
        let number = VaultNumber(identity.next_vault_number);
        identity.next_vault_number += 1;
        namespace.vaults.insert(vault.vault.clone(), id);
        self.vault_ids_used.insert(id);

        let tree = StateTree::new();
        let header = BlockHeader {
            version: self.header_version,
            ledger_id: identity.ledger_id.0,
            vault_id: id.0,
            height: 0,
            previous: [0; 32],
            tx_root: hash::log_empty(),
            tx_count: 0,
            state_root: tree.root(),
            time_ms,
            term: at.term,
            index: at.index,
            first_sequence: 1,
            last_sequence: 0,
        };
        let block_hash = header.leaf_hash();
        let mut log = LogTree::new();
        assert!(log.append(block_hash).is_empty(), "the first leaf completes no tile");
        let created = Vault {
            number,
            name: vault.clone(),
            created_at_ms: time_ms,
            header,
            block_hash,
            tree,
            lists: ListSets::new(),
            log,
            horizon: HorizonRow::new(retention),
            fence: None,
        };
        self.overlay.put(Table::Blocks, rows::header_key(number, 0), header.encode().to_vec());
        self.overlay.put(Table::Vaults, rows::vault_prefix(number), created.row(id, None)?);
        let info = created.info(id);
        self.vaults.insert(id, created);
        Ok(Ok(info))
    }

    pub(super) fn delete_vault(&mut self, vault: &VaultRef, time_ms: u64) -> Answer<VaultInfo> {
        let Some(id) = self.vault_id(vault) else {
            return Ok(Err(AdminRefusal::VaultNotFound(vault.clone())));
        };
        let Some(deleted) = self.vaults.remove(&id) else {
            return Ok(Err(AdminRefusal::VaultNotFound(vault.clone())));
        };
        if let Some(namespace) = self.namespaces.get_mut(&vault.namespace) {
            namespace.vaults.remove(&vault.vault);
        }
        self.key_count = self.key_count.saturating_sub(deleted.key_count());
        self.overlay.drop_vault(deleted.number.0);
        self.overlay.put(Table::Vaults, rows::vault_prefix(deleted.number), deleted.row(id, Some(time_ms))?);
        Ok(Ok(deleted.info(id)))
    }

    /// The identity behind a name.
    pub fn vault_id(&self, vault: &VaultRef) -> Option<VaultId> {
        self.namespaces.get(&vault.namespace)?.vaults.get(&vault.vault).copied()
    }

    /// The name of a vault.
    pub fn vault_name(&self, id: VaultId) -> Option<&VaultRef> {
        self.vaults.get(&id).map(|vault| &vault.name)
    }

    /// One namespace.
    pub fn namespace(&self, name: &NamespaceName) -> Option<NamespaceInfo> {
        self.namespaces.get(name).map(|namespace| namespace.info(name))
    }

    /// Namespaces in name order, at most `limit` of them, after a name.
    pub fn namespaces(&self, after: Option<&NamespaceName>, limit: usize) -> Vec<NamespaceInfo> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.namespaces.range::<NamespaceName, _>((start, Bound::Unbounded));
        range.take(limit).map(|(name, namespace)| namespace.info(name)).collect()
    }

    /// How many namespaces there are.
    pub fn namespace_count(&self) -> u64 {
        self.namespaces.len() as u64
    }

    /// One vault.
    pub fn vault(&self, vault: &VaultRef) -> Option<VaultInfo> {
        let id = self.vault_id(vault)?;
        self.vaults.get(&id).map(|found| found.info(id))
    }

    /// Vaults of one namespace or of all, in name order, at most `limit` of them, after a name.
    pub fn vaults(
        &self,
        namespace: Option<&NamespaceName>,
        after: Option<&VaultRef>,
        limit: usize,
    ) -> Vec<VaultInfo> {
        let wanted = self.namespaces.iter().filter(|(name, _)| namespace.is_none_or(|n| n == *name));
        let named = wanted
            .flat_map(|(name, content)| content.vaults.iter().map(move |(vault, id)| (name, vault, id)));
        let later = named.filter(|(name, vault, _)| {
            after.is_none_or(|after| (*name, *vault) > (&after.namespace, &after.vault))
        });
        later.filter_map(|(_, _, id)| self.vaults.get(id).map(|vault| vault.info(*id))).take(limit).collect()
    }

    /// Whether there is such a vault.
    pub fn has_vault(&self, id: VaultId) -> bool {
        self.vaults.contains_key(&id)
    }

    /// How many vaults there are, deleted ones not counted.
    pub fn vault_count(&self) -> u64 {
        self.vaults.len() as u64
    }
}

impl Namespace {
    fn info(&self, name: &NamespaceName) -> NamespaceInfo {
        NamespaceInfo {
            name: name.clone(),
            vault_count: self.vaults.len() as u64,
            created_at_ms: self.created_at_ms,
        }
    }
}

impl Vault {
    pub(super) fn info(&self, id: VaultId) -> VaultInfo {
        VaultInfo {
            namespace: self.name.namespace.clone(),
            name: self.name.vault.clone(),
            id,
            height: self.header.height,
            block_hash: self.block_hash,
            state_root: self.header.state_root,
            version: self.header.last_sequence,
            key_count: self.key_count(),
            created_at_ms: self.created_at_ms,
            retention: self.horizon.retention,
            first_height: self.horizon.first_height(),
            fence: self.fence.clone().map(Box::new),
        }
    }
}

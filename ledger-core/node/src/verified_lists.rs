//! Lists that prove their completeness, page by page at one height.
//!
//! The first page carries the proof of the list's leaf up to a checkpoint; every page is shown from a snapshot of the
//! list, which is held to that leaf before anything is served. Snapshots are kept for the pages that follow. One that
//! was dropped meanwhile is made again as of its height, from the rows and the blocks since.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ledger_core::ledger_state::{Collected, LIST_MEMBERS_MAX, ListCollector, ReadError};
use ledger_core::list_snapshot::{ListPageLimits, ListSnapshot};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::page_token::{self, PageTokenError};
use ledger_core::relationship::{Relation, Resource};
use ledger_verify::Hash;
use ledger_verify::list::{KeyRange, ListPage, successor};
use ledger_verify::proof::Evidence;
use tokio::sync::{Semaphore, oneshot};

use crate::errors::ReadFailure;
use crate::ledger::{Ledger, Shared};
use crate::reads::{ListRequest, Query, consistency};

/// Bytes of nodes in one page of a list that is proved (1 MiB), unless a single member takes more.
pub const LIST_PAGE_BYTES_MAX: usize = 1_048_576;

/// Snapshots that are kept occupy this many bytes together (64 MiB), or there is only one.
const SNAPSHOTS_BYTES_MAX: usize = 64 * 1_048_576;
/// A snapshot of this many bytes (16 MiB) is dropped once its last page was served.
const SNAPSHOT_BYTES_LARGE: usize = 16 * 1_048_576;
/// Lists of up to this many members are collected by the caller itself, longer ones by a thread of their own.
const MEMBERS_AT_ONCE: u64 = 1_000;
/// Callers that wait for a long list at once; more are refused.
const WAITERS_MAX: usize = 64;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Which list to prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedListQuery {
    /// The resource.
    pub resource: Resource,
    /// Only this relation.
    pub relation: Option<Relation>,
}

/// One page of a list that proves itself: collect the pages and hand them to `ledger_verify::list::verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedListPage {
    /// The vault.
    pub vault: VaultId,
    /// Height of the block whose list this is, the same on every page.
    pub height: u64,
    /// What the first page has beside its members.
    pub head: Option<VerifiedListHead>,
    /// The members; `None` when the resource has no relationships.
    pub page: Option<ListPage>,
    /// Where the list goes on, at the same height; empty at the end.
    pub next_page_token: String,
    /// The ledger's time, unix milliseconds.
    pub log_time_ms: u64,
}

/// From the leaf of a list to a signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedListHead {
    /// Leaf or absence, state proof, header, inclusion, checkpoint.
    pub evidence: Evidence,
    /// RFC 6962 consistency path from the size that the caller trusts to the checkpoint's; empty when the caller
    /// trusts none, or that one.
    pub consistency: Vec<Hash>,
}

/// A list at all times at which it had these members.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ListId {
    vault: VaultId,
    resource: Resource,
    root: Hash,
}

/// Where a page begins, as its token says.
struct Position {
    height: u64,
    root: Hash,
    first: Hash,
}

impl Ledger {
    /// All relationships of a resource, or of a resource and a relation, with what proves that none is missing; one
    /// page. `trusted_size` is the size of the last checkpoint that the caller trusts, 0 = none; the first page
    /// minds it. A page size of 0 = as many members as fit.
    pub async fn verified_list(
        &self,
        vault: &VaultRef,
        query: &VerifiedListQuery,
        request: &ListRequest,
        trusted_size: u64,
    ) -> Result<VerifiedListPage, ReadFailure> {
        if request.page_token.is_empty() {
            self.first_list_page(vault, query, request.page_size, trusted_size).await
        } else {
            self.next_list_page(vault, query, request).await
        }
    }

    async fn first_list_page(
        &self,
        vault: &VaultRef,
        query: &VerifiedListQuery,
        page_size: u32,
        trusted_size: u64,
    ) -> Result<VerifiedListPage, ReadFailure> {
        self.shared.handles.barrier.pass().await?;
        let (id, found) =
            self.at_once(vault, |state, info| Ok((info.id, state.list_head(info.id, &query.resource)?)))?;
        if let Some(leaf) = found.leaf.filter(|leaf| leaf.count > LIST_MEMBERS_MAX) {
            return Err(ReadFailure::ListTooLong { count: leaf.count, max: LIST_MEMBERS_MAX });
        }
        let height = found.header.height;
        let signed = self.signed(vault, id, height + 1).await?;
        let (inclusion_path, consistency) = self.of_vault(vault, |state| {
            let inclusion = state.inclusion_path(id, height, signed.size)?;
            Ok((inclusion, consistency(state, id, trusted_size, signed.size)?))
        })?;
        let consistency =
            consistency.ok_or(ReadFailure::TrustedSizeAhead { trusted_size, size: signed.size })?;
        let evidence = Evidence {
            leaf: found.leaf.map(|leaf| leaf.encode().to_vec()),
            state_proof: found.proof,
            header: found.header.encode().to_vec(),
            inclusion_path,
            checkpoint: signed.note.clone(),
        };
        let head = Some(VerifiedListHead { evidence, consistency });
        let Some(leaf) = found.leaf else {
            return self.list_page(vault, id, height, head, None, String::new());
        };
        let position = Position { height, root: leaf.root, first: query.range().first };
        let snapshot = self.snapshot(vault, id, query, &position, leaf.count).await?;
        self.show(vault, id, query, page_size, head, &position, &snapshot)
    }

    async fn next_list_page(
        &self,
        vault: &VaultRef,
        query: &VerifiedListQuery,
        request: &ListRequest,
    ) -> Result<VerifiedListPage, ReadFailure> {
        let (id, position) = self.at_once(vault, |state, info| {
            let page_key = state.page_key().copied().unwrap_or_default();
            let position = page_token::decode(&page_key, &query.scope(info.id), &request.page_token);
            Ok((info.id, position))
        })?;
        let position = Position::decode(&position?).ok_or(PageTokenError::Malformed)?;
        // How many members there were is not known here: a thread collects them.
        let snapshot = self.snapshot(vault, id, query, &position, u64::MAX).await?;
        self.show(vault, id, query, request.page_size, None, &position, &snapshot)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of an answer, collected in two ways")]
    fn show(
        &self,
        vault: &VaultRef,
        id: VaultId,
        query: &VerifiedListQuery,
        page_size: u32,
        head: Option<VerifiedListHead>,
        position: &Position,
        snapshot: &Arc<ListSnapshot>,
    ) -> Result<VerifiedListPage, ReadFailure> {
        let members_max = match page_size {
            0 => usize::MAX,
            size => usize::try_from(size).unwrap_or(usize::MAX),
        };
        let last = query.range().last;
        let limits = ListPageLimits { members_max, bytes_max: LIST_PAGE_BYTES_MAX };
        let page = snapshot.page(&KeyRange { first: position.first, last }, limits);
        let next = if page.last_key == last { None } else { successor(&page.last_key) };
        let token = match next {
            Some(first) => {
                let next = Position { first, ..*position };
                self.of_vault(vault, |state| {
                    let page_key = state.page_key().copied().unwrap_or_default();
                    Ok(page_token::encode(&page_key, &query.scope(id), &next.encode()))
                })?
            }
            None => {
                self.shared.lists.release(snapshot);
                String::new()
            }
        };
        self.list_page(vault, id, position.height, head, Some(page), token)
    }

    fn list_page(
        &self,
        vault: &VaultRef,
        id: VaultId,
        height: u64,
        head: Option<VerifiedListHead>,
        page: Option<ListPage>,
        next_page_token: String,
    ) -> Result<VerifiedListPage, ReadFailure> {
        let log_time_ms = self.of_vault(vault, |state| Ok(state.log_time_ms()))?;
        Ok(VerifiedListPage { vault: id, height, head, page, next_page_token, log_time_ms })
    }

    /// The list as it stood at the position's height, with the root that was proved for it.
    async fn snapshot(
        &self,
        vault: &VaultRef,
        id: VaultId,
        query: &VerifiedListQuery,
        position: &Position,
        count: u64,
    ) -> Result<Arc<ListSnapshot>, ReadFailure> {
        let list = ListId { vault: id, resource: query.resource.clone(), root: position.root };
        let lists = &self.shared.lists;
        lists.renew(self.shared.handles.ledger.replacements());
        if let Some(snapshot) = lists.get(&list) {
            return Ok(snapshot);
        }
        if count <= MEMBERS_AT_ONCE {
            return Ok(lists.keep(&list, collect(&self.shared, vault, &list, position.height)?));
        }
        let Ok(_waiting) = lists.waiting.try_acquire() else {
            return Err(ReadFailure::Overloaded { retry_after: RETRY_AFTER });
        };
        // The semaphore is never closed.
        let turn = Arc::clone(&lists.turn).acquire_owned().await.map_err(|_| ReadFailure::Stopped)?;
        // Whoever had the turn before may have wanted the same list.
        if let Some(snapshot) = lists.get(&list) {
            return Ok(snapshot);
        }
        let (answer, collected) = oneshot::channel();
        let (shared, vault, height) = (Arc::clone(&self.shared), vault.clone(), position.height);
        std::thread::Builder::new()
            .name("ledger-list".to_owned())
            .spawn(move || {
                // The turn ends with the work, also when nobody waits for it any more.
                let _turn = turn;
                let found = collect(&shared, &vault, &list, height);
                drop(answer.send(found.map(|snapshot| shared.lists.keep(&list, snapshot))));
            })
            .map_err(|error| ReadFailure::Unavailable { reason: error.to_string() })?;
        collected.await.map_err(|_| ReadFailure::Stopped)?
    }
}

/// Collects a list, with the state free for others between the steps, and holds it to its root.
fn collect(
    shared: &Shared,
    vault: &VaultRef,
    list: &ListId,
    height: u64,
) -> Result<ListSnapshot, ReadFailure> {
    let mut collector = ListCollector::new(list.vault, list.resource.clone(), height);
    loop {
        if shared.failure.get().is_some() {
            return Err(ReadFailure::Stopped);
        }
        let state = shared.handles.ledger.read()?;
        let step = collector.step(&state).map_err(|error| ReadFailure::of(error, vault))?;
        drop(state);
        if step == Collected::Wholly {
            break;
        }
    }
    let snapshot = collector.finish();
    match snapshot.leaf() {
        Some(leaf) if leaf.root == list.root => Ok(snapshot),
        _ => Err(ReadFailure::of(ReadError::ListDiffers { height }, vault)),
    }
}

impl VerifiedListQuery {
    fn range(&self) -> KeyRange {
        self.relation.as_ref().map_or(KeyRange::ALL, |relation| KeyRange::of_relation(relation.as_str()))
    }

    /// What page tokens are bound to. A relation is never empty, so an empty text stands for any.
    fn scope(&self, vault: VaultId) -> bytes::Bytes {
        let relation = self.relation.as_ref().map_or("", |relation| relation.as_str());
        Query { kind: 4, texts: &[self.resource.as_str(), relation] }.scope(vault)
    }
}

impl Position {
    fn encode(&self) -> Vec<u8> {
        [self.height.to_be_bytes().as_slice(), &self.root, &self.first].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (height, rest) = bytes.split_first_chunk::<8>()?;
        let (root, rest) = rest.split_first_chunk::<32>()?;
        Some(Self { height: u64::from_be_bytes(*height), root: *root, first: rest.try_into().ok()? })
    }
}

/// Snapshots for the pages that follow, and the order in which long lists are collected.
pub(crate) struct KeptLists {
    /// The least recently used first.
    kept: Mutex<Vec<(ListId, Arc<ListSnapshot>)>>,
    /// How often the state had been replaced when they were looked at last.
    replacements: AtomicU64,
    turn: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for KeptLists {
    fn default() -> Self {
        Self {
            kept: Mutex::new(Vec::new()),
            replacements: AtomicU64::new(0),
            turn: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITERS_MAX),
        }
    }
}

impl KeptLists {
    /// Gives back the memory of what belongs to a state that was replaced.
    fn renew(&self, replacements: u64) {
        if self.replacements.swap(replacements, Ordering::SeqCst) != replacements {
            self.kept().clear();
        }
    }

    fn get(&self, list: &ListId) -> Option<Arc<ListSnapshot>> {
        let mut kept = self.kept();
        let index = kept.iter().position(|(id, _)| id == list)?;
        let entry = kept.remove(index);
        let snapshot = Arc::clone(&entry.1);
        kept.push(entry);
        Some(snapshot)
    }

    fn keep(&self, list: &ListId, snapshot: ListSnapshot) -> Arc<ListSnapshot> {
        let snapshot = Arc::new(snapshot);
        let mut kept = self.kept();
        kept.retain(|(id, _)| id != list);
        kept.push((list.clone(), Arc::clone(&snapshot)));
        let mut bytes: usize = kept.iter().map(|(_, snapshot)| snapshot.memory_bytes()).sum();
        while bytes > SNAPSHOTS_BYTES_MAX && kept.len() > 1 {
            let (_, oldest) = kept.remove(0);
            bytes -= oldest.memory_bytes();
        }
        snapshot
    }

    /// The last page of a snapshot was served.
    fn release(&self, snapshot: &Arc<ListSnapshot>) {
        if snapshot.memory_bytes() >= SNAPSHOT_BYTES_LARGE {
            self.kept().retain(|(_, kept)| !Arc::ptr_eq(kept, snapshot));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(ListId, Arc<ListSnapshot>)>> {
        // What is kept is whole at every moment.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

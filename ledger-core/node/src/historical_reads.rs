//! Reads of a [`Ledger`] in the past: versions of a key, values and proofs at a height, headers.

use std::sync::Arc;
use std::time::Duration;

use ledger_core::command::VaultInfo;
use ledger_core::entity::Entity;
use ledger_core::ledger_state::{
    HistoryCursor, HistoryLimit, KeyVersion, LastChange, LedgerState, ReadError, StateError,
};
use ledger_core::names::{VaultId, VaultRef};
use ledger_core::page_token::{self, PageTokenError};
use ledger_verify::hash::sha256;
use ledger_verify::header::BlockHeader;
use ledger_verify::proof::Evidence;
use ledger_verify::state::{LeafValue, StateKey, StateProof};

use crate::errors::ReadFailure;
use crate::historical_proofs::ProofRefused;
use crate::ledger::Ledger;
use crate::reads::{
    ANSWER_BYTES_MAX, Consistency, ListRequest, Query, Read, VerifiedRead, VerifiedSubject, consistency,
};

/// What a caller waits at most for when many historical proofs are asked for.
const PROOF_RETRY_AFTER: Duration = Duration::from_millis(500);
/// Kinds of page tokens (`Query::kind`) of a key's history.
const ENTITY_HISTORY: u8 = 4;
const RELATIONSHIP_HISTORY: u8 = 5;

/// Some versions of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Newest first.
    pub versions: Vec<KeyVersion>,
    /// Where the next page begins; empty at the end.
    pub next_page_token: String,
    /// Set at the end when there may have been older versions that the vault's retention dropped: the
    /// lowest height that is kept.
    pub cut_at: Option<u64>,
}

/// What a key held at a height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoricalRead {
    /// The entity, or, with an empty value, the relationship; `None` when there was none, or its expiry
    /// had passed by the block's time.
    pub record: Option<Entity>,
    /// The header of the block at that height.
    pub header: BlockHeader,
    /// The ledger's time now, unix milliseconds.
    pub log_time_ms: u64,
}

impl VerifiedSubject {
    /// Calls with the state tree's key.
    pub(crate) fn state_key(&self) -> StateKey<'_> {
        match self {
            Self::Entity(key) => StateKey::Entity { key: key.as_str() },
            Self::Relationship(tuple) => StateKey::Relationship(tuple.as_ref()),
        }
    }
}

impl Ledger {
    /// Versions of an entity or a relationship, newest first.
    pub async fn history(
        &self,
        vault: &VaultRef,
        subject: &VerifiedSubject,
        request: ListRequest,
        consistency: Consistency,
    ) -> Result<Read<History>, ReadFailure> {
        self.pass_barrier(consistency).await?;
        let limit = request.limit();
        let mut from = self.at_once(vault, |state, info| Ok(cursor(state, info, subject, &request)))??;
        let mut versions: Vec<KeyVersion> = Vec::new();
        let mut bytes = 0;
        loop {
            let room = HistoryLimit {
                versions: limit - versions.len(),
                bytes: ANSWER_BYTES_MAX.saturating_sub(bytes),
            };
            let (page, token, height, log_time_ms) = self.at_once(vault, |state, info| {
                let page = state.key_history(info.id, &subject.state_key(), from, room)?;
                let token = page.next.map(|next| token(state, info, subject, next));
                Ok((page, token.unwrap_or_default(), info.height, state.log_time_ms()))
            })?;
            bytes += page.versions.iter().map(KeyVersion::content_bytes).sum::<usize>();
            versions.extend(page.versions);
            let is_full = versions.len() >= limit || bytes >= ANSWER_BYTES_MAX;
            if page.next.is_none() || is_full {
                let value = History { versions, next_page_token: token, cut_at: page.cut_at };
                return Ok(Read { value, height, log_time_ms });
            }
            from = page.next;
            tokio::task::yield_now().await;
        }
    }

    /// What a key held at a height.
    pub async fn get_at(
        &self,
        vault: &VaultRef,
        subject: &VerifiedSubject,
        height: u64,
    ) -> Result<HistoricalRead, ReadFailure> {
        self.pass_barrier(Consistency::Linearizable).await?;
        let leaf = self.leaf_at(vault, subject, height).await?;
        let (header, log_time_ms) = self.at_once(vault, |state, info| {
            Ok((required_header(state, info.id, height)?, state.log_time_ms()))
        })?;
        let record = leaf.as_deref().map(record_of).transpose()?;
        let is_over = |record: &Entity| record.expires_at_ms != 0 && record.expires_at_ms < header.time_ms;
        Ok(HistoricalRead { record: record.filter(|record| !is_over(record)), header, log_time_ms })
    }

    /// A value or its absence at a height with everything that proves it. `trusted_size` as in
    /// [`verified_read`](Self::verified_read).
    pub async fn verified_read_at(
        &self,
        vault: &VaultRef,
        subject: &VerifiedSubject,
        height: u64,
        trusted_size: u64,
    ) -> Result<VerifiedRead, ReadFailure> {
        self.pass_barrier(Consistency::Linearizable).await?;
        let leaf = self.leaf_at(vault, subject, height).await?;
        let (id, header, size_min) = self.at_once(vault, |state, info| {
            Ok((info.id, required_header(state, info.id, height)?, info.height + 1))
        })?;
        let state_proof = self.proof_at(vault, id, subject, height).await?;
        check_leaf(&state_proof, &header, subject, leaf.as_deref())?;
        let signed = self.signed(vault, id, size_min).await?;
        let (inclusion_path, path, log_time_ms) = self.of_vault(vault, |state| {
            let inclusion = state.inclusion_path(id, height, signed.size)?;
            Ok((inclusion, consistency(state, id, trusted_size, signed.size)?, state.log_time_ms()))
        })?;
        let consistency = path.ok_or(ReadFailure::TrustedSizeAhead { trusted_size, size: signed.size })?;
        let checkpoint = signed.note.clone();
        let header = header.encode().to_vec();
        let evidence = Evidence { leaf, state_proof, header, inclusion_path, checkpoint };
        Ok(VerifiedRead { vault: id, evidence, consistency, log_time_ms })
    }

    /// A header by height, also where retention dropped the transactions; `None` when the vault is not
    /// that high.
    pub fn header(&self, vault: &VaultRef, height: u64) -> Result<Option<BlockHeader>, ReadFailure> {
        self.at_once(vault, |state, info| state.header(info.id, height))
    }

    async fn pass_barrier(&self, consistency: Consistency) -> Result<(), ReadFailure> {
        match consistency {
            Consistency::Linearizable => self.shared.handles.barrier.pass().await,
            Consistency::Eventual => Ok(()),
        }
    }

    /// The encoded leaf at a height, one bounded step at a time.
    async fn leaf_at(
        &self,
        vault: &VaultRef,
        subject: &VerifiedSubject,
        height: u64,
    ) -> Result<Option<Vec<u8>>, ReadFailure> {
        let mut from = None;
        loop {
            let found = self.at_once(vault, |state, info| {
                let key = subject.state_key();
                match state.last_change(info.id, &key, height, from)? {
                    LastChange::GoOn(next) => Ok(Err(next)),
                    LastChange::Found(None) => Ok(Ok(None)),
                    LastChange::Found(Some(at)) => state.leaf_written_by(info.id, &key, at).map(Ok),
                }
            })?;
            match found {
                Ok(leaf) => return Ok(leaf),
                Err(next) => from = Some(next),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn proof_at(
        &self,
        vault: &VaultRef,
        id: VaultId,
        subject: &VerifiedSubject,
        height: u64,
    ) -> Result<StateProof, ReadFailure> {
        let desk = &self.shared.historical_proofs;
        let Ok(_place) = desk.waiting.try_acquire() else {
            return Err(ReadFailure::Overloaded { retry_after: PROOF_RETRY_AFTER });
        };
        // Never closed.
        let Ok(turn) = Arc::clone(&desk.turn).acquire_owned().await else { return Err(ReadFailure::Stopped) };
        let key_hash = subject.state_key().hash();
        let shared = Arc::clone(&self.shared);
        let proved = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            shared.historical_proofs.prove(&shared.handles.ledger, id, height, &key_hash)
        });
        match proved.await {
            Ok(Ok(proof)) => Ok(proof),
            Ok(Err(ProofRefused::Read(error))) => Err(ReadFailure::of(error, vault)),
            Ok(Err(ProofRefused::HalfApplied(error))) => Err(error.into()),
            Err(_) => Err(ReadFailure::Stopped),
        }
    }
}

/// What was proved is what is served, or nothing is.
fn check_leaf(
    proof: &StateProof,
    header: &BlockHeader,
    subject: &VerifiedSubject,
    leaf: Option<&[u8]>,
) -> Result<(), ReadFailure> {
    let key_hash = subject.state_key().hash();
    let proved = match leaf {
        Some(leaf) => proof.verify_presence(&header.state_root, &key_hash, &sha256(&[leaf])),
        None => proof.verify_absence(&header.state_root, &key_hash),
    };
    proved.map_err(|error| inconsistent(format!("a value at height {} has no proof: {error}", header.height)))
}

fn record_of(leaf: &[u8]) -> Result<Entity, ReadFailure> {
    let leaf =
        LeafValue::decode(leaf).map_err(|error| inconsistent(format!("a leaf does not decode: {error}")))?;
    Ok(Entity {
        value: leaf.value.to_vec().into(),
        version: leaf.version,
        modified_height: leaf.modified_height,
        expires_at_ms: leaf.expires_at_ms,
    })
}

fn inconsistent(what: String) -> ReadFailure {
    ReadFailure::State(StateError::Inconsistent { what })
}

fn required_header(state: &LedgerState, id: VaultId, height: u64) -> Result<BlockHeader, ReadError> {
    let tip = state.tip(id)?.header.height;
    state.header(id, height)?.ok_or(ReadError::HeightUnavailable { asked: height, height: tip })
}

fn scope(info: &VaultInfo, subject: &VerifiedSubject) -> bytes::Bytes {
    match subject {
        VerifiedSubject::Entity(key) => Query { kind: ENTITY_HISTORY, texts: &[key.as_str()] }.scope(info.id),
        VerifiedSubject::Relationship(tuple) => {
            let texts = [tuple.resource.as_str(), tuple.relation.as_str(), tuple.subject.as_str()];
            Query { kind: RELATIONSHIP_HISTORY, texts: &texts }.scope(info.id)
        }
    }
}

fn token(state: &LedgerState, info: &VaultInfo, subject: &VerifiedSubject, next: HistoryCursor) -> String {
    let position = [next.height.to_be_bytes(), next.below.to_be_bytes()].concat();
    page_token::encode(&state.page_key().copied().unwrap_or_default(), &scope(info, subject), &position)
}

fn cursor(
    state: &LedgerState,
    info: &VaultInfo,
    subject: &VerifiedSubject,
    request: &ListRequest,
) -> Result<Option<HistoryCursor>, PageTokenError> {
    if request.page_token.is_empty() {
        return Ok(None);
    }
    let page_key = state.page_key().copied().unwrap_or_default();
    let position = page_token::decode(&page_key, &scope(info, subject), &request.page_token)?;
    let numbers = match position.as_chunks::<8>() {
        ([height, below], []) => (u64::from_be_bytes(*height), u64::from_be_bytes(*below)),
        _ => return Err(PageTokenError::Malformed),
    };
    Ok(Some(HistoryCursor { height: numbers.0, below: numbers.1 }))
}

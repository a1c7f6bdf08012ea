//! Verified reads: nothing is believed that a trusted key did not sign.

use std::sync::Arc;

use ledger_core::entity::EntityKey;
use ledger_core::names::{LedgerId, VaultId, VaultRef};
use ledger_core::relationship::Relationship;
use ledger_proto::v1;
use ledger_verify::Hash;
use ledger_verify::header::BlockHeader;
use ledger_verify::log;
use ledger_verify::note::{Checkpoint, SignedCheckpoint, VerifierKey};
use ledger_verify::proof::{self, Claim, Evidence, Subject};
use ledger_verify::state::StateProof;

use crate::client::LedgerClient;
use crate::error::{ClientError, ErrorCode, Fork};
use crate::pins::{ForkEvidence, Pin, PinError, PinId, PinOutcome, PinStore};
use crate::read::{Consistency, reader};
use crate::retry::Repeatable;
use crate::wire;

/// Rounds of one verified call while others move the pin or the vault is replaced.
pub(crate) const ROUNDS_MAX: u32 = 8;

/// On what the belief in an answer rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The key of the pin, and the checkpoint extends the pinned one.
    Pinned,
    /// The key that the server itself named: this was the first contact with the vault.
    FirstUse,
    /// A key that the caller named.
    VerifierKey,
}

impl Trust {
    /// `pinned`, `first-use` or `vkey`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::FirstUse => "first-use",
            Self::VerifierKey => "vkey",
        }
    }
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An answer that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What was proved.
    pub claim: Claim,
    /// On what the belief rests.
    pub trust: Trust,
    /// The key that signed the checkpoint.
    pub verifier_key: VerifierKey,
    /// The vault that had this name when it was pinned before, when it was another one: it was deleted and created
    /// again, or this is another ledger. Told once, with the first answer of the new vault.
    pub formerly: Option<PinId>,
    /// The proof itself: [`ledger_verify::proof::to_json`] makes a document of it.
    pub evidence: Evidence,
}

/// A checkpoint that was proved to extend the pinned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    /// The C2SP signed note.
    pub note: String,
    /// What it says.
    pub checkpoint: Checkpoint,
    /// On what the belief rests.
    pub trust: Trust,
    /// The key that signed it.
    pub verifier_key: VerifierKey,
    /// The ledger.
    pub ledger_id: LedgerId,
    /// The vault.
    pub vault_id: VaultId,
    /// As in [`Verified::formerly`].
    pub formerly: Option<PinId>,
}

/// What a round starts from.
pub(crate) struct Footing {
    pub(crate) id: PinId,
    pin: Option<Pin>,
    pinned: Option<Checkpoint>,
    pub(crate) keys: Vec<VerifierKey>,
    pub(crate) trust: Trust,
}

impl Footing {
    pub(crate) fn trusted_size(&self) -> u64 {
        self.pinned.as_ref().map_or(0, |checkpoint| checkpoint.size)
    }
}

impl LedgerClient {
    /// An entity or its absence, proved. An expiry that has passed is the caller's to judge:
    /// [`Claim::expired_at`].
    pub async fn verified_get(&self, vault: &VaultRef, key: &EntityKey) -> Result<Verified, ClientError> {
        self.verified_read(vault, &Subject::Entity { key: key.as_str().to_owned() }, None).await
    }

    /// A relationship or its absence, proved.
    pub async fn verified_check(
        &self,
        vault: &VaultRef,
        tuple: &Relationship,
    ) -> Result<Verified, ClientError> {
        let subject = Subject::Relationship {
            resource: tuple.resource.as_str().to_owned(),
            relation: tuple.relation.as_str().to_owned(),
            subject: tuple.subject.as_str().to_owned(),
        };
        self.verified_read(vault, &subject, None).await
    }

    /// The newest checkpoint of a vault, proved to extend the pinned one, which it replaces.
    pub async fn verified_checkpoint(&self, vault: &VaultRef) -> Result<VerifiedCheckpoint, ClientError> {
        for round in 1..=ROUNDS_MAX {
            let _turn = self.take_turn(round).await;
            let footing = self.footing(vault).await?;
            let answer = self.ask_checkpoint(vault, footing.trusted_size()).await?;
            let signed = SignedCheckpoint::parse(&answer.checkpoint)?;
            if signed.checkpoint().origin != proof::log_origin(&footing.id.ledger.0, &footing.id.vault.0) {
                self.forget_vault(vault);
                continue;
            }
            let key = signed.verify(&footing.keys)?.clone();
            let consistency = wire::hashes_from(&answer.consistency, "a hash of the consistency proof")?;
            if self.settle(&footing, &key, &answer.checkpoint, &consistency).await? == PinOutcome::Stored {
                return Ok(VerifiedCheckpoint {
                    formerly: self.name_vault(vault, &footing).await?,
                    checkpoint: signed.checkpoint().clone(),
                    note: answer.checkpoint,
                    trust: footing.trust,
                    verifier_key: key,
                    ledger_id: footing.id.ledger,
                    vault_id: footing.id.vault,
                });
            }
        }
        Err(ClientError::PinContention { tries: ROUNDS_MAX })
    }

    /// The newest value, or the one at a height.
    pub(crate) async fn verified_read(
        &self,
        vault: &VaultRef,
        subject: &Subject,
        height: Option<u64>,
    ) -> Result<Verified, ClientError> {
        for round in 1..=ROUNDS_MAX {
            let _turn = self.take_turn(round).await;
            let footing = self.footing(vault).await?;
            let answer = match height {
                None => self.ask_proof(vault, subject, footing.trusted_size()).await?,
                Some(height) => self.ask_proof_at(vault, subject, height, footing.trusted_size()).await?,
            };
            self.inner.clock.learn(answer.log_time_ms);
            let (evidence, consistency) = evidence_from(answer)?;
            let header = BlockHeader::decode(&evidence.header).map_err(ledger_verify::ProofError::from)?;
            if (header.ledger_id, header.vault_id) != (footing.id.ledger.0, footing.id.vault.0) {
                // Another vault has the name now: its own pin counts.
                self.forget_vault(vault);
                continue;
            }
            let claim = proof::verify(subject, &evidence, &footing.keys)?;
            let key = SignedCheckpoint::parse(&evidence.checkpoint)?.verify(&footing.keys)?.clone();
            if self.settle(&footing, &key, &evidence.checkpoint, &consistency).await? == PinOutcome::Stored {
                let formerly = self.name_vault(vault, &footing).await?;
                return Ok(Verified { claim, trust: footing.trust, verifier_key: key, formerly, evidence });
            }
        }
        Err(ClientError::PinContention { tries: ROUNDS_MAX })
    }

    /// The first round runs beside others; whoever lost a race takes turns.
    pub(crate) async fn take_turn(&self, round: u32) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if round == 1 { None } else { Some(self.inner.verification_turn.lock().await) }
    }

    pub(crate) async fn footing(&self, vault: &VaultRef) -> Result<Footing, ClientError> {
        let id = match self.known_vault(vault) {
            Some(id) => id,
            None => {
                let header = self.tip(vault, Consistency::Eventual).await?.value.header;
                let id = PinId { ledger: LedgerId(header.ledger_id), vault: VaultId(header.vault_id) };
                self.remember_vault(vault, id);
                id
            }
        };
        let pin = self.with_pins(move |pins| pins.load(id)).await?;
        let pinned = pin.as_ref().map(|pin| open_pin(id, pin)).transpose()?;
        let (keys, trust) = match (&self.inner.options.verifier_keys, &pinned) {
            (given, _) if !given.is_empty() => (given.clone(), Trust::VerifierKey),
            (_, Some((_, key))) => (vec![key.clone()], Trust::Pinned),
            (_, None) => (vec![self.node_info().await?.parsed_verifier_key()?], Trust::FirstUse),
        };
        Ok(Footing { id, pin, pinned: pinned.map(|(checkpoint, _)| checkpoint), keys, trust })
    }

    /// Checks that a checkpoint with a good signature extends the pinned one, and pins it.
    pub(crate) async fn settle(
        &self,
        footing: &Footing,
        key: &VerifierKey,
        note: &str,
        consistency: &[Hash],
    ) -> Result<PinOutcome, ClientError> {
        let received = SignedCheckpoint::parse(note)?.checkpoint().clone();
        if let (Some(pin), Some(pinned)) = (&footing.pin, &footing.pinned)
            && let Err(reason) = extends(pinned, &received, consistency)
        {
            let evidence = ForkEvidence {
                pinned: pin.checkpoint.clone(),
                received: note.to_owned(),
                reason: reason.clone(),
            };
            let id = footing.id;
            let evidence = self.with_pins(move |pins| pins.record_fork(id, &evidence)).await?;
            let fork = Fork { pinned_size: pinned.size, received_size: received.size, reason, evidence };
            return Err(ClientError::Fork(Box::new(fork)));
        }
        let new = Pin { verifier_key: key.to_string(), checkpoint: note.to_owned() };
        if footing.pin.as_ref() == Some(&new) {
            return Ok(PinOutcome::Stored);
        }
        let (id, expected) = (footing.id, footing.pin.clone());
        self.with_pins(move |pins| pins.replace(id, expected.as_ref(), &new)).await
    }

    /// Remembers the name of a vault that was not pinned before.
    pub(crate) async fn name_vault(
        &self,
        name: &VaultRef,
        footing: &Footing,
    ) -> Result<Option<PinId>, ClientError> {
        if footing.pin.is_some() {
            return Ok(None);
        }
        let (name, id) = (name.clone(), footing.id);
        self.with_pins(move |pins| pins.name_vault(&name, id)).await
    }

    async fn with_pins<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn PinStore) -> Result<T, PinError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let pins = Arc::clone(&self.inner.pins);
        let done = tokio::task::spawn_blocking(move || work(pins.as_ref())).await;
        done.map_err(|_| ClientError::Stopped)?.map_err(ClientError::from)
    }

    async fn ask_proof(
        &self,
        vault: &VaultRef,
        subject: &Subject,
        trusted_size: u64,
    ) -> Result<v1::VerifiedReadResponse, ClientError> {
        use v1::verified_read_request::Subject as Wire;
        let wire_subject = match subject.clone() {
            Subject::Entity { key } => Wire::Key(key),
            Subject::Relationship { resource, relation, subject } => {
                Wire::Relationship(v1::Relationship { resource, relation, subject })
            }
        };
        let request = |trusted_size| v1::VerifiedReadRequest {
            vault: wire::vault_ref(vault),
            subject: Some(wire_subject.clone()),
            trusted_size,
        };
        let ask = |request| {
            self.call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).verified_read(request).await
            })
        };
        match ask(request(trusted_size)).await {
            Err(error) if may_be_behind(&error, trusted_size) => ask(request(0)).await,
            answer => answer,
        }
    }

    async fn ask_proof_at(
        &self,
        vault: &VaultRef,
        subject: &Subject,
        at_height: u64,
        trusted_size: u64,
    ) -> Result<v1::VerifiedReadResponse, ClientError> {
        use v1::historical_read_request::Subject as Wire;
        let wire_subject = match subject.clone() {
            Subject::Entity { key } => Wire::Key(key),
            Subject::Relationship { resource, relation, subject } => {
                Wire::Relationship(v1::Relationship { resource, relation, subject })
            }
        };
        let request = |trusted_size| v1::HistoricalReadRequest {
            vault: wire::vault_ref(vault),
            subject: Some(wire_subject.clone()),
            at_height,
            include_proof: true,
            trusted_size,
        };
        let ask = |request| {
            self.call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).historical_read(request).await
            })
        };
        let answer = match ask(request(trusted_size)).await {
            Err(error) if may_be_behind(&error, trusted_size) => ask(request(0)).await?,
            answer => answer?,
        };
        answer.proof.ok_or(ClientError::Answer { what: "a verified read without its proof" })
    }

    async fn ask_checkpoint(
        &self,
        vault: &VaultRef,
        trusted_size: u64,
    ) -> Result<v1::GetCheckpointResponse, ClientError> {
        let request = |trusted_size| v1::GetCheckpointRequest { vault: wire::vault_ref(vault), trusted_size };
        let ask = |request| {
            self.call(Repeatable::Always, request, |channel, request| async move {
                reader(channel).get_checkpoint(request).await
            })
        };
        match ask(request(trusted_size)).await {
            Err(error) if may_be_behind(&error, trusted_size) => ask(request(0)).await,
            answer => answer,
        }
    }
}

/// A ledger that lost its tail cannot prove that it extends the pin and refuses. Its own checkpoint, asked for
/// without that proof, then shows how far it went back: that is the evidence to keep.
pub(crate) fn may_be_behind(error: &ClientError, trusted_size: u64) -> bool {
    trusted_size > 0 && matches!(error.code(), ErrorCode::InvalidArgument | ErrorCode::ConditionFailed)
}

pub(crate) fn extends(pinned: &Checkpoint, received: &Checkpoint, path: &[Hash]) -> Result<(), String> {
    if received.size < pinned.size {
        return Err(format!("{} blocks are gone", pinned.size - received.size));
    }
    if received.size == pinned.size {
        let same = received.root == pinned.root;
        return if same { Ok(()) } else { Err("two roots for one size".to_owned()) };
    }
    log::verify_consistency(pinned.size, received.size, path, &pinned.root, &received.root)
        .map_err(|error| format!("the new checkpoint does not extend the old one ({error})"))
}

/// A pin is checked like a stranger's note: whoever can write the file shall not choose what is trusted quietly.
fn open_pin(id: PinId, pin: &Pin) -> Result<(Checkpoint, VerifierKey), ClientError> {
    let name = || format!("of vault {} of ledger {}", id.vault, id.ledger);
    let damaged = |reason: String| PinError::Damaged { path: name(), reason };
    let key: VerifierKey = pin.verifier_key.parse().map_err(|error| damaged(format!("{error}")))?;
    let checkpoint = SignedCheckpoint::open(&pin.checkpoint, std::slice::from_ref(&key))
        .map_err(|error| damaged(format!("{error}")))?;
    if checkpoint.origin != proof::log_origin(&id.ledger.0, &id.vault.0) {
        return Err(damaged("its checkpoint is one of another vault".to_owned()).into());
    }
    Ok((checkpoint, key))
}

pub(crate) fn evidence_from(answer: v1::VerifiedReadResponse) -> Result<(Evidence, Vec<Hash>), ClientError> {
    let other_leaf = match &answer.other_leaf {
        None => None,
        Some(other) => Some((
            wire::hash_from(&other.key_hash, "the other leaf's key hash")?,
            wire::hash_from(&other.value_hash, "the other leaf's value hash")?,
        )),
    };
    let evidence = Evidence {
        leaf: answer.leaf.map(|leaf| leaf.to_vec()),
        state_proof: StateProof {
            siblings: wire::hashes_from(&answer.siblings, "a hash of the state proof")?,
            other_leaf,
        },
        header: answer.header.to_vec(),
        inclusion_path: wire::hashes_from(&answer.inclusion, "a hash of the inclusion proof")?,
        checkpoint: answer.checkpoint,
    };
    Ok((evidence, wire::hashes_from(&answer.consistency, "a hash of the consistency proof")?))
}

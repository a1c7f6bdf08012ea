//! `strongroom ledger get`

use clap::Args;
use ledger_client::{Consistency, HistorySubject, PinId, Verified};
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultRef;
use serde_json::json;

use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::{clock, record, table};

/// Read one entity. Exit code 3 when it does not exist; with --verify --json the proved absence is printed too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger get acme/prod door:front\n  \
    strongroom ledger get acme/prod door:front --verify --json\n  \
    strongroom ledger get acme/prod door:front --at 17 --verify")]
pub struct Get {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(value_parser = super::entity_key)]
    key: EntityKey,
    /// Read what it held at this block instead of now.
    #[arg(long, value_name = "HEIGHT")]
    at: Option<u64>,
    /// Believe nothing that is not proved: check the whole proof, and that history was only appended to.
    #[arg(long, alias = "verified")]
    verify: bool,
    /// Read what the node has, without asking whether it is the newest.
    #[arg(long, conflicts_with_all = ["verify", "at"])]
    eventual: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Get {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let is_verified = self.verify || !self.trust.verifier_keys.is_empty();
        match self.at {
            _ if is_verified => self.verified(output).await,
            Some(height) => self.plain_at(height, output).await,
            None => self.plain(output).await,
        }
    }

    async fn plain_at(self, height: u64, output: Output) -> Result<(), Failure> {
        let subject = HistorySubject::Entity(self.key.clone());
        let read = self.server.client()?.get_at(&self.vault, &subject, height).await?;
        let Some(entity) = read.record else {
            return Err(absent(&self.key, &format!("at block {height} there was no key")));
        };
        if output.is_json() {
            let mut record = record::entity(&self.key, &entity);
            extend(
                &mut record,
                json!({ "height": height, "time_ms": read.header.time_ms, "verified": false }),
            );
            return output.json_line(&record);
        }
        output.bytes(&entity.value)?;
        end_line(output, &entity.value)?;
        output.note(&format!(
            "version {}  block {}  as of block {height}",
            entity.version, entity.modified_height
        ));
        Ok(())
    }

    async fn plain(self, output: Output) -> Result<(), Failure> {
        let consistency = if self.eventual { Consistency::Eventual } else { Consistency::Linearizable };
        let read = self.server.client()?.get(&self.vault, &self.key, consistency).await?;
        let Some(entity) = read.value else { return Err(absent(&self.key, "there is no key")) };
        if output.is_json() {
            let mut record = record::entity(&self.key, &entity);
            extend(
                &mut record,
                json!({ "height": read.height, "log_time_ms": read.log_time_ms, "verified": false }),
            );
            return output.json_line(&record);
        }
        output.bytes(&entity.value)?;
        end_line(output, &entity.value)?;
        output.note(&format!("version {}  block {}", entity.version, entity.modified_height));
        Ok(())
    }

    async fn verified(self, output: Output) -> Result<(), Failure> {
        let client = self.server.trusting_client(&self.trust)?;
        let verified = match self.at {
            None => client.verified_get(&self.vault, &self.key).await?,
            Some(height) => {
                let subject = HistorySubject::Entity(self.key.clone());
                client.verified_get_at(&self.vault, &subject, height).await?
            }
        };
        note_trust(output, &self.vault, &verified);
        // At a height, the time of its block counts.
        let now_ms = if self.at.is_some() { verified.claim.time_ms } else { clock::now_ms() };
        let expired = verified.claim.expired_at(now_ms);
        if output.is_json() {
            // A proved absence is an answer too.
            let mut record = record::claim(&verified.claim, now_ms);
            extend(&mut record, trust_fields(&self.vault, &verified));
            output.json_line(&record)?;
        }
        if !verified.claim.present || expired {
            let absence = if expired {
                let at = table::time(verified.claim.expires_at_ms);
                Failure::not_found(format!("proved: the key {} expired at {at}", self.key.as_str()))
            } else {
                absent(&self.key, "proved: there is no key")
            };
            return Err(absence.with_details(absence_fields(&self.vault, &verified, expired)));
        }
        if output.is_json() {
            return Ok(());
        }
        let value = verified.claim.value.unwrap_or_default();
        output.bytes(&value)?;
        end_line(output, &value)
    }
}

/// What programs read beside a claim that was verified online.
pub fn trust_fields(vault: &VaultRef, verified: &Verified) -> serde_json::Value {
    let mut fields = json!({ "verified": true, "trust": verified.trust.as_str() });
    extend(&mut fields, warning_field(vault, verified.formerly));
    fields
}

/// What an absence is as of, for the error object.
fn absence_fields(vault: &VaultRef, verified: &Verified, expired: bool) -> serde_json::Value {
    let claim = &verified.claim;
    let mut fields = json!({
        "height": claim.height,
        "time_ms": claim.time_ms,
        "checkpoint_size": claim.checkpoint_size,
        "expired": expired,
    });
    extend(&mut fields, trust_fields(vault, verified));
    fields
}

/// The field `warning`, when another vault had the name before.
pub fn warning_field(vault: &VaultRef, formerly: Option<PinId>) -> serde_json::Value {
    formerly.map_or_else(|| json!({}), |formerly| json!({ "warning": renamed(vault, formerly) }))
}

/// The same for people.
pub fn note_renamed(output: Output, vault: &VaultRef, formerly: Option<PinId>) {
    if let Some(formerly) = formerly {
        output.note(&format!("warning: {}", renamed(vault, formerly)));
    }
}

fn renamed(vault: &VaultRef, formerly: PinId) -> String {
    format!(
        "{vault} was pinned before as vault {} of ledger {}: it was deleted and created again, or this is another ledger",
        formerly.vault, formerly.ledger
    )
}

/// On what the belief in a verified answer rests, for people.
pub fn note_trust(output: Output, vault: &VaultRef, verified: &Verified) {
    let claim = &verified.claim;
    note_renamed(output, vault, verified.formerly);
    output.note(&format!(
        "verified at block {} of {} (trust: {})",
        claim.height,
        claim.checkpoint_size - 1,
        verified.trust
    ));
    if verified.trust == ledger_client::Trust::FirstUse {
        output.note(&format!("first use: pinned the key {}", verified.verifier_key));
    }
}

fn absent(key: &EntityKey, words: &str) -> Failure {
    Failure::not_found(format!("{words} {}", key.as_str()))
}

/// Text gets a line end where a person looks at it; bytes in a pipe stay as they are.
fn end_line(output: Output, value: &[u8]) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    let wanted = std::io::stdout().is_terminal() && !value.ends_with(b"\n");
    if wanted { output.bytes(b"\n") } else { Ok(()) }
}

/// Adds the fields of one JSON object to another.
pub fn extend(record: &mut serde_json::Value, more: serde_json::Value) {
    if let (Some(record), serde_json::Value::Object(more)) = (record.as_object_mut(), more) {
        record.extend(more);
    }
}

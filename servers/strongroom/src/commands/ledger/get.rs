//! `strongroom ledger get`

use clap::Args;
use ledger_client::{Consistency, Verified};
use ledger_core::entity::EntityKey;
use ledger_core::names::VaultRef;
use serde_json::json;

use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::{clock, record, table};

/// Read one entity. Exit code 3 when it does not exist.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger get acme/prod door:front\n  \
    strongroom ledger get acme/prod door:front --verify --json")]
pub struct Get {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key.
    #[arg(value_parser = super::entity_key)]
    key: EntityKey,
    /// Believe nothing that is not proved: check the whole proof, and that history was only appended to.
    #[arg(long)]
    verify: bool,
    /// Read what the node has, without asking whether it is the newest.
    #[arg(long, conflicts_with = "verify")]
    eventual: bool,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Get {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        if self.verify || !self.trust.verifier_keys.is_empty() {
            self.verified(output).await
        } else {
            self.plain(output).await
        }
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
        let verified = client.verified_get(&self.vault, &self.key).await?;
        note_trust(output, &verified);
        if !verified.claim.present {
            return Err(absent(&self.key, "proved: there is no key"));
        }
        let now_ms = clock::now_ms();
        if verified.claim.expired_at(now_ms) {
            let at = table::time(verified.claim.expires_at_ms);
            return Err(Failure::not_found(format!("proved: the key {} expired at {at}", self.key.as_str())));
        }
        if output.is_json() {
            let mut record = record::claim(&verified.claim, now_ms);
            extend(&mut record, json!({ "verified": true, "trust": verified.trust.as_str() }));
            return output.json_line(&record);
        }
        let value = verified.claim.value.unwrap_or_default();
        output.bytes(&value)?;
        end_line(output, &value)
    }
}

/// On what the belief in a verified answer rests, for people.
pub fn note_trust(output: Output, verified: &Verified) {
    let claim = &verified.claim;
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

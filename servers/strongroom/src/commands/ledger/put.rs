//! `strongroom ledger put`

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ledger_core::entity::{EntityKey, EntityValue, VALUE_BYTES_MAX};
use ledger_core::names::VaultRef;
use ledger_core::transaction::{Action, Operation};

use super::condition::ConditionArgs;
use super::submit::{self, IdempotencyArgs};
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::ttl;

/// Write one entity.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger put acme/prod door:front '{\"state\":\"locked\"}'\n  \
    strongroom ledger put acme/prod session:1 ok --ttl 60s --if-absent\n  \
    strongroom ledger put acme/prod image --file photo.jpg")]
pub struct Put {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The key, 1 to 1,024 bytes.
    #[arg(value_parser = super::entity_key)]
    key: EntityKey,
    /// The value, at most 1 MiB. `-` reads standard input.
    #[arg(required_unless_present = "file", conflicts_with = "file", allow_hyphen_values = true)]
    value: Option<String>,
    /// File with the value.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Hide the entity after this time, such as 60s, 5m, 12h, 30d. It counts from the time of the write's idempotency
    /// key: repeated under that key, the write is the same.
    #[arg(long, value_name = "DURATION", value_parser = ttl::parse)]
    ttl: Option<Duration>,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    idempotency: IdempotencyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Put {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let value = read_value(self.value, self.file)?;
        let value = EntityValue::new(value).map_err(|error| Failure::usage(error.to_string()))?;
        let condition = self.condition.condition()?;
        let client = self.server.client()?;
        let operations = |expires_at_ms| {
            let action = Action::SetEntity { key: self.key.clone(), value: value.clone(), expires_at_ms };
            vec![Operation { action, condition: condition.clone() }]
        };
        let (vault, idempotency) = (&self.vault, &self.idempotency);
        let receipt = match self.ttl {
            None => submit::submit(&client, vault, operations(0), idempotency).await?,
            Some(ttl) => {
                let expiring =
                    |base_ms| Ok(operations(ttl::expires_at_ms(base_ms, ttl).map_err(Failure::usage)?));
                submit::submit_expiring(&client, vault, expiring, idempotency).await?
            }
        };
        submit::print(output, &receipt, self.key.as_str())
    }
}

fn read_value(value: Option<String>, file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more than allowed is read, so that the limit speaks.
    let limit = VALUE_BYTES_MAX as u64 + 1;
    match (value, file) {
        (Some(value), _) if value != "-" => bytes = value.into_bytes(),
        (_, Some(path)) => {
            let failed = |error: std::io::Error| Failure::file("read", &path, &error);
            let file = std::fs::File::open(&path).map_err(failed)?;
            let metadata = file.metadata().map_err(failed)?;
            if metadata.is_file() && metadata.len() > VALUE_BYTES_MAX as u64 {
                return Err(too_large(&path.display().to_string(), &format!("has {}", metadata.len())));
            }
            file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
            refuse_cut(&path.display().to_string(), &bytes)?;
        }
        _ => {
            let read = std::io::stdin().lock().take(limit).read_to_end(&mut bytes);
            read.map_err(|error| Failure::error(format!("cannot read standard input: {error}")))?;
            refuse_cut("standard input", &bytes)?;
        }
    }
    Ok(bytes)
}

/// A pipe does not tell its size.
fn refuse_cut(what: &str, bytes: &[u8]) -> Result<(), Failure> {
    if bytes.len() > VALUE_BYTES_MAX { Err(too_large(what, "has more")) } else { Ok(()) }
}

fn too_large(what: &str, size: &str) -> Failure {
    Failure::usage(format!("an entity value has at most {VALUE_BYTES_MAX} bytes (1 MiB), {what} {size}"))
}

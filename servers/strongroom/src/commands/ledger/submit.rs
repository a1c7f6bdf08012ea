//! One transaction per invocation.

use clap::Args;
use ledger_client::{ClientError, LedgerClient};
use ledger_core::command::Receipt;
use ledger_core::names::VaultRef;
use ledger_core::transaction::{IdempotencyKey, Operation, Transaction};

use crate::failure::Failure;
use crate::output::Output;
use crate::record;

/// Under which key a write is sent.
#[derive(Debug, Clone, Args)]
pub struct IdempotencyArgs {
    /// UUIDv7 of this write. Give the one that an error named to repeat a write whose outcome is unknown: it
    /// happens at most once. Times to live count from the key's own time.
    #[arg(long, value_name = "UUID", value_parser = idempotency_key)]
    pub idempotency_key: Option<IdempotencyKey>,
}

fn idempotency_key(text: &str) -> Result<IdempotencyKey, String> {
    let digits: String = text.chars().filter(|character| *character != '-').collect();
    let bytes = hex::decode(digits).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| format!("{text:?} is not a UUID"))?;
    IdempotencyKey::new(bytes).map_err(|error| error.to_string())
}

/// Sends operations whose expiries count from the time of their own idempotency key, so that a repeated command
/// is the same transaction. `operations` makes them for that time, unix milliseconds.
pub async fn submit_expiring(
    client: &LedgerClient,
    vault: &VaultRef,
    operations: impl Fn(u64) -> Result<Vec<Operation>, Failure>,
    idempotency: &IdempotencyArgs,
) -> Result<Receipt, Failure> {
    match idempotency.idempotency_key {
        None => client.write_expiring(vault, operations).await,
        Some(key) => write_under(client, vault, key, operations(key.unix_ms())?).await,
    }
}

/// Sends the operations as one transaction.
pub async fn submit(
    client: &LedgerClient,
    vault: &VaultRef,
    operations: Vec<Operation>,
    idempotency: &IdempotencyArgs,
) -> Result<Receipt, Failure> {
    match idempotency.idempotency_key {
        None => Ok(client.write(vault, operations).await?),
        Some(key) => write_under(client, vault, key, operations).await,
    }
}

async fn write_under(
    client: &LedgerClient,
    vault: &VaultRef,
    key: IdempotencyKey,
    operations: Vec<Operation>,
) -> Result<Receipt, Failure> {
    let transaction = Transaction::new(key, operations).map_err(ClientError::from)?;
    Ok(client.write_transaction(vault, &transaction).await?)
}

/// Prints a receipt: for people what happened to `what`, and where it stands.
pub fn print(output: Output, receipt: &Receipt, what: &str) -> Result<(), Failure> {
    output.result(&record::receipt(receipt), || {
        let mut results: Vec<String> = Vec::new();
        for result in &receipt.results {
            let name = record::result_name(*result).to_lowercase().replace('_', " ");
            if !results.contains(&name) {
                results.push(name);
            }
        }
        let replayed = if receipt.replayed { "  (repeated: this had happened before)" } else { "" };
        format!(
            "{}  {what}  version {}  block {}{replayed}",
            results.join(", "),
            receipt.version,
            receipt.height
        )
    })
}

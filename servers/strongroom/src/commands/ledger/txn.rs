//! `strongroom ledger txn`

use std::path::PathBuf;

use clap::Args;
use ledger_core::names::VaultRef;
use ledger_core::transaction::Operation;
use serde::Deserialize;

use super::submit::{self, IdempotencyArgs};
use super::transaction_file::OperationText;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;

/// Largest file: the text of a transaction of 4 MiB, with room for escapes.
const FILE_BYTES_MAX: u64 = 32 * 1_048_576;

/// Write one transaction from a JSON file: all operations or none, in order.
#[derive(Debug, Args)]
#[command(after_help = r#"The file:
  {"operations": [
    {"op": "put", "key": "K", "value": "TEXT", "ttl": "60s"},
    {"op": "put", "key": "K", "value_base64": "AAEC", "if_version": 7},
    {"op": "delete", "key": "K", "if_exists": true},
    {"op": "relate", "resource": "doc:plan", "relation": "viewer", "subject": "user:ada"},
    {"op": "unrelate", "resource": "doc:plan", "relation": "viewer", "subject": "user:bob"},
    {"op": "assert", "key": "K", "if_value": "TEXT"}
  ]}
Conditions, one per operation: "if_absent": true, "if_exists": true, "if_version": N, "if_value": TEXT,
"if_value_base64": BASE64. An assert writes nothing and needs one. At most 1,000 operations and 4 MiB.

Example:
  strongroom ledger txn acme/prod move.json"#)]
pub struct Txn {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The file; `-` reads standard input.
    file: PathBuf,
    #[command(flatten)]
    idempotency: IdempotencyArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionText {
    operations: Vec<OperationText>,
}

impl Txn {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let shown = self.file.display().to_string();
        let bytes = read(&self.file)?;
        let text: TransactionText = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::usage(format!("{shown}: {error}")).with_hint("see strongroom ledger txn --help")
        })?;
        let client = self.server.client()?;
        let operations = |base_ms: u64| -> Result<Vec<Operation>, Failure> {
            let operation = |(index, text): (usize, &OperationText)| {
                text.operation(base_ms)
                    .map_err(|reason| Failure::usage(format!("{shown}: operation {index}: {reason}")))
            };
            text.operations.iter().enumerate().map(operation).collect()
        };
        let (vault, idempotency) = (&self.vault, &self.idempotency);
        let receipt = if text.operations.iter().any(OperationText::expires) {
            submit::submit_expiring(&client, vault, operations, idempotency).await?
        } else {
            submit::submit(&client, vault, operations(0)?, idempotency).await?
        };
        submit::print(output, &receipt, &format!("{} operations", text.operations.len()))
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Failure::usage(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

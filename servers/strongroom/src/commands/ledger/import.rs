//! `strongroom ledger import`

mod chunks;
mod journal;
mod progress;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ledger_client::{ClientError, Consistency, LedgerClient};
use ledger_core::command::Receipt;
use ledger_core::names::VaultRef;
use ledger_core::transaction::Transaction;
use serde_json::json;

use self::chunks::{Chunk, ChunkReader, Survey};
use self::journal::{Journal, Target};
use self::progress::Progress;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::record;

/// Transactions under way at once.
const IN_FLIGHT_MAX: usize = 8;

/// Write many entities and relationships from a file of JSON lines. An interrupted import goes on where it stopped;
/// the same file again within 24 hours changes nothing twice.
#[derive(Debug, Args)]
#[command(after_help = r#"Lines:
  {"op": "put", "key": "door:front", "value": "locked", "ttl": "30d"}
  {"op": "put", "key": "photo", "value_base64": "AAEC"}
  {"op": "relate", "resource": "pkg:libc6", "relation": "required_by", "subject": "pkg:bash"}
The whole file is checked first: a bad line is named and nothing is written. Up to 500 lines become one
transaction; later lines win over earlier ones.

Example:
  strongroom ledger import acme/prod records.jsonl"#)]
pub struct Import {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The file.
    file: PathBuf,
    /// Forget an earlier import of the same file: write everything again.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What one import did.
#[derive(Debug, Default)]
struct Tally {
    results: BTreeMap<String, u64>,
    replayed_chunks: u64,
    height: u64,
}

impl Tally {
    fn count(&mut self, receipt: &Receipt) {
        for result in &receipt.results {
            *self.results.entry(record::result_name(*result).to_owned()).or_default() += 1;
        }
        self.replayed_chunks += u64::from(receipt.replayed);
        self.height = self.height.max(receipt.height);
    }
}

impl Import {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        let survey = Survey::of(&self.file)?;
        let client = self.server.client()?;
        let header = client.tip(&self.vault, Consistency::Linearizable).await?.value.header;
        let target =
            Target { ledger_id: header.ledger_id, vault_id: header.vault_id, file_sha256: survey.sha256 };
        let base_ms = client.expiry_base_ms().await?;
        let mut journal = Journal::open(target, base_ms, self.again)?;
        let resumed = journal.resume_at();
        let mut progress = Progress::new(output, survey.operations);
        if resumed > 0 {
            output.note(&format!("goes on after chunk {resumed} of {}", survey.chunks));
        }
        let started = Instant::now();
        let sent = self.send(&client, &mut journal, &mut progress, resumed).await;
        // What is acknowledged is remembered, whatever else happened.
        journal.save()?;
        progress.finish();
        let tally = sent.map_err(|failure| go_on_hint(failure, &journal))?;
        journal.complete()?;
        self.report(output, &survey, &tally, resumed, started)
    }

    /// Sends the chunks from `first` on, several at once.
    async fn send(
        &self,
        client: &LedgerClient,
        journal: &mut Journal,
        progress: &mut Progress,
        first: u64,
    ) -> Result<Tally, Failure> {
        let mut tally = Tally { results: journal.results().clone(), ..Tally::default() };
        let mut reader = ChunkReader::open(&self.file, journal.base_ms())?;
        let mut in_flight = FuturesUnordered::new();
        let mut keys_in_flight = KeysInFlight::default();
        while let Some(chunk) = reader.next_chunk()? {
            if chunk.number < first {
                progress.add(chunk.operations.len());
                continue;
            }
            // Two chunks that touch one key must be applied in the order of the file.
            while in_flight.len() >= IN_FLIGHT_MAX || keys_in_flight.meet(&chunk) {
                let Some(done) = in_flight.next().await else { break };
                acknowledge(done, journal, progress, &mut tally, &mut keys_in_flight)?;
            }
            keys_in_flight.add(&chunk);
            let key = journal.idempotency_key(chunk.number);
            let transaction = Transaction::new(key, chunk.operations.clone()).map_err(|error| {
                let failure = Failure::from(ClientError::from(error));
                let place = format!("{}:{}", self.file.display(), chunk.first_line);
                Failure { message: format!("{place}: {}", failure.message), ..failure }
            })?;
            in_flight.push(async move { (client.write_transaction(&self.vault, &transaction).await, chunk) });
        }
        while let Some(done) = in_flight.next().await {
            acknowledge(done, journal, progress, &mut tally, &mut keys_in_flight)?;
        }
        if reader.sha256() != journal.target().file_sha256 {
            return Err(Failure::error(format!("{} changed while it was imported", self.file.display()))
                .with_hint("import it again once nobody writes it"));
        }
        Ok(tally)
    }

    fn report(
        &self,
        output: Output,
        survey: &Survey,
        tally: &Tally,
        resumed: u64,
        started: Instant,
    ) -> Result<(), Failure> {
        let seconds = started.elapsed().as_secs_f64();
        let document = json!({
            "file": self.file.display().to_string(),
            "sha256": hex::encode(survey.sha256),
            "operations": survey.operations,
            "chunks": survey.chunks,
            "resumed_after_chunk": resumed,
            "replayed_chunks": tally.replayed_chunks,
            "results": tally.results,
            "height": tally.height,
            "seconds": (seconds * 1_000.0).round() / 1_000.0,
        });
        output.result(&document, || {
            let mut text = format!(
                "imported  {} operations in {} chunks, {seconds:.1} s\n",
                survey.operations, survey.chunks
            );
            for (result, count) in &tally.results {
                text.push_str(&format!("  {:<15} {count}\n", result.to_lowercase().replace('_', " ")));
            }
            if tally.replayed_chunks > 0 {
                text.push_str(&format!(
                    "  {} chunks had been written before and changed nothing (--again writes them anew)\n",
                    tally.replayed_chunks
                ));
            }
            text
        })
    }
}

fn acknowledge(
    (answer, chunk): (Result<Receipt, ledger_client::ClientError>, Chunk),
    journal: &mut Journal,
    progress: &mut Progress,
    tally: &mut Tally,
    keys_in_flight: &mut KeysInFlight,
) -> Result<(), Failure> {
    keys_in_flight.remove(&chunk);
    let receipt = answer.map_err(|error| {
        let mut failure = Failure::from(error);
        failure.message = format!("lines {} to {}: {}", chunk.first_line, chunk.last_line, failure.message);
        failure
    })?;
    tally.count(&receipt);
    progress.add(chunk.operations.len());
    journal.acknowledge(chunk.number, &receipt)
}

fn go_on_hint(failure: Failure, journal: &Journal) -> Failure {
    let hint = format!("{} chunks are written; run the same command again to go on", journal.resume_at());
    let hint = match &failure.hint {
        Some(first) => format!("{first}; {hint}"),
        None => hint,
    };
    failure.with_hint(hint)
}

/// Which keys the chunks under way write.
#[derive(Default)]
struct KeysInFlight(HashSet<String>);

impl KeysInFlight {
    fn meet(&self, chunk: &Chunk) -> bool {
        chunk.keys.iter().any(|key| self.0.contains(key))
    }

    fn add(&mut self, chunk: &Chunk) {
        self.0.extend(chunk.keys.iter().cloned());
    }

    fn remove(&mut self, chunk: &Chunk) {
        for key in &chunk.keys {
            self.0.remove(key);
        }
    }
}

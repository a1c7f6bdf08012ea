//! `strongroom ledger watch`

use clap::{ArgGroup, Args};
use ledger_client::{BlockContent, Consistency, WatchFilter, WatchProofs, WatchRequest, WatchedBlock};
use ledger_core::names::VaultRef;
use ledger_core::relationship::Resource;
use serde_json::{Value, json};

use super::get::extend;
use crate::discovery::{ServerArgs, TrustArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// Follow the blocks of a vault: those that are there from a height on, then those that come. None is left out, also
/// when the connection breaks or the server restarts meanwhile. With --json one object a line.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which").multiple(false),
    after_help = "Examples:\n  \
        strongroom ledger watch acme/prod\n  \
        strongroom ledger watch acme/prod --from 0 --proofs --json\n  \
        strongroom ledger watch acme/prod --prefix door: --bodies --json"
)]
pub struct Watch {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The first block, 0 = from the beginning. Default: what comes.
    #[arg(long, value_name = "HEIGHT")]
    from: Option<u64>,
    /// Only blocks that changed an entity whose key starts with this.
    #[arg(long, group = "which", value_name = "TEXT")]
    prefix: Option<String>,
    /// Only blocks that changed a relationship of this resource.
    #[arg(long, group = "which", value_name = "RESOURCE", value_parser = super::resource)]
    resource: Option<Resource>,
    /// Only blocks that changed an entity.
    #[arg(long, group = "which")]
    entities: bool,
    /// Only blocks that changed a relationship.
    #[arg(long, group = "which")]
    relationships: bool,
    /// With their transactions, those that were chosen (JSON only).
    #[arg(long)]
    bodies: bool,
    /// Believe only blocks that prove that they stand in the signed log.
    #[arg(long)]
    proofs: bool,
    /// End after so many blocks. Default: never.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    server: ServerArgs,
}

impl Watch {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        if self.bodies && !output.is_json() {
            return Err(Failure::usage("--bodies needs --json"));
        }
        let client = self.server.trusting_client(&self.trust)?;
        let from = match self.from {
            Some(from) => from,
            None => client.tip(&self.vault, Consistency::Linearizable).await?.height + 1,
        };
        let mut stream = client.watch(&self.vault, self.request(from)).await?;
        let mut left = self.count.unwrap_or(u64::MAX);
        while left > 0 {
            let block = stream.next().await?;
            output.result(&self.record(&block), || shown(&block))?;
            left -= 1;
        }
        Ok(())
    }

    fn request(&self, from: u64) -> WatchRequest {
        let filter = if let Some(prefix) = &self.prefix {
            WatchFilter::Entities { prefix: prefix.clone() }
        } else if self.entities {
            WatchFilter::Entities { prefix: String::new() }
        } else if self.resource.is_some() || self.relationships {
            WatchFilter::Relationships { resource: self.resource.clone() }
        } else {
            WatchFilter::All
        };
        let is_verified = self.proofs || !self.trust.verifier_keys.is_empty();
        WatchRequest {
            from,
            filter,
            content: if self.bodies { BlockContent::Transactions } else { BlockContent::Header },
            proofs: if is_verified { WatchProofs::Verified } else { WatchProofs::Without },
        }
    }

    fn record(&self, block: &WatchedBlock) -> Value {
        let mut record = record::header(&block.header, &block.block_hash);
        let verified = block.proved_under.is_some();
        extend(&mut record, json!({ "verified": verified, "checkpoint_size": block.proved_under }));
        if self.bodies {
            let transactions: Vec<_> = block
                .transactions
                .iter()
                .map(|(index, transaction)| record::transaction(*index, transaction))
                .collect();
            extend(&mut record, json!({ "transactions": transactions }));
        }
        record
    }
}

fn shown(block: &WatchedBlock) -> String {
    let header = &block.header;
    let proved = block.proved_under.map(|size| format!("  proved under {size}")).unwrap_or_default();
    let (time, hash) = (table::time(header.time_ms), hex::encode(block.block_hash));
    format!("{}  {time}  {} transactions  {hash}{proved}", header.height, header.tx_count)
}

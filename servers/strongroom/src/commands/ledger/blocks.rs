//! `strongroom ledger blocks`

use clap::Args;
use ledger_client::{Block, BlockContent, Consistency};
use ledger_core::names::VaultRef;
use serde_json::{Value, json};

use super::get::extend;
use crate::discovery::ServerArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::{record, table};

/// Blocks in one call of the protocol.
const RANGE_BLOCKS_MAX: u64 = 1_000;

/// Show the blocks of a vault in order. Each is held to the one before it; what is shown is not otherwise verified.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    strongroom ledger blocks acme/prod\n  \
    strongroom ledger blocks acme/prod --from 0 --limit 1000 --bodies --json")]
pub struct Blocks {
    /// NAMESPACE/VAULT.
    vault: VaultRef,
    /// The first block. Default: so that the newest is the last.
    #[arg(long, value_name = "HEIGHT")]
    from: Option<u64>,
    /// Most blocks to show.
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u64,
    /// With their transactions (JSON only).
    #[arg(long)]
    bodies: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Blocks {
    /// Runs the command.
    pub async fn run(self, output: Output) -> Result<(), Failure> {
        if self.bodies && !output.is_json() {
            return Err(Failure::usage("--bodies needs --json"));
        }
        let client = self.server.client()?;
        let mut next = match self.from {
            Some(from) => Some(from),
            None => {
                let tip = client.tip(&self.vault, Consistency::Linearizable).await?;
                Some((tip.height + 1).saturating_sub(self.limit))
            }
        };
        let content = if self.bodies { BlockContent::Transactions } else { BlockContent::Header };
        let mut blocks: Vec<Block> = Vec::new();
        while let Some(from) = next.filter(|_| (blocks.len() as u64) < self.limit) {
            let room = (self.limit - blocks.len() as u64).min(RANGE_BLOCKS_MAX);
            // At most 1,000.
            let room = u32::try_from(room).unwrap_or(1);
            let range = client.block_range(&self.vault, from, room, content).await?.value;
            blocks.extend(range.blocks);
            next = range.next_height;
        }
        let document = json!({ "blocks": blocks.iter().map(|block| self.record(block)).collect::<Vec<_>>() });
        output.result(&document, || shown(&blocks))
    }

    fn record(&self, block: &Block) -> Value {
        let mut record = record::header(&block.header, &block.block_hash);
        if self.bodies {
            let indexed = (0_u32..).zip(&block.transactions);
            let transactions: Vec<_> =
                indexed.map(|(index, transaction)| record::transaction(index, transaction)).collect();
            extend(&mut record, json!({ "transactions": transactions }));
        }
        record
    }
}

fn shown(blocks: &[Block]) -> String {
    let row = |block: &Block| {
        vec![
            block.header.height.to_string(),
            table::time(block.header.time_ms),
            block.header.tx_count.to_string(),
            block.header.last_sequence.to_string(),
            hex::encode(block.block_hash),
        ]
    };
    let rows: Vec<_> = blocks.iter().map(row).collect();
    table::render(&["block", "time", "transactions", "version", "hash"], &rows)
}

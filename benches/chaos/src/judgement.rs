//! What clients were told, against what the nodes have in the end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ledger_client::{BlockContent, Consistency, LedgerClient, Tip};
use ledger_core::names::VaultRef;
use ledger_simulation::dice::Dice;
use ledger_simulation::evidence::Evidence;
use ledger_simulation::violation::Violation;
use ledger_verify::note::VerifierKey;

use crate::fleet::endpoint;
use crate::load::{Caller, Load};
use crate::scene::Scene;
use crate::settings::NODES;
use crate::table::Verdict;

/// By then every node has everything.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Blocks that are asked for at a time.
const BLOCKS_AT_A_TIME: u32 = 500;
/// The number of the client that reads everything in the end.
const LAST_READER: u32 = 1_000;

/// Reads everything once more, collects the chains of all nodes, and compares.
pub async fn judge(
    scene: &mut Scene,
    load: &Arc<Load>,
    verifier_key: VerifierKey,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mut options = scene.client_options();
    options.verifier_keys = vec![verifier_key];
    let client = scene.client(options)?;
    let mut reader = Caller::new(Arc::clone(load), client, LAST_READER, Dice::new(0, "last reader"));
    for key in load.keys() {
        if !reader.get(key).await {
            verdict.problems.push(format!("key {key} cannot be read after everything was healed"));
        }
    }
    let mut evidence = scene.sight.take_evidence();
    let (tips, chains) = collect(scene, &mut evidence).await?;
    for violation in differences(&tips) {
        evidence.report(violation);
    }
    let records = load.records.lock();
    evidence.judge(&records);
    let counters = records.counters;
    verdict.happened("changes of the leader", evidence.leader_changes());
    verdict.table.row("terms with a leader", evidence.elections(), "");
    verdict.happened("writes acknowledged", counters.writes);
    verdict.happened("conditions that did not hold", counters.refusals);
    verdict.happened("linearizable reads", counters.reads);
    verdict.happened("checkpoints verified", counters.checkpoints);
    verdict.table.row("calls that certainly failed", load.failed.load(Ordering::Relaxed), "");
    verdict.happened("writes without an outcome", counters.unknown + counters.undecided_refusals);
    verdict.happened("writes answered to a repeated key", counters.replays);
    verdict.table.row("blocks of each node", chains, "");
    let problems = evidence.violations().iter().map(ToString::to_string);
    verdict.problems.extend(problems);
    one_cluster(scene, verdict)
}

/// Waits until all nodes have the same number of blocks, and takes all of them in from each.
async fn collect(scene: &Scene, evidence: &mut Evidence) -> anyhow::Result<(Vec<Tip>, u64)> {
    let clients: Vec<LedgerClient> =
        (0..NODES).map(|index| scene.client_of(index)).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let tips = loop {
        let mut tips = Vec::new();
        for client in &clients {
            tips.extend(client.tip(&scene.vault, Consistency::Eventual).await.map(|tip| tip.value));
        }
        let heights: BTreeSet<u64> = tips.iter().map(|tip| tip.header.height).collect();
        if tips.len() == NODES && heights.len() == 1 {
            break tips;
        }
        if begun.elapsed() > REST_LIMIT {
            bail!(
                "the nodes have not come to the same height within {REST_LIMIT:?}: {heights:?}, {}",
                scene.sight
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for (index, client) in clients.iter().enumerate() {
        let shown = show_chain(client, &scene.vault, index, evidence).await;
        shown.with_context(|| format!("the blocks of {} cannot be read", endpoint(index)))?;
    }
    let blocks = tips.first().map_or(0, |tip| tip.header.height + 1);
    Ok((tips, blocks))
}

async fn show_chain(
    client: &LedgerClient,
    vault: &VaultRef,
    index: usize,
    evidence: &mut Evidence,
) -> anyhow::Result<()> {
    let mut next = Some(0);
    while let Some(height) = next {
        let range =
            client.block_range(vault, height, BLOCKS_AT_A_TIME, BlockContent::Transactions).await?.value;
        for block in &range.blocks {
            evidence.show_block(endpoint(index), block.header.height, &block.header, &block.transactions);
        }
        next = range.next_height;
    }
    Ok(())
}

fn differences(tips: &[Tip]) -> Vec<Violation> {
    let Some((first, others)) = tips.split_first() else { return Vec::new() };
    let mut found = Vec::new();
    for (index, tip) in others.iter().enumerate() {
        let height = first.header.height;
        let mut differ = |what: &str| {
            let what = format!("the {what} at height {height}");
            found.push(Violation::DifferentAtRest { first: endpoint(0), second: endpoint(index + 1), what });
        };
        if tip.header.state_root != first.header.state_root {
            differ("state root");
        }
        if tip.block_hash != first.block_hash {
            differ("block");
        }
        if tip.log_root != first.log_root {
            differ("log root");
        }
    }
    found
}

/// One cluster was founded, and every node belongs to it.
fn one_cluster(scene: &Scene, verdict: &mut Verdict) -> anyhow::Result<()> {
    let mut ids = scene.sight.cluster_ids().into_iter().map(hex).collect::<BTreeSet<String>>();
    for index in 0..NODES {
        let file = scene.fleet.identity_file(index)?;
        ids.extend(file.lines().find_map(|line| line.strip_prefix("cluster ")).map(str::to_owned));
    }
    if ids.len() != 1 {
        verdict.problems.push(format!("there are {} cluster ids: {ids:?}", ids.len()));
    }
    verdict.table.row("clusters", ids.len(), "");
    Ok(())
}

fn hex(id: [u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

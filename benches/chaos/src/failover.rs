//! How long nothing can be written when the leader dies, and when it hands the lead over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ledger_client::LedgerClient;
use ledger_core::names::VaultRef;
use ledger_simulation::register::Operation;
use ledger_simulation::workload::ledger_operation;
use tokio::task::JoinHandle;

use crate::pulse::Pulse;
use crate::scene::Scene;
use crate::settings::Settings;
use crate::table::Verdict;

/// Writers of one client, each with one call at a time.
const WRITERS: u32 = 4;
/// Between two writes of a writer.
const THINK: Duration = Duration::from_millis(2);
/// How often each node is asked what it knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// How long everything is left alone before a round.
const CALM: Duration = Duration::from_millis(700);
/// How long is looked for an outage after the lead was handed over.
const AFTER_TRANSFER: Duration = Duration::from_millis(1_500);
/// By then a write succeeds again.
const OUTAGE_LIMIT: Duration = Duration::from_secs(30);

/// Writers that write as fast as they are answered, with a client as it is by default.
pub struct Writers {
    /// When they succeeded.
    pub pulse: Pulse,
    /// Calls that failed after all tries.
    pub failed: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// They begin now.
    pub fn start(client: &LedgerClient, vault: &VaultRef) -> Self {
        let (pulse, failed, over) = (Pulse::default(), Arc::default(), Arc::default());
        let mut writers = Self { pulse, failed, over, tasks: Vec::new() };
        for number in 0..WRITERS {
            let (client, vault) = (client.clone(), vault.clone());
            let (pulse, failed, over) =
                (writers.pulse.clone(), Arc::clone(&writers.failed), Arc::clone(&writers.over));
            writers.tasks.push(tokio::spawn(async move {
                let mut value = 0;
                while !over.load(Ordering::Relaxed) {
                    value += 1;
                    let operation = ledger_operation(number, Operation::Put(value));
                    match client.write(&vault, vec![operation]).await {
                        Ok(_) => pulse.beat(),
                        Err(error) => {
                            eprintln!("a write failed: {error}");
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    tokio::time::sleep(THINK).await;
                }
            }));
        }
        writers
    }

    /// They end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

/// Kills the leader in each round, and starts it again.
pub async fn measure_kills(settings: &Settings) -> anyhow::Result<Verdict> {
    let mut scene = Scene::set_up(settings, LOOK_INTERVAL).await?;
    let writers = Writers::start(&scene.client(scene.client_options())?, &scene.vault);
    let (mut outages, mut elections) = (Vec::new(), Vec::new());
    for round in 1..=settings.rounds {
        tokio::time::sleep(CALM).await;
        let leader = scene.wait_for_leader().await?;
        let term = scene.sight.term();
        let killed = Instant::now();
        scene.fleet.kill(leader).await?;
        let outage = first_write_after(&writers.pulse, killed, &scene, term).await?;
        let election =
            scene.sight.successor_of(term).context("there is a new leader")?.duration_since(killed);
        eprintln!(
            "round {round}: a write after {} ms, a new leader seen after {} ms",
            outage.as_millis(),
            election.as_millis()
        );
        outages.push(outage);
        elections.push(election);
        scene.fleet.start(leader)?;
        scene.wait_until_all_serve().await?;
    }
    let mut verdict = Verdict::default();
    verdict.happened("kills of the leader", u64::from(settings.rounds));
    tell(&mut verdict, "time without a write", outages);
    tell(&mut verdict, "until another node says that it leads", elections);
    finish(writers, verdict).await
}

/// Lets the leader hand over in each round.
pub async fn measure_transfers(settings: &Settings) -> anyhow::Result<Verdict> {
    let scene = Scene::set_up(settings, LOOK_INTERVAL).await?;
    let writers = Writers::start(&scene.client(scene.client_options())?, &scene.vault);
    let operator = scene.client(scene.client_options())?;
    let (mut outages, mut answers) = (Vec::new(), Vec::new());
    for round in 1..=settings.rounds {
        tokio::time::sleep(CALM).await;
        let began = Instant::now();
        operator.transfer_leadership(None).await.context("the lead is not handed over")?;
        answers.push(began.elapsed());
        tokio::time::sleep(AFTER_TRANSFER).await;
        let gap = writers.pulse.longest_gap_since(began).context("nothing is written any more")?;
        eprintln!("round {round}: {} ms without a write", gap.as_millis());
        outages.push(gap);
    }
    let mut verdict = Verdict::default();
    verdict.happened("leads handed over", u64::from(settings.rounds));
    tell(&mut verdict, "time without a write", outages);
    tell(&mut verdict, "until the transfer is answered", answers);
    finish(writers, verdict).await
}

async fn finish(writers: Writers, mut verdict: Verdict) -> anyhow::Result<Verdict> {
    verdict.happened("writes acknowledged", u64::try_from(writers.pulse.count()).unwrap_or(u64::MAX));
    let failed = writers.failed.load(Ordering::Relaxed);
    verdict.table.row("writes that failed after all tries", failed, "");
    if failed > 0 {
        verdict.problems.push(format!("{failed} writes failed after all tries of the client"));
    }
    writers.stop().await?;
    Ok(verdict)
}

/// Waits for a write that a successor acknowledged. Answers that were on their way when the leader died do not count:
/// the outage is the longest gap until then.
async fn first_write_after(
    pulse: &Pulse,
    killed: Instant,
    scene: &Scene,
    term: u64,
) -> anyhow::Result<Duration> {
    loop {
        if let Some(elected) = scene.sight.successor_of(term)
            && pulse.last().is_some_and(|last| last > elected)
        {
            return pulse.longest_gap_since(killed).context("there are writes before and after");
        }
        if killed.elapsed() > OUTAGE_LIMIT {
            bail!("nothing could be written for {OUTAGE_LIMIT:?}: {}", scene.sight);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn tell(verdict: &mut Verdict, name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        verdict.table.row(format!("{name}, median, ms"), median.as_millis(), "");
        verdict.table.row(format!("{name}, at most, ms"), longest.as_millis(), "");
    }
}

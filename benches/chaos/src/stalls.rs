//! Disks that stand still for half a second, as loaded ones do: nobody may be elected for it. Each node's data is on a
//! file system of its own, and `fsfreeze` holds back what is written there.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use ledger_simulation::dice::Dice;
use tokio::process::Command;

use crate::failover::Writers;
use crate::fleet::endpoint;
use crate::scene::Scene;
use crate::settings::{NODES, Settings};
use crate::table::Verdict;

/// How long a disk stands still.
const STALL: &str = "0.5";
/// Between two stalls.
const CALM_MS: std::ops::RangeInclusive<u64> = 500..=2_000;
/// How often each node is asked what it knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Stalls one disk after the other; elections are wrong.
pub async fn campaign(settings: &Settings) -> anyhow::Result<Verdict> {
    let scene = Scene::set_up(settings, LOOK_INTERVAL).await?;
    let writers = Writers::start(&scene.client(scene.client_options())?, &scene.vault);
    let mut dice = Dice::new(settings.seed, "stalls");
    let first_term = scene.sight.term();
    let began = Instant::now();
    let (mut of_leaders, mut of_followers) = (0, 0);
    while began.elapsed() < settings.duration() {
        tokio::time::sleep(Duration::from_millis(dice.within(CALM_MS))).await;
        let leader = scene.wait_for_leader().await?;
        // The leader's is half of them: it is the one that others wait for.
        let index = if dice.chance(500) { leader } else { dice.below(NODES) };
        if index == leader {
            of_leaders += 1
        } else {
            of_followers += 1
        }
        stall(&settings.work.join(format!("disk-{index}"))).await?;
        let term = scene.sight.term();
        if term > first_term {
            eprintln!(
                "{:>7} ms  term {term} after a stall of {}",
                began.elapsed().as_millis(),
                endpoint(index)
            );
        }
    }
    let longest_gap = writers.pulse.longest_gap_since(began).context("nothing was written")?;
    let elections = scene.sight.term().saturating_sub(first_term);
    let mut verdict = Verdict::default();
    verdict.table.row("seconds", began.elapsed().as_secs(), "");
    verdict.happened("stalls of the leader's disk, 500 ms each", of_leaders);
    verdict.happened("stalls of a follower's disk", of_followers);
    verdict.happened("writes acknowledged", u64::try_from(writers.pulse.count()).unwrap_or(u64::MAX));
    verdict.table.row("longest time without a write, ms", longest_gap.as_millis(), "");
    verdict.table.row("elections", elections, "");
    if longest_gap < Duration::from_millis(400) {
        verdict
            .problems
            .push("no stall was felt: are the data directories on file systems of their own?".to_owned());
    }
    if elections > 0 {
        verdict.problems.push(format!("the term grew by {elections} although no node failed"));
    }
    writers.stop().await?;
    Ok(verdict)
}

/// One process freezes, waits and thaws, so that whatever ends this program does not leave a disk frozen.
async fn stall(disk: &Path) -> anyhow::Result<()> {
    let script = format!("fsfreeze --freeze \"$1\" && sleep {STALL}; fsfreeze --unfreeze \"$1\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(disk).stdin(Stdio::null());
    let output = command.output().await.context("sh does not run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} cannot be frozen: {said}", disk.display());
    Ok(())
}

//! Breaks things one after the other while clients work, puts them right again, and waits for the cluster to come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger_simulation::dice::Dice;
use ledger_simulation::violation::Violation;

use crate::fleet::Cut;
use crate::judgement;
use crate::load::{Caller, Load, impatient};
use crate::scene::Scene;
use crate::settings::{NODES, Settings};
use crate::table::Verdict;

/// Clients at work.
const CLIENTS: u32 = 6;
/// How often each node is asked what it knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a fault lasts.
const FAULT_MS: std::ops::RangeInclusive<u64> = 1_500..=3_500;
/// From the recovery to the next fault.
const CALM_MS: std::ops::RangeInclusive<u64> = 300..=1_200;
/// By then writes go on after everything is healed.
const PROGRESS_LIMIT: Duration = Duration::from_secs(10);

/// What is done to the processes and the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillLeader,
    KillFollower,
    KillAll,
    FreezeLeader,
    FreezeFollower,
    CutLeader(Cut),
    CutFollower(Cut),
    /// A follower is killed while the leader is cut off: no quorum is left until both are back.
    KillFollowerAndCutLeader,
}

const FAULTS: [Fault; 12] = [
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::KillAll,
    Fault::FreezeLeader,
    Fault::FreezeFollower,
    Fault::CutLeader(Cut::BothWays),
    Fault::CutFollower(Cut::BothWays),
    Fault::CutLeader(Cut::Deaf),
    Fault::CutLeader(Cut::Mute),
    Fault::CutFollower(Cut::Deaf),
    Fault::CutFollower(Cut::Mute),
    Fault::KillFollowerAndCutLeader,
];

/// What was done.
#[derive(Debug, Default)]
pub struct Done {
    leader_kills: u64,
    follower_kills: u64,
    kills_of_all: u64,
    leader_freezes: u64,
    follower_freezes: u64,
    partitions: u64,
    one_way_partitions: u64,
    /// Packets that partitions dropped.
    packets_lost: u64,
    recoveries: u64,
    longest_recovery: Duration,
}

/// Runs the campaign and judges it.
pub async fn campaign(settings: &Settings) -> anyhow::Result<Verdict> {
    let mut scene = Scene::set_up(settings, LOOK_INTERVAL).await?;
    let load = Load::new(scene.vault.clone());
    let verifier_key = scene.client(scene.client_options())?.node_info().await?.parsed_verifier_key()?;
    let mut callers = Vec::new();
    for number in 0..CLIENTS {
        let mut options = impatient(scene.client_options());
        options.verifier_keys = vec![verifier_key.clone()];
        let dice = Dice::new(settings.seed, ("client", number));
        let caller = Caller::new(Arc::clone(&load), scene.client(options)?, number, dice);
        callers.push(tokio::spawn(caller.run()));
    }
    let began = Instant::now();
    let mut nemesis = Nemesis {
        scene: &mut scene,
        load: &load,
        dice: Dice::new(settings.seed, "nemesis"),
        began,
        done: Done::default(),
        violations: Vec::new(),
    };
    nemesis.run(settings.duration()).await?;
    let Nemesis { done, violations, .. } = nemesis;
    let ran = began.elapsed();
    load.stop();
    for caller in callers {
        caller.await?;
    }
    let longest_gap = load.pulse.longest_gap_since(began);
    scene.wait_until_all_serve().await?;
    let mut verdict = Verdict::default();
    verdict.table.row("seed", settings.seed, "");
    verdict.table.row("seconds under faults", ran.as_secs(), "");
    done.tell(&mut verdict);
    verdict.table.row("longest time without a write, ms", longest_gap.unwrap_or(ran).as_millis(), "");
    verdict.problems.extend(violations.iter().map(ToString::to_string));
    judgement::judge(&mut scene, &load, verifier_key, &mut verdict).await?;
    Ok(verdict)
}

impl Done {
    fn tell(&self, verdict: &mut Verdict) {
        verdict.happened("kills of the leader", self.leader_kills);
        verdict.happened("kills of a follower", self.follower_kills);
        verdict.happened("kills of all nodes at once", self.kills_of_all);
        verdict.happened("freezes of the leader", self.leader_freezes);
        verdict.happened("freezes of a follower", self.follower_freezes);
        verdict.happened("partitions both ways", self.partitions);
        verdict.happened("partitions one way", self.one_way_partitions);
        verdict.happened("packets lost in partitions", self.packets_lost);
        verdict.happened("recoveries", self.recoveries);
        verdict.table.row("longest recovery after healing, ms", self.longest_recovery.as_millis(), "");
    }
}

struct Nemesis<'a> {
    scene: &'a mut Scene,
    load: &'a Load,
    dice: Dice,
    began: Instant,
    done: Done,
    violations: Vec<Violation>,
}

impl Nemesis<'_> {
    /// Every fault comes once before any comes again.
    async fn run(&mut self, duration: Duration) -> anyhow::Result<()> {
        while self.began.elapsed() < duration {
            let mut faults = FAULTS;
            self.dice.shuffle(&mut faults);
            for fault in faults {
                if self.began.elapsed() >= duration {
                    break;
                }
                self.wait(CALM_MS).await;
                self.strike(fault).await?;
                if !self.recovers(fault).await {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One fault, from its beginning to its end.
    async fn strike(&mut self, fault: Fault) -> anyhow::Result<()> {
        let leader = self.scene.wait_for_leader().await?;
        let follower = (leader + 1 + self.dice.below(NODES - 1)) % NODES;
        eprintln!("{:>7} ms  {fault:?}, the leader is node-{}", self.began.elapsed().as_millis(), leader + 1);
        match fault {
            Fault::KillLeader => {
                self.done.leader_kills += 1;
                self.kill(&[leader]).await
            }
            Fault::KillFollower => {
                self.done.follower_kills += 1;
                self.kill(&[follower]).await
            }
            Fault::KillAll => {
                self.done.kills_of_all += 1;
                self.kill(&[0, 1, 2]).await
            }
            Fault::FreezeLeader => {
                self.done.leader_freezes += 1;
                self.freeze(leader).await
            }
            Fault::FreezeFollower => {
                self.done.follower_freezes += 1;
                self.freeze(follower).await
            }
            Fault::CutLeader(cut) => self.cut(leader, cut).await,
            Fault::CutFollower(cut) => self.cut(follower, cut).await,
            Fault::KillFollowerAndCutLeader => {
                self.done.follower_kills += 1;
                self.scene.fleet.kill(follower).await?;
                self.cut(leader, Cut::BothWays).await?;
                self.scene.fleet.start(follower)
            }
        }
    }

    async fn kill(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for node in nodes {
            self.scene.fleet.kill(*node).await?;
        }
        self.last().await;
        for node in nodes {
            self.scene.fleet.start(*node)?;
        }
        Ok(())
    }

    async fn freeze(&mut self, node: usize) -> anyhow::Result<()> {
        self.scene.fleet.freeze(node)?;
        self.last().await;
        self.scene.fleet.thaw(node)
    }

    async fn cut(&mut self, node: usize, cut: Cut) -> anyhow::Result<()> {
        self.scene.fleet.cut(node, cut).await?;
        self.last().await;
        let lost = self.scene.fleet.heal().await?;
        self.done.packets_lost += lost;
        match cut {
            Cut::BothWays => self.done.partitions += u64::from(lost > 0),
            Cut::Deaf | Cut::Mute => self.done.one_way_partitions += u64::from(lost > 0),
        }
        Ok(())
    }

    /// Everything is healed: writes go on, and all nodes follow one leader. Otherwise that is a violation, and the
    /// campaign ends: what comes after it says nothing.
    async fn recovers(&mut self, fault: Fault) -> bool {
        let healed = Instant::now();
        let written = self.load.pulse.count();
        loop {
            let ended = self.scene.fleet.ended_by_themselves();
            if !ended.is_empty() {
                self.violations.extend(ended);
                return false;
            }
            if self.load.pulse.count() > written && self.scene.sight.all_serve_since(healed) {
                self.done.recoveries += 1;
                self.done.longest_recovery = self.done.longest_recovery.max(healed.elapsed());
                return true;
            }
            if healed.elapsed() > PROGRESS_LIMIT {
                let written = self.load.pulse.count() - written;
                let what = format!("after {fault:?} ({written} writes; {})", self.scene.sight);
                let limit_ms = u64::try_from(PROGRESS_LIMIT.as_millis()).unwrap_or(u64::MAX);
                self.violations.push(Violation::NoProgress { what, limit_ms });
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn last(&mut self) {
        self.wait(FAULT_MS).await;
    }

    async fn wait(&mut self, ms: std::ops::RangeInclusive<u64>) {
        tokio::time::sleep(Duration::from_millis(self.dice.within(ms))).await;
    }
}

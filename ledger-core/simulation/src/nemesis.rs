//! Who breaks things: one disturbance after the other, several at a time, each undone after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, HarnessError};
use crate::dice::Dice;
use crate::network::{Endpoint, WireQuality};
use ledger_node::Bootstrap;
use ledger_node::peers::PeerMethod;

/// Between two disturbances.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=1_500;
/// How long a disturbance lasts.
const LASTS_MS: std::ops::RangeInclusive<u64> = 200..=3_000;
/// How long a follower is cut off that shall need a snapshot afterwards.
const LAG_MS: std::ops::RangeInclusive<u64> = 2_500..=4_000;
/// How long the trap for a vote waits.
const TRAP_WAITS: Duration = Duration::from_secs(4);
/// By then the answer that springs the trap has arrived.
const ANSWER_ARRIVES: Duration = Duration::from_millis(4);

/// A network that does everything that networks do.
const BAD: WireQuality = WireQuality {
    delay_us_min: 500,
    delay_us_max: 30_000,
    loss_per_mille: 60,
    duplicate_per_mille: 60,
    straggler_per_mille: 10,
};

/// What was done. Zero of one in a campaign means that it tested less than it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NemesisCounters {
    /// Processes that were ended.
    pub crashes: u64,
    /// Times that all processes were ended at once.
    pub blackouts: u64,
    /// Wires that were cut.
    pub cuts: u64,
    /// Processes that stood still for a while.
    pub pauses: u64,
    /// Disks that stalled.
    pub stalls: u64,
    /// Clocks that were wrong.
    pub skews: u64,
    /// Times that the network was bad.
    pub bad_networks: u64,
    /// Hand-overs of the lead that were asked for.
    pub transfers: u64,
    /// Those of them that happened.
    pub transfers_done: u64,
    /// Voters that crashed as they had voted, with the candidate cut off.
    pub sprung_traps: u64,
}

impl std::ops::AddAssign for NemesisCounters {
    fn add_assign(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.blackouts += other.blackouts;
        self.cuts += other.cuts;
        self.pauses += other.pauses;
        self.stalls += other.stalls;
        self.skews += other.skews;
        self.bad_networks += other.bad_networks;
        self.transfers += other.transfers;
        self.transfers_done += other.transfers_done;
        self.sprung_traps += other.sprung_traps;
    }
}

/// What ends a disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    Boot(Endpoint),
    Heal,
    Resume(Endpoint),
    Unstall(Endpoint),
    RightClock(Endpoint),
    GoodNetwork,
}

/// A trap for a vote: the old leader is down; as soon as a voter has answered a candidate, the voter crashes, and once
/// the answer is there the candidate is cut off. A voter that forgets its vote gives the same term away again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trap {
    None,
    Armed { until: Duration, down: Endpoint },
    Sprung { candidate: Endpoint, at: Duration },
}

/// The one who breaks things.
#[derive(Debug)]
pub struct Nemesis {
    dice: Dice,
    next: Duration,
    undo: Vec<(Duration, Undo)>,
    trap: Trap,
    counters: NemesisCounters,
    transfers_done: Arc<AtomicU64>,
    /// Nodes that take part; others are left alone.
    nodes: Vec<Endpoint>,
    trap_per_mille: u32,
}

impl Nemesis {
    /// Breaks these nodes, from now on; of a thousand disturbances so many are traps for votes.
    pub fn new(dice: Dice, nodes: Vec<Endpoint>, now: Duration, trap_per_mille: u32) -> Self {
        Self {
            dice,
            next: now,
            undo: Vec::new(),
            trap: Trap::None,
            counters: NemesisCounters::default(),
            transfers_done: Arc::default(),
            nodes,
            trap_per_mille,
        }
    }

    /// What was done.
    pub fn counters(&self) -> NemesisCounters {
        NemesisCounters { transfers_done: self.transfers_done.load(Ordering::Relaxed), ..self.counters }
    }

    /// Changes who takes part.
    pub fn set_nodes(&mut self, nodes: Vec<Endpoint>) {
        self.nodes = nodes;
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When the harness fails.
    pub fn step(&mut self, cluster: &mut Cluster) -> Result<(), HarnessError> {
        let now = cluster.world.now();
        self.watch_trap(cluster, now)?;
        let (due, later) = self.undo.drain(..).partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(Duration, Undo)> = due;
        for (_, undo) in due {
            self.undo(cluster, undo)?;
        }
        if now >= self.next {
            self.disturb(cluster, now)?;
            self.next = now + Duration::from_millis(self.dice.within(PAUSE_MS));
        }
        Ok(())
    }

    /// Ends every disturbance, also those of the nodes in `but` unless they are to stay broken.
    ///
    /// # Errors
    /// When the harness fails.
    pub fn calm(
        &mut self,
        cluster: &mut Cluster,
        stays_broken: Option<Endpoint>,
    ) -> Result<(), HarnessError> {
        self.undo.clear();
        self.trap = Trap::None;
        cluster.world.network().heal();
        cluster.world.network().set_quality(WireQuality::GOOD);
        for node in self.nodes.clone() {
            cluster.stall(node, Duration::ZERO);
            cluster.set_clock_error_ms(node, 0);
            if Some(node) == stays_broken {
                self.break_for_good(cluster, node)?;
            } else {
                cluster.world.resume(node);
                if !cluster.world.is_running(node) {
                    cluster.boot(node, Bootstrap::Joined)?;
                }
            }
        }
        Ok(())
    }

    fn break_for_good(&mut self, cluster: &mut Cluster, node: Endpoint) -> Result<(), HarnessError> {
        if self.dice.chance(500) {
            return cluster.crash(node);
        }
        cluster.world.resume(node);
        if !cluster.world.is_running(node) {
            cluster.boot(node, Bootstrap::Joined)?;
        }
        self.isolate(cluster, node);
        Ok(())
    }

    fn undo(&mut self, cluster: &mut Cluster, undo: Undo) -> Result<(), HarnessError> {
        match undo {
            // One that has left the cluster meanwhile stays down.
            Undo::Boot(node) if !cluster.world.is_running(node) && self.nodes.contains(&node) => {
                cluster.boot(node, Bootstrap::Joined)?;
            }
            Undo::Boot(_) => {}
            Undo::Heal => {
                cluster.world.trace().tell(format_args!("the network heals"), &[]);
                cluster.world.network().heal();
            }
            Undo::Resume(node) => cluster.world.resume(node),
            Undo::Unstall(node) => cluster.stall(node, Duration::ZERO),
            Undo::RightClock(node) => cluster.set_clock_error_ms(node, 0),
            Undo::GoodNetwork => cluster.world.network().set_quality(WireQuality::GOOD),
        }
        Ok(())
    }

    fn later(&mut self, now: Duration, undo: Undo) {
        let lasts = Duration::from_millis(self.dice.within(LASTS_MS));
        self.undo.push((now + lasts, undo));
    }

    fn disturb(&mut self, cluster: &mut Cluster, now: Duration) -> Result<(), HarnessError> {
        let node = *self.dice.choose(&self.nodes.clone());
        let leader = cluster.leader().filter(|leader| self.nodes.contains(leader));
        let victim = leader.filter(|_| self.dice.chance(500)).unwrap_or(node);
        if self.dice.chance(self.trap_per_mille) {
            return self.arm(cluster, now, leader);
        }
        match self.dice.below(12) {
            0 | 1 => self.crash(cluster, now, victim)?,
            2 => self.black_out(cluster, now)?,
            3 => {
                self.isolate(cluster, victim);
                self.later(now, Undo::Heal);
            }
            4 => {
                let other = *self.dice.choose(&self.nodes.clone());
                self.cut(cluster, victim, other);
                self.later(now, Undo::Heal);
            }
            5 => {
                // Everything that the victim sends is lost, or everything that it is sent.
                let sends = self.dice.chance(500);
                for other in self.nodes.clone() {
                    if sends { self.cut(cluster, victim, other) } else { self.cut(cluster, other, victim) }
                }
                self.later(now, Undo::Heal);
            }
            6 => {
                self.counters.pauses += 1;
                cluster.world.pause(victim);
                self.later(now, Undo::Resume(victim));
            }
            7 => {
                self.counters.stalls += 1;
                cluster.stall(victim, Duration::from_millis(self.dice.within(100..=1_500)));
                self.later(now, Undo::Unstall(victim));
            }
            8 => {
                self.counters.bad_networks += 1;
                cluster.world.network().set_quality(BAD);
                self.later(now, Undo::GoodNetwork);
            }
            9 => {
                self.counters.skews += 1;
                let error_ms = i64::try_from(self.dice.within(0..=16_000)).unwrap_or(0) - 8_000;
                cluster.set_clock_error_ms(victim, error_ms);
                self.later(now, Undo::RightClock(victim));
            }
            10 => self.transfer(cluster, victim),
            _ => {
                // Long enough for the log to be purged past it.
                self.isolate(cluster, node);
                let lasts = Duration::from_millis(self.dice.within(LAG_MS));
                self.undo.push((now + lasts, Undo::Heal));
            }
        }
        Ok(())
    }

    fn crash(&mut self, cluster: &mut Cluster, now: Duration, node: Endpoint) -> Result<(), HarnessError> {
        if cluster.world.is_running(node) {
            self.counters.crashes += 1;
            cluster.crash(node)?;
            self.later(now, Undo::Boot(node));
        }
        Ok(())
    }

    fn black_out(&mut self, cluster: &mut Cluster, now: Duration) -> Result<(), HarnessError> {
        self.counters.blackouts += 1;
        for node in self.nodes.clone() {
            self.crash(cluster, now, node)?;
        }
        Ok(())
    }

    fn isolate(&mut self, cluster: &Cluster, node: Endpoint) {
        for other in self.nodes.clone() {
            self.cut(cluster, node, other);
            self.cut(cluster, other, node);
        }
    }

    fn cut(&mut self, cluster: &Cluster, from: Endpoint, to: Endpoint) {
        if from != to {
            self.counters.cuts += 1;
            cluster.world.trace().tell(format_args!("the wire from {from} to {to} is cut"), &[]);
            cluster.world.network().cut(from, to);
        }
    }

    fn transfer(&mut self, cluster: &Cluster, node: Endpoint) {
        let Some(open) = cluster.world.node(node) else { return };
        let Some(ledger) = open.ledger() else { return };
        self.counters.transfers += 1;
        let to = *self.dice.choose(&self.nodes);
        let to = cluster.member(to).map(|member| member.identity.node_id).filter(|_| self.dice.chance(500));
        let (cluster_of_node, trace) = (ledger.cluster(), cluster.world.trace().clone());
        let (done, led) = (Arc::clone(&self.transfers_done), cluster_of_node.status().leader);
        cluster.world.spawn(node, async move {
            let outcome = cluster_of_node.transfer(to).await;
            if outcome.is_ok() && outcome.as_ref().ok() != led.as_ref() {
                done.fetch_add(1, Ordering::Relaxed);
            }
            trace.tell(format_args!("transfer of the lead to {to:?}: {outcome:?}"), &[]);
        });
    }

    fn arm(
        &mut self,
        cluster: &mut Cluster,
        now: Duration,
        leader: Option<Endpoint>,
    ) -> Result<(), HarnessError> {
        let Some(leader) = leader.filter(|_| self.trap == Trap::None) else { return Ok(()) };
        self.counters.crashes += 1;
        cluster.crash(leader)?;
        cluster.world.network().take_answers();
        self.trap = Trap::Armed { until: now + TRAP_WAITS, down: leader };
        Ok(())
    }

    fn watch_trap(&mut self, cluster: &mut Cluster, now: Duration) -> Result<(), HarnessError> {
        let answers = cluster.world.network().take_answers();
        match self.trap {
            Trap::None => {}
            Trap::Armed { until, down } => {
                let vote = answers.iter().find(|answer| answer.method == PeerMethod::Vote && answer.accepted);
                if let Some(vote) = vote {
                    cluster.crash(vote.by)?;
                    self.counters.crashes += 1;
                    self.trap = Trap::Sprung { candidate: vote.to, at: now + ANSWER_ARRIVES };
                    self.undo.push((now + Duration::from_millis(20), Undo::Boot(vote.by)));
                    self.undo.push((now + Duration::from_millis(20), Undo::Boot(down)));
                } else if now >= until {
                    self.trap = Trap::None;
                    self.undo.push((now, Undo::Boot(down)));
                }
            }
            Trap::Sprung { candidate, at } if now >= at => {
                self.counters.sprung_traps += 1;
                self.isolate(cluster, candidate);
                self.undo.push((now + Duration::from_millis(self.dice.within(LAG_MS)), Undo::Heal));
                self.trap = Trap::None;
            }
            Trap::Sprung { .. } => {}
        }
        Ok(())
    }
}

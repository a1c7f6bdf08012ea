//! Nodes, their directories and the network between them, driven by one random source.

use std::collections::{BTreeMap, BTreeSet};

use super::super::errors::FormingError;
use super::super::events::{
    Admitted, Answer, Call, CallFailure, Change, Effect, Event, Goal, Question, Start,
};
use super::super::machine::Machine;
use super::super::standing_word::StandingWord;
use crate::directory::Promise;
use crate::peers::{
    ClusterId, Incarnation, LedgerKey, MemberRecord, NodeName, PeerIdentity, PeerRefusal, Standing,
};

pub const POLL_MS: u64 = 500;
pub const TIMEOUT_MS: u64 = 20_000;
/// A call without an answer is given up by then.
const CALL_MS: u64 = 2_000;

/// SplitMix64.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A mistake that is made on purpose, to see that it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// A promise is given before it is stored, and then it is not.
    PromiseForgotten,
    /// A coordinator takes its own promise back although it goes on.
    CoordinatorForgets,
    /// Addresses that do not answer are taken off the list.
    SilentIgnored,
}

/// What survives a crash.
#[derive(Debug, Clone)]
pub struct Disk {
    pub me: PeerIdentity,
    pub promise: Option<Promise>,
    pub cluster: Option<(ClusterId, LedgerKey)>,
    pub first_members: Vec<MemberRecord>,
}

#[derive(Debug)]
enum Process {
    Down,
    Forming(Box<Machine>),
    Member(StandingWord),
    Failed,
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Setting {
    pub goal: Goal,
    pub list: BTreeSet<usize>,
}

#[derive(Debug)]
pub struct Node {
    pub disk: Disk,
    pub setting: Setting,
    process: Process,
    /// Counts starts: answers to an earlier one are lost.
    life: u64,
    open: BTreeMap<u64, (usize, u64, u64)>,
    next_question: u64,
}

#[derive(Debug, Clone)]
enum InFlight {
    Request {
        from: usize,
        life: u64,
        call: u64,
        sender: PeerIdentity,
        to: usize,
        expect: Option<PeerIdentity>,
        body: Call,
    },
    Answer {
        from: usize,
        to: usize,
        life: u64,
        call: u64,
        answer: Result<Answer, CallFailure>,
    },
    Discovery {
        to: usize,
        life: u64,
    },
}

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub founded: u64,
    pub settled: u64,
    pub joined: u64,
    pub released: u64,
    pub timed_out: u64,
    pub failed: u64,
    pub crashes: u64,
    pub crashes_between: u64,
    pub wiped: u64,
    pub lost: u64,
    pub repeated: u64,
    pub stuck: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.founded += other.founded;
        self.settled += other.settled;
        self.joined += other.joined;
        self.released += other.released;
        self.timed_out += other.timed_out;
        self.failed += other.failed;
        self.crashes += other.crashes;
        self.crashes_between += other.crashes_between;
        self.wiped += other.wiped;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.stuck += other.stuck;
    }
}

pub struct World {
    pub nodes: Vec<Node>,
    pub chance: Chance,
    pub counts: Counts,
    /// Every cluster that was founded, with the identities of its members.
    pub founded: BTreeMap<ClusterId, BTreeSet<u64>>,
    mistake: Mistake,
    now_ms: u64,
    in_flight: Vec<(u64, InFlight)>,
    /// Pairs that cannot reach each other, one way.
    cut: BTreeSet<(usize, usize)>,
    next_id: u64,
    /// Whether things go wrong.
    stormy: bool,
}

fn address(slot: usize) -> String {
    format!("node-{slot}:50052")
}

fn slot_of(address: &str) -> usize {
    address.trim_start_matches("node-").trim_end_matches(":50052").parse().expect("an address of this world")
}

fn key_of(cluster: ClusterId) -> LedgerKey {
    LedgerKey::new(format!("key of {cluster}"))
}

impl World {
    pub fn new(seed: u64, mistake: Mistake, settings: Vec<Setting>) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            chance: Chance::new(seed),
            counts: Counts::default(),
            founded: BTreeMap::new(),
            mistake,
            now_ms: 1_000,
            in_flight: Vec::new(),
            cut: BTreeSet::new(),
            next_id: 0,
            stormy: true,
        };
        for (slot, setting) in settings.into_iter().enumerate() {
            let disk = world.new_disk(slot);
            world.nodes.push(Node {
                disk,
                setting,
                process: Process::Down,
                life: 0,
                open: BTreeMap::new(),
                next_question: 0,
            });
        }
        world
    }

    fn new_disk(&mut self, slot: usize) -> Disk {
        // Ids of new nodes are higher than those of older ones, but not in the order of the slots.
        self.next_id += 1;
        let node_id = self.next_id * 1_000 + self.chance.below(1_000) as u64;
        let name = NodeName::new(format!("node-{slot}")).expect("a name");
        let incarnation = Incarnation(u128::from(self.chance.next()).to_be_bytes());
        let me = PeerIdentity { node_id, name, incarnation };
        Disk { me, promise: None, cluster: None, first_members: Vec::new() }
    }

    fn record(&self, slot: usize) -> MemberRecord {
        let identity = self.nodes[slot].disk.me.clone();
        MemberRecord { identity, peer_address: address(slot), client_url: String::new() }
    }

    pub fn start(&mut self, slot: usize) {
        let me = self.record(slot);
        let now_ms = self.now_ms;
        let node = &mut self.nodes[slot];
        node.life += 1;
        node.open.clear();
        node.process = match &node.disk.cluster {
            Some((cluster, key)) => Process::Member(StandingWord {
                me,
                cluster: *cluster,
                key: key.clone(),
                first_members: node.disk.first_members.clone(),
            }),
            None => {
                let (goal, promise) = (node.setting.goal, node.disk.promise.clone());
                let start = Start { me, goal, promise, now_ms, poll_ms: POLL_MS, timeout_ms: TIMEOUT_MS };
                Process::Forming(Box::new(Machine::new(start)))
            }
        };
    }

    pub fn is_down(&self, slot: usize) -> bool {
        matches!(self.nodes[slot].process, Process::Down | Process::Failed)
    }

    pub fn is_member(&self, slot: usize) -> bool {
        matches!(self.nodes[slot].process, Process::Member(_))
    }

    pub fn crash(&mut self, slot: usize) {
        self.counts.crashes += 1;
        self.nodes[slot].process = Process::Down;
    }

    pub fn wipe(&mut self, slot: usize) {
        self.counts.wiped += 1;
        self.nodes[slot].process = Process::Down;
        self.nodes[slot].disk = self.new_disk(slot);
    }

    pub fn cut_randomly(&mut self) {
        self.cut.clear();
        if self.chance.one_in(3) {
            return;
        }
        // Halves, sometimes one way only.
        let one_way = self.chance.one_in(3);
        let side: Vec<bool> = (0..self.nodes.len()).map(|_| self.chance.one_in(2)).collect();
        for from in 0..side.len() {
            for to in 0..side.len() {
                if side[from] != side[to] && (!one_way || side[from]) {
                    self.cut.insert((from, to));
                }
            }
        }
    }

    /// From now on nothing goes wrong any more.
    pub fn calm(&mut self) {
        self.stormy = false;
        self.cut.clear();
    }

    /// Clusters that some directory belongs to.
    pub fn clusters(&self) -> BTreeSet<ClusterId> {
        self.nodes.iter().filter_map(|node| node.disk.cluster.as_ref().map(|(cluster, _)| *cluster)).collect()
    }

    /// One thing happens: what is in flight arrives or is lost, or time goes by.
    pub fn step(&mut self) {
        let due: Vec<usize> =
            (0..self.in_flight.len()).filter(|at| self.in_flight[*at].0 <= self.now_ms).collect();
        if !due.is_empty() && !self.chance.one_in(8) {
            let at = due[self.chance.below(due.len())];
            let (_, message) = self.in_flight.swap_remove(at);
            return self.arrive(message);
        }
        self.now_ms += 1 + self.chance.below(40) as u64;
        for slot in 0..self.nodes.len() {
            if let Process::Forming(machine) = &self.nodes[slot].process
                && machine.wake_at_ms().is_some_and(|at| at <= self.now_ms)
            {
                self.happen(slot, Event::Tick);
            }
        }
    }

    fn arrive(&mut self, message: InFlight) {
        let stormy = self.stormy;
        match message {
            InFlight::Discovery { to, life } => {
                if self.nodes[to].life != life {
                    return;
                }
                let list: Vec<usize> = self.nodes[to].setting.list.iter().copied().collect();
                let known = match self.mistake {
                    Mistake::SilentIgnored => {
                        list.into_iter().filter(|peer| self.reaches(to, *peer)).map(address).collect()
                    }
                    _ => list.into_iter().map(address).collect(),
                };
                let fails = stormy && self.chance.one_in(30);
                let found = if fails { Err("no resolver".to_owned()) } else { Ok(known) };
                self.happen(to, Event::Discovered(found));
            }
            InFlight::Request { from, life, call, sender, to, expect, body } => {
                if stormy && self.chance.one_in(25) {
                    self.counts.repeated += 1;
                    let again = InFlight::Request {
                        from,
                        life,
                        call,
                        sender: sender.clone(),
                        to,
                        expect: expect.clone(),
                        body: body.clone(),
                    };
                    // A repeated request may arrive long after everything was decided.
                    let late_ms = self.chance.below(30_000) as u64;
                    self.in_flight.push((self.now_ms + late_ms, again));
                }
                let lost = !self.reaches(from, to) || (stormy && self.chance.one_in(12));
                match lost {
                    true => self.lose(to, from, life, call),
                    false => self.request(from, life, call, sender, to, expect, body),
                }
            }
            InFlight::Answer { from, to, life, call, answer } => {
                let lost = self.cut.contains(&(from, to)) || (stormy && self.chance.one_in(12));
                if lost && !matches!(answer, Err(CallFailure::Lost(_))) {
                    return self.lose(from, to, life, call);
                }
                if self.nodes[to].life == life {
                    self.happen(to, Event::Answered { call, answer });
                }
            }
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        !self.is_down(to) && !self.cut.contains(&(from, to))
    }

    fn lose(&mut self, from: usize, to: usize, life: u64, call: u64) {
        self.counts.lost += 1;
        let answer = Err(CallFailure::Lost("lost".to_owned()));
        self.in_flight.push((self.now_ms + CALL_MS, InFlight::Answer { from, to, life, call, answer }));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    fn request(
        &mut self,
        from: usize,
        life: u64,
        call: u64,
        sender: PeerIdentity,
        to: usize,
        expect: Option<PeerIdentity>,
        body: Call,
    ) {
        let is_expected = expect.is_none_or(|expect| {
            expect.node_id == self.nodes[to].disk.me.node_id && expect.name == self.nodes[to].disk.me.name
        });
        if !is_expected {
            let refusal = PeerRefusal::Refused { reason: "another node is here".to_owned() };
            return self.send_answer(to, from, life, call, Err(CallFailure::Refused(refusal)));
        }
        let node = &mut self.nodes[to];
        match &node.process {
            Process::Forming(_) => {
                let question = match body {
                    Call::NodeInfo(request) => Question::NodeInfo(request),
                    Call::Promise(request) => Question::Promise(request),
                    Call::Settle(request) => Question::Settle(request),
                    Call::Join(_) => {
                        let refusal = PeerRefusal::NotReady { reason: "no member".to_owned() };
                        return self.send_answer(to, from, life, call, Err(CallFailure::Refused(refusal)));
                    }
                };
                let number = node.next_question;
                node.next_question += 1;
                node.open.insert(number, (from, life, call));
                self.happen(to, Event::Asked { question: number, from: sender, request: question });
            }
            Process::Member(word) => {
                let answer = match &body {
                    Call::NodeInfo(_) => {
                        let mut info = word.info();
                        if let Standing::Member(standing) = &mut info.standing {
                            standing.leader = Some(word.me.identity.node_id);
                        }
                        Ok(Answer::NodeInfo(info))
                    }
                    Call::Promise(_) => Ok(word.promise()),
                    Call::Settle(request) => word.settle(&sender, request),
                    Call::Join(request) if request.cluster == word.cluster => {
                        Ok(Answer::Join(Admitted { cluster: word.cluster, key: word.key.clone() }))
                    }
                    Call::Join(_) => Err(PeerRefusal::Refused { reason: "another cluster".to_owned() }),
                };
                self.send_answer(to, from, life, call, answer.map_err(CallFailure::Refused));
            }
            Process::Down | Process::Failed => self.lose(to, from, life, call),
        }
    }

    fn send_answer(
        &mut self,
        from: usize,
        to: usize,
        life: u64,
        call: u64,
        answer: Result<Answer, CallFailure>,
    ) {
        self.in_flight.push((self.now_ms, InFlight::Answer { from, to, life, call, answer }));
    }

    /// Feeds a node's machine and carries out what it says, up to a crash.
    fn happen(&mut self, slot: usize, event: Event) {
        let fresh =
            ClusterId((u128::from(self.chance.next()) << 64 | u128::from(self.chance.next())).to_be_bytes());
        let Process::Forming(machine) = &mut self.nodes[slot].process else { return };
        let effects = machine.handle(self.now_ms, event, &mut || fresh);
        let crash_before =
            (self.stormy && self.chance.one_in(60)).then(|| self.chance.below(effects.len() + 1));
        for (at, effect) in effects.into_iter().enumerate() {
            if crash_before == Some(at) {
                self.counts.crashes_between += 1;
                return self.crash(slot);
            }
            self.carry_out(slot, effect);
        }
    }

    fn carry_out(&mut self, slot: usize, effect: Effect) {
        let (life, now_ms) = (self.nodes[slot].life, self.now_ms);
        match effect {
            Effect::Discover => self.in_flight.push((now_ms, InFlight::Discovery { to: slot, life })),
            Effect::Call { call, address, to, request } => {
                let (sender, expect) = (self.nodes[slot].disk.me.clone(), to);
                let message = InFlight::Request {
                    from: slot,
                    life,
                    call,
                    sender,
                    to: slot_of(&address),
                    expect,
                    body: request,
                };
                let latency_ms = self.chance.below(30) as u64;
                self.in_flight.push((now_ms + latency_ms, message));
            }
            Effect::Reply { question, answer } => {
                let (to, life, call) = self.nodes[slot].open.remove(&question).expect("it was asked");
                self.send_answer(slot, to, life, call, answer.map_err(CallFailure::Refused));
            }
            Effect::Store(change) => self.store(slot, change),
            Effect::Finish(_) => self.start(slot),
            Effect::Fail(error) => {
                match error {
                    FormingError::TimedOut { .. } => self.counts.timed_out += 1,
                    _ => self.counts.failed += 1,
                }
                self.nodes[slot].process = Process::Failed;
            }
        }
    }

    fn store(&mut self, slot: usize, change: Change) {
        let mistake = self.mistake;
        match change {
            Change::Promise(promise) => {
                let disk = &mut self.nodes[slot].disk;
                assert!(disk.cluster.is_none() && disk.promise.is_none(), "a promise over another: {disk:?}");
                let coordinates = promise.members[0].identity == disk.me;
                let forgotten = match mistake {
                    Mistake::PromiseForgotten => !coordinates,
                    Mistake::CoordinatorForgets => coordinates,
                    _ => false,
                };
                disk.promise = (!forgotten).then_some(promise);
            }
            Change::Release => {
                self.counts.released += 1;
                self.nodes[slot].disk.promise = None;
            }
            Change::Found { cluster } => self.found(slot, cluster),
            Change::Settle { cluster, key } => {
                self.counts.settled += 1;
                let disk = &mut self.nodes[slot].disk;
                if let Some(promise) = disk.promise.take() {
                    assert_eq!(promise.cluster, cluster);
                    disk.first_members = promise.members;
                }
                disk.cluster = Some((cluster, key));
            }
            Change::Adopt { cluster, key } => {
                self.counts.joined += 1;
                let disk = &mut self.nodes[slot].disk;
                assert!(disk.promise.is_none(), "it joins another cluster than it promised: {disk:?}");
                disk.cluster = Some((cluster, key));
            }
        }
    }

    fn found(&mut self, slot: usize, cluster: ClusterId) {
        self.counts.founded += 1;
        let Process::Forming(_) = &self.nodes[slot].process else { return };
        let members = match self.nodes[slot].disk.promise.take() {
            Some(promise) => promise.members,
            // Its own mistake: it forgot.
            None => self.nodes[slot].setting.list.iter().map(|peer| self.record(*peer)).collect(),
        };
        let ids = members.iter().map(|member| member.identity.node_id).collect();
        assert!(self.founded.insert(cluster, ids).is_none(), "founded twice");
        let disk = &mut self.nodes[slot].disk;
        disk.first_members = members;
        disk.cluster = Some((cluster, key_of(cluster)));
    }

    /// What must hold at every moment, whatever the lists are: clusters that were founded share no node, and whoever
    /// belongs to one has its key.
    pub fn check(&self) -> Result<(), String> {
        let mut taken: BTreeMap<u64, ClusterId> = BTreeMap::new();
        for (cluster, members) in &self.founded {
            for member in members {
                if let Some(other) = taken.insert(*member, *cluster) {
                    return Err(format!("node {member} promised itself to {other} and to {cluster}"));
                }
            }
        }
        for node in &self.nodes {
            match &node.disk.cluster {
                Some((cluster, key)) if *key != key_of(*cluster) => {
                    return Err(format!("node {:?} has another ledger's key", node.disk.me));
                }
                Some((cluster, _)) if !self.founded.contains_key(cluster) => {
                    return Err(format!("cluster {cluster} was never founded"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

//! The decisions of a node that has no cluster yet: events in, effects out, without clock, socket or file.

mod answering;
mod coordinating;
mod joining;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::errors::{FormingError, Waiting};
use super::events::{Answer, Call, CallFailure, Effect, Event, Goal, Mint, Start};
use super::outlook::Outlook;
use crate::directory::{Promise, check_record};
use crate::peers::{ClusterId, MemberRecord, NodeInfoRequest, PeerIdentity, Standing};

/// Time between two looks around while something is under way, in milliseconds.
const QUICK_LOOK_MS: u64 = 100;
/// Most addresses that are asked in one look.
const ADDRESSES_MAX: usize = 64;
/// Most nodes that are asked because they asked this one.
const HEARD_MAX: usize = 32;

/// What a call was for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Purpose {
    Look { round: u64, address: String, listed: bool },
    Promise { cluster: ClusterId, node_id: u64 },
    Ask { cluster: ClusterId, node_id: u64 },
    Bury,
    Join { cluster: ClusterId },
}

/// Where the look around stands.
#[derive(Debug)]
enum Look {
    Resting { next_ms: u64 },
    Discovering,
    Asking { pending: usize, outlook: Outlook },
}

/// A node that has no cluster yet.
#[derive(Debug)]
pub(super) struct Machine {
    me: MemberRecord,
    goal: Goal,
    poll_ms: u64,
    timeout_ms: u64,
    started_ms: u64,
    /// As the directory has it.
    promise: Option<Promise>,
    /// Members that promised themselves to the cluster that this node coordinates, in this run.
    promised: BTreeSet<u64>,
    /// A cluster that was seen: this node forms no other.
    known_cluster: Option<ClusterId>,
    look: Look,
    round: u64,
    /// The last complete look.
    outlook: Option<Outlook>,
    /// Addresses of the last discovery.
    listed: Vec<String>,
    /// Nodes that asked this one, and where they are.
    heard: BTreeMap<u64, String>,
    calls: BTreeMap<u64, Purpose>,
    next_call: u64,
    leader_hint: Option<u64>,
    waiting: Waiting,
    done: bool,
}

impl Machine {
    pub fn new(start: Start) -> Self {
        Self {
            me: start.me,
            goal: start.goal,
            poll_ms: start.poll_ms,
            timeout_ms: start.timeout_ms,
            started_ms: start.now_ms,
            promise: start.promise,
            promised: BTreeSet::new(),
            known_cluster: None,
            look: Look::Resting { next_ms: start.now_ms },
            round: 0,
            outlook: None,
            listed: Vec::new(),
            heard: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            leader_hint: None,
            waiting: Waiting::FirstLook,
            done: false,
        }
    }

    /// What the node waits for.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let look = match self.look {
            Look::Resting { next_ms } => Some(next_ms),
            Look::Discovering | Look::Asking { .. } => None,
        };
        [look, self.deadline_ms()].into_iter().flatten().min()
    }

    /// Takes one event in.
    pub fn handle(&mut self, now_ms: u64, event: Event, mint: Mint<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Tick => self.tick(now_ms, &mut effects),
            Event::Discovered(found) => self.discovered(now_ms, found, mint, &mut effects),
            Event::Answered { call, answer } => self.answered(now_ms, call, answer, mint, &mut effects),
            Event::Asked { question, from, request } => {
                let answer = self.asked(now_ms, &from, request, &mut effects);
                effects.push(Effect::Reply { question, answer });
            }
        }
        effects
    }

    fn deadline_ms(&self) -> Option<u64> {
        match self.goal {
            Goal::Join => None,
            Goal::Form { .. } => Some(self.started_ms.saturating_add(self.timeout_ms)),
        }
    }

    fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.done {
            return;
        }
        if self.deadline_ms().is_some_and(|deadline| now_ms >= deadline) {
            if self.coordinates() {
                // Nobody was told that it exists, and now nobody will be.
                self.bury(effects);
            }
            let after = Duration::from_millis(now_ms.saturating_sub(self.started_ms));
            let waiting = self.waiting.clone();
            return self.fail(FormingError::TimedOut { after, waiting }, effects);
        }
        if matches!(self.look, Look::Resting { next_ms } if now_ms >= next_ms) {
            self.look = Look::Discovering;
            effects.push(Effect::Discover);
        }
    }

    fn discovered(
        &mut self,
        now_ms: u64,
        found: Result<Vec<String>, String>,
        mint: Mint<'_>,
        effects: &mut Vec<Effect>,
    ) {
        if self.done || !matches!(self.look, Look::Discovering) {
            return;
        }
        let mut outlook = Outlook::default();
        match found {
            Ok(addresses) => {
                if addresses.len() > ADDRESSES_MAX {
                    outlook.discovery_failed(format!("there are more than {ADDRESSES_MAX} of them"));
                }
                self.listed = addresses.into_iter().take(ADDRESSES_MAX).collect();
            }
            // Those of the last time may still answer, but there may be others.
            Err(reason) => outlook.discovery_failed(reason),
        }
        outlook.was_given(self.listed.iter().filter(|address| **address != self.me.peer_address).count());
        let mut addresses: BTreeMap<String, bool> =
            self.heard.values().map(|address| (address.clone(), false)).collect();
        addresses.extend(self.listed.iter().map(|address| (address.clone(), true)));
        addresses.remove(&self.me.peer_address);
        self.round += 1;
        self.look = Look::Asking { pending: addresses.len(), outlook };
        if addresses.is_empty() {
            return self.looked(now_ms, mint, effects);
        }
        for (address, listed) in addresses {
            let purpose = Purpose::Look { round: self.round, address: address.clone(), listed };
            let request = Call::NodeInfo(NodeInfoRequest { asker: self.me.clone() });
            self.call(purpose, address, None, request, effects);
        }
    }

    fn answered(
        &mut self,
        now_ms: u64,
        call: u64,
        answer: Result<Answer, CallFailure>,
        mint: Mint<'_>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(purpose) = self.calls.remove(&call) else { return };
        if self.done {
            return;
        }
        match (purpose, answer) {
            (Purpose::Look { round, address, listed }, answer) if round == self.round => {
                if let Err(error) = self.note_look(address, listed, answer) {
                    return self.fail(error, effects);
                }
                self.look_goes_on(now_ms, mint, effects);
            }
            (Purpose::Promise { cluster, node_id }, Ok(Answer::Promise(answer))) => {
                self.promise_answered(cluster, node_id, answer, effects);
            }
            (Purpose::Ask { cluster, node_id }, Ok(Answer::Settle(answer))) => {
                self.outcome_told(now_ms, cluster, node_id, answer, effects);
            }
            (Purpose::Join { cluster }, answer) => self.join_answered(now_ms, cluster, answer, effects),
            _ => {}
        }
    }

    fn note_look(
        &mut self,
        address: String,
        listed: bool,
        answer: Result<Answer, CallFailure>,
    ) -> Result<(), FormingError> {
        let Look::Asking { pending, outlook } = &mut self.look else { return Ok(()) };
        *pending = pending.saturating_sub(1);
        match answer {
            Ok(Answer::NodeInfo(info)) if info.node == self.me => {}
            Ok(Answer::NodeInfo(info)) if info.node.identity.node_id == self.me.identity.node_id => {
                return Err(FormingError::Copied { address, node_id: self.me.identity.node_id });
            }
            Ok(Answer::NodeInfo(info)) if check_record(&info.node).is_ok() => {
                let seen = match &info.standing {
                    Standing::Forming { seen, .. } => seen.clone(),
                    Standing::Joining | Standing::Member(_) => Vec::new(),
                };
                outlook.answered(info);
                seen.iter().for_each(|node| self.note_address(node));
            }
            Err(failure) if listed => outlook.is_silent(address, failure.to_string()),
            Ok(_) if listed => outlook.is_silent(address, "it answers something else".to_owned()),
            // It asked once and is gone: nobody told this node to wait for it.
            _ => self.heard.retain(|_, heard| *heard != address),
        }
        Ok(())
    }

    fn look_goes_on(&mut self, now_ms: u64, mint: Mint<'_>, effects: &mut Vec<Effect>) {
        if matches!(self.look, Look::Asking { pending: 0, .. }) {
            self.looked(now_ms, mint, effects);
        }
    }

    /// A look around is complete: decides what follows from it.
    fn looked(&mut self, now_ms: u64, mint: Mint<'_>, effects: &mut Vec<Effect>) {
        let Look::Asking { outlook, .. } = std::mem::replace(&mut self.look, Look::Discovering) else {
            return;
        };
        let clusters = outlook.clusters();
        let mut seen = clusters.iter().copied();
        if let (Some(one), Some(other)) = (seen.next(), seen.next()) {
            return self.fail(FormingError::TwoClusters { one, other }, effects);
        }
        self.known_cluster = clusters.first().copied().or(self.known_cluster);
        let full = match self.goal {
            Goal::Form { nodes } => outlook.forming(&self.me).len() >= nodes as usize,
            Goal::Join => false,
        };
        self.outlook = Some(outlook.clone());
        self.decide(&outlook, mint, effects);
        let is_under_way = full || self.promise.is_some() || self.known_cluster.is_some();
        let pause_ms = if is_under_way { self.poll_ms.min(QUICK_LOOK_MS) } else { self.poll_ms };
        self.look = Look::Resting { next_ms: now_ms.saturating_add(pause_ms) };
    }

    fn decide(&mut self, outlook: &Outlook, mint: Mint<'_>, effects: &mut Vec<Effect>) {
        if self.coordinates() {
            self.coordinate(outlook, effects);
        } else if let Some(promise) = self.promise.clone() {
            self.ask_for_outcome(outlook, &promise, effects);
        } else if let Some(cluster) = self.known_cluster {
            self.ask_to_join(outlook, cluster, effects);
        } else {
            match self.goal {
                Goal::Join => {
                    let (silent, unknown) = (outlook.silent(), outlook.unknown());
                    self.waiting = Waiting::NoCluster { silent, unknown };
                }
                Goal::Form { nodes } => self.begin(outlook, nodes, mint, effects),
            }
        }
    }

    fn note_address(&mut self, node: &MemberRecord) {
        let node_id = node.identity.node_id;
        let has_room = self.heard.contains_key(&node_id) || self.heard.len() < HEARD_MAX;
        if has_room && node_id != self.me.identity.node_id && check_record(node).is_ok() {
            self.heard.insert(node_id, node.peer_address.clone());
        }
    }

    fn call(
        &mut self,
        purpose: Purpose,
        address: String,
        to: Option<PeerIdentity>,
        request: Call,
        effects: &mut Vec<Effect>,
    ) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, purpose);
        effects.push(Effect::Call { call, address, to, request });
    }

    fn is_asking(&self, purpose: &Purpose) -> bool {
        self.calls.values().any(|asking| asking == purpose)
    }

    fn look_soon(&mut self, now_ms: u64) {
        if let Look::Resting { next_ms } = &mut self.look {
            *next_ms = (*next_ms).min(now_ms.saturating_add(QUICK_LOOK_MS.min(self.poll_ms)));
        }
    }

    fn fail(&mut self, error: FormingError, effects: &mut Vec<Effect>) {
        self.done = true;
        effects.push(Effect::Fail(error));
    }
}

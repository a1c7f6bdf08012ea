//! The decisions of a node that has no cluster yet: events in, effects out, without clock, socket or file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::errors::{FormingError, Waiting};
use super::events::{
    Admission, Answer, Call, CallFailure, Change, Effect, Event, Formed, Goal, Mint, Question, Start,
};
use super::outlook::Outlook;
use crate::directory::{Promise, check_members, check_record};
use crate::peers::{
    ClusterId, MemberRecord, NodeInfo, NodeInfoRequest, PeerIdentity, PeerRefusal, PromiseAnswer,
    PromiseRefusal, PromiseRequest, SettleAnswer, SettleRequest, Standing,
};

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
            _ if listed => outlook.is_silent(address),
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
                Goal::Join => self.waiting = Waiting::NoCluster,
                Goal::Form { nodes } => self.begin(outlook, nodes, mint, effects),
            }
        }
    }

    /// Whether this node has minted a cluster that it has neither founded nor given up.
    fn coordinates(&self) -> bool {
        let coordinator = self.promise.as_ref().and_then(Promise::coordinator);
        coordinator.is_some_and(|coordinator| coordinator.identity == self.me.identity)
    }

    fn begin(&mut self, outlook: &Outlook, nodes: u32, mint: Mint<'_>, effects: &mut Vec<Effect>) {
        let members = match self.first_members(outlook, nodes) {
            Ok(members) => members,
            Err(waiting) => {
                self.waiting = waiting;
                return;
            }
        };
        let promise = Promise { cluster: mint(), members };
        self.promised.clear();
        self.promise = Some(promise.clone());
        effects.push(Effect::Store(Change::Promise(promise)));
        self.collect_promises(effects);
    }

    /// The members of the cluster that this node is to coordinate now.
    fn first_members(&self, outlook: &Outlook, nodes: u32) -> Result<Vec<MemberRecord>, Waiting> {
        let members = outlook.first_members(&self.me, nodes)?;
        outlook.agreed(&self.me)?;
        match members.first() {
            Some(first) if first.identity != self.me.identity => {
                Err(Waiting::Coordinator { name: first.identity.name.clone() })
            }
            _ => Ok(members),
        }
    }

    fn coordinate(&mut self, outlook: &Outlook, effects: &mut Vec<Effect>) {
        let Some(promise) = &self.promise else { return };
        let Goal::Form { nodes } = self.goal else { return self.bury(effects) };
        if self.known_cluster.is_some() {
            return self.bury(effects);
        }
        match self.first_members(outlook, nodes) {
            Ok(members) if members == promise.members => self.collect_promises(effects),
            // A member that is away may come back; one that was not asked, or that changed, will not fit.
            Err(waiting @ (Waiting::Silent { .. } | Waiting::TooFew { .. } | Waiting::OtherView { .. })) => {
                self.waiting = waiting;
                if outlook.forming(&self.me).iter().any(|seen| !promise.members.contains(seen)) {
                    self.bury(effects);
                }
            }
            Err(waiting @ Waiting::Discovery { .. }) => self.waiting = waiting,
            Err(waiting) => {
                self.waiting = waiting;
                self.bury(effects);
            }
            Ok(_) => self.bury(effects),
        }
    }

    /// Asks those members that have not promised in this run.
    fn collect_promises(&mut self, effects: &mut Vec<Effect>) {
        let Some(Promise { cluster, members }) = self.promise.clone() else { return };
        let is_missing = |member: &&MemberRecord| {
            member.identity != self.me.identity && !self.promised.contains(&member.identity.node_id)
        };
        let missing: Vec<_> = members.iter().filter(is_missing).cloned().collect();
        let says_so = matches!(&self.waiting, Waiting::Promises { cluster: of, .. } if *of == cluster);
        if let Some(member) = missing.first().filter(|_| !says_so) {
            let name = member.identity.name.clone();
            self.waiting = Waiting::Promises { cluster, name, refusal: None };
        }
        for member in missing {
            let purpose = Purpose::Promise { cluster, node_id: member.identity.node_id };
            if !self.is_asking(&purpose) {
                let request = Call::Promise(PromiseRequest { cluster, members: members.clone() });
                self.call(purpose, member.peer_address, Some(member.identity), request, effects);
            }
        }
    }

    fn promise_answered(
        &mut self,
        cluster: ClusterId,
        node_id: u64,
        answer: PromiseAnswer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(promise) = self.promise.clone().filter(|promise| promise.cluster == cluster) else { return };
        if !self.coordinates() {
            return;
        }
        match answer {
            PromiseAnswer::Promised => {
                self.promised.insert(node_id);
            }
            PromiseAnswer::Refused(refusal) => {
                let name = promise.members.iter().find(|member| member.identity.node_id == node_id);
                if let Some(name) = name.map(|member| member.identity.name.clone()) {
                    self.waiting = Waiting::Promises { cluster, name, refusal: Some(refusal) };
                }
                return;
            }
        }
        let me = self.me.identity.node_id;
        let ids = promise.members.iter().map(|member| member.identity.node_id);
        if ids.filter(|id| *id != me).all(|id| self.promised.contains(&id)) {
            self.done = true;
            effects.push(Effect::Store(Change::Found { cluster }));
            effects.push(Effect::Finish(Formed::Founded));
        }
    }

    /// Gives the cluster up that this node coordinates, and says so.
    fn bury(&mut self, effects: &mut Vec<Effect>) {
        let Some(Promise { cluster, members }) = self.promise.take() else { return };
        self.promised.clear();
        effects.push(Effect::Store(Change::Release));
        for member in members {
            if member.identity != self.me.identity {
                let request = Call::Settle(SettleRequest::Dead { cluster });
                self.call(Purpose::Bury, member.peer_address, Some(member.identity), request, effects);
            }
        }
    }

    fn ask_for_outcome(&mut self, outlook: &Outlook, promise: &Promise, effects: &mut Vec<Effect>) {
        let Some(coordinator) = promise.coordinator() else { return };
        let cluster = promise.cluster;
        self.waiting = Waiting::Outcome { cluster, coordinator: coordinator.identity.name.clone() };
        let request = SettleRequest::Ask { cluster, coordinator: coordinator.identity.node_id };
        for member in &promise.members {
            let node_id = member.identity.node_id;
            let purpose = Purpose::Ask { cluster, node_id };
            if member.identity == self.me.identity || self.is_asking(&purpose) {
                continue;
            }
            // It may have moved since.
            let address = &outlook.node(node_id).unwrap_or(member).peer_address;
            self.call(
                purpose,
                address.clone(),
                Some(member.identity.clone()),
                Call::Settle(request.clone()),
                effects,
            );
        }
    }

    fn outcome_told(
        &mut self,
        now_ms: u64,
        cluster: ClusterId,
        node_id: u64,
        answer: SettleAnswer,
        effects: &mut Vec<Effect>,
    ) {
        let Some(promise) = self.promise.as_ref().filter(|promise| promise.cluster == cluster) else {
            return;
        };
        let is_coordinator = promise.coordinator().is_some_and(|member| member.identity.node_id == node_id);
        match answer {
            SettleAnswer::Exists(settlement) if settlement.cluster == cluster => {
                self.done = true;
                effects.push(Effect::Store(Change::Settle { cluster, key: settlement.key }));
                effects.push(Effect::Finish(Formed::Settled));
            }
            SettleAnswer::Dead if is_coordinator => self.release(now_ms, effects),
            _ => {}
        }
    }

    fn release(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.promise = None;
        self.waiting = Waiting::FirstLook;
        effects.push(Effect::Store(Change::Release));
        self.look_soon(now_ms);
    }

    fn ask_to_join(&mut self, outlook: &Outlook, cluster: ClusterId, effects: &mut Vec<Effect>) {
        if !matches!(&self.waiting, Waiting::Admission { cluster: of, .. } if *of == cluster) {
            self.waiting = Waiting::Admission { cluster, reason: None };
        }
        let purpose = Purpose::Join { cluster };
        if self.is_asking(&purpose) {
            return;
        }
        let standing = || outlook.members().filter(|(_, standing)| standing.cluster == cluster);
        let leader = self.leader_hint.take().or_else(|| standing().find_map(|(_, standing)| standing.leader));
        let known = || standing().flat_map(|(node, standing)| standing.members.iter().chain([node]));
        let target = leader
            .and_then(|leader| {
                outlook.node(leader).or_else(|| known().find(|member| member.identity.node_id == leader))
            })
            .or_else(|| standing().map(|(node, _)| node).next());
        if let Some(target) = target.cloned() {
            let request = Call::Join(Admission { node: self.me.clone(), cluster });
            self.call(purpose, target.peer_address, Some(target.identity), request, effects);
        }
    }

    fn join_answered(
        &mut self,
        now_ms: u64,
        cluster: ClusterId,
        answer: Result<Answer, CallFailure>,
        effects: &mut Vec<Effect>,
    ) {
        let reason = match answer {
            Ok(Answer::Join(answer)) if answer.cluster == cluster && self.promise.is_none() => {
                self.done = true;
                effects.push(Effect::Store(Change::Adopt { cluster, key: answer.key }));
                effects.push(Effect::Finish(Formed::Joined));
                return;
            }
            Ok(_) => "the answer makes no sense".to_owned(),
            Err(CallFailure::Lost(reason)) => reason,
            Err(CallFailure::Refused(refusal)) => match refusal {
                PeerRefusal::NotLeader { leader: Some(leader) } => {
                    self.leader_hint = Some(leader);
                    self.look_soon(now_ms);
                    refusal.to_string()
                }
                PeerRefusal::Identity { .. } | PeerRefusal::Malformed { .. } => {
                    return self.fail(FormingError::Refused { cluster, refusal }, effects);
                }
                refusal => refusal.to_string(),
            },
        };
        self.waiting = Waiting::Admission { cluster, reason: Some(reason) };
    }

    fn asked(
        &mut self,
        now_ms: u64,
        from: &PeerIdentity,
        request: Question,
        effects: &mut Vec<Effect>,
    ) -> Result<Answer, PeerRefusal> {
        match request {
            Question::NodeInfo(request) => {
                self.hear_of(now_ms, from, &request.asker)?;
                Ok(Answer::NodeInfo(self.info()))
            }
            Question::Promise(request) => {
                let answer = match self.check_promise(from, &request) {
                    Ok(()) => {
                        let promise = Promise { cluster: request.cluster, members: request.members };
                        if self.promise.is_none() {
                            self.promise = Some(promise.clone());
                            effects.push(Effect::Store(Change::Promise(promise)));
                            self.look_soon(now_ms);
                        }
                        PromiseAnswer::Promised
                    }
                    Err(refusal) => PromiseAnswer::Refused(refusal),
                };
                Ok(Answer::Promise(answer))
            }
            Question::Settle(request) => {
                Ok(Answer::Settle(self.tell_outcome(now_ms, from, &request, effects)))
            }
        }
    }

    fn info(&self) -> NodeInfo {
        let standing = match self.goal {
            Goal::Join => Standing::Joining,
            Goal::Form { nodes } => {
                let alone = || vec![self.me.clone()];
                let seen = self.outlook.as_ref().map_or_else(alone, |outlook| outlook.forming(&self.me));
                let complete = self.outlook.as_ref().is_some_and(Outlook::is_complete);
                Standing::Forming { expected: nodes, seen, complete }
            }
        };
        NodeInfo { node: self.me.clone(), standing }
    }

    /// Whoever asks this node is asked in turn: that is how a node learns of others that its own list lacks.
    fn hear_of(&mut self, now_ms: u64, from: &PeerIdentity, asker: &MemberRecord) -> Result<(), PeerRefusal> {
        if asker.identity != *from {
            return Err(PeerRefusal::Identity { reason: "it asks in another node's name".to_owned() });
        }
        check_record(asker).map_err(|reason| PeerRefusal::Malformed { reason })?;
        if self.heard.get(&from.node_id) != Some(&asker.peer_address) {
            self.note_address(asker);
            self.look_soon(now_ms);
        }
        Ok(())
    }

    fn note_address(&mut self, node: &MemberRecord) {
        let node_id = node.identity.node_id;
        let has_room = self.heard.contains_key(&node_id) || self.heard.len() < HEARD_MAX;
        if has_room && node_id != self.me.identity.node_id && check_record(node).is_ok() {
            self.heard.insert(node_id, node.peer_address.clone());
        }
    }

    fn check_promise(&self, from: &PeerIdentity, request: &PromiseRequest) -> Result<(), PromiseRefusal> {
        if self.done {
            return Err(PromiseRefusal::Ending);
        }
        let other = |reason: &str| PromiseRefusal::OtherMembers { reason: reason.to_owned() };
        check_members(&request.members).map_err(|reason| other(&reason))?;
        if request.members.first().map(|member| &member.identity) != Some(from) {
            return Err(other("the sender is not the first of them"));
        }
        if !request.members.contains(&self.me) {
            return Err(other("this node is none of them"));
        }
        match &self.promise {
            Some(given) if given.cluster == request.cluster && given.members == request.members => {
                return Ok(());
            }
            Some(given) => {
                let coordinator = given.coordinator().map_or(0, |member| member.identity.node_id);
                return Err(PromiseRefusal::PromisedElsewhere { cluster: given.cluster, coordinator });
            }
            None => {}
        }
        if let Some(cluster) = self.known_cluster {
            return Err(PromiseRefusal::ClusterExists { cluster });
        }
        let nodes = match self.goal {
            Goal::Join => 0,
            Goal::Form { nodes } => nodes,
        };
        if request.members.len() != nodes as usize {
            return Err(PromiseRefusal::OtherSize { expected: nodes });
        }
        let outlook = self.outlook.clone().unwrap_or_default();
        match outlook.first_members(&self.me, nodes) {
            Ok(members) if members == request.members => Ok(()),
            _ => {
                let seen = outlook.forming(&self.me);
                Err(PromiseRefusal::OtherView {
                    seen: seen.iter().map(|node| node.identity.node_id).collect(),
                })
            }
        }
    }

    fn tell_outcome(
        &mut self,
        now_ms: u64,
        from: &PeerIdentity,
        request: &SettleRequest,
        effects: &mut Vec<Effect>,
    ) -> SettleAnswer {
        match *request {
            SettleRequest::Ask { coordinator, .. } if coordinator != self.me.identity.node_id => {
                SettleAnswer::Unknown
            }
            SettleRequest::Ask { cluster, .. } => {
                let is_open = self.promise.as_ref().is_some_and(|promise| promise.cluster == cluster);
                // It was minted by this node, is in no state of it any more, and was not founded.
                if is_open { SettleAnswer::Open } else { SettleAnswer::Dead }
            }
            SettleRequest::Dead { cluster } => {
                let promise = self.promise.as_ref().filter(|promise| promise.cluster == cluster);
                let coordinator = promise.and_then(Promise::coordinator);
                if !self.done && coordinator.is_some_and(|coordinator| coordinator.identity == *from) {
                    self.release(now_ms, effects);
                }
                SettleAnswer::Noted
            }
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

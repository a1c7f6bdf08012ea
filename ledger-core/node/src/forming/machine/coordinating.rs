//! The node with the lowest id: it mints a cluster, collects the promises of the others, and founds or buries it.

use super::{Machine, Purpose};
use crate::directory::Promise;
use crate::forming::errors::Waiting;
use crate::forming::events::{Call, Change, Effect, Formed, Goal, Mint};
use crate::forming::outlook::Outlook;
use crate::peers::{ClusterId, MemberRecord, PromiseAnswer, PromiseRequest, SettleRequest};

impl Machine {
    /// Whether this node has minted a cluster that it has neither founded nor given up.
    pub(super) fn coordinates(&self) -> bool {
        let coordinator = self.promise.as_ref().and_then(Promise::coordinator);
        coordinator.is_some_and(|coordinator| coordinator.identity == self.me.identity)
    }

    pub(super) fn begin(&mut self, outlook: &Outlook, nodes: u32, mint: Mint<'_>, effects: &mut Vec<Effect>) {
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

    pub(super) fn coordinate(&mut self, outlook: &Outlook, effects: &mut Vec<Effect>) {
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

    pub(super) fn promise_answered(
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
    pub(super) fn bury(&mut self, effects: &mut Vec<Effect>) {
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
}

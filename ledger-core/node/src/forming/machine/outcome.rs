//! A node that promised itself to another one's cluster: it asks what became of that.

use super::{Machine, Purpose};
use crate::directory::Promise;
use crate::forming::errors::Waiting;
use crate::forming::events::{Call, Change, Effect, Formed};
use crate::forming::outlook::Outlook;
use crate::peers::{ClusterId, SettleAnswer, SettleRequest};

impl Machine {
    pub(super) fn ask_for_outcome(
        &mut self,
        outlook: &Outlook,
        promise: &Promise,
        effects: &mut Vec<Effect>,
    ) {
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

    pub(super) fn outcome_told(
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

    pub(super) fn release(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.promise = None;
        self.waiting = Waiting::FirstLook;
        effects.push(Effect::Store(Change::Release));
        self.look_soon(now_ms);
    }
}

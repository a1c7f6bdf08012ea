//! What a node without a cluster answers its peers.

use super::Machine;
use crate::directory::{Promise, check_members, check_record};
use crate::forming::events::{Answer, Change, Effect, Goal, Question};
use crate::forming::outlook::Outlook;
use crate::peers::{
    MemberRecord, NodeInfo, PeerIdentity, PeerRefusal, PromiseAnswer, PromiseRefusal, PromiseRequest,
    SettleAnswer, SettleRequest, Standing,
};

impl Machine {
    pub(super) fn asked(
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
}

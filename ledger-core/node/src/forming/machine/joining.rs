//! A node that saw a cluster: it asks the leader to take it in.

use super::{Machine, Purpose};
use crate::forming::errors::{FormingError, Waiting};
use crate::forming::events::{Admission, Answer, Call, CallFailure, Change, Effect, Formed};
use crate::forming::outlook::Outlook;
use crate::peers::{ClusterId, PeerRefusal};

impl Machine {
    pub(super) fn ask_to_join(&mut self, outlook: &Outlook, cluster: ClusterId, effects: &mut Vec<Effect>) {
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

    pub(super) fn join_answered(
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
}

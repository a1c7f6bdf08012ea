//! A request that is decided without the store: each of its rules does what it says it does then.

use std::time::Duration;

use ratelimit_core::ports::PolicyId;
use ratelimit_core::rules::OnFailure;
use ratelimit_core::{Decision, Hit, Nanos, SetGrant, Verdict};

use super::{How, InForceThere, RuleStore, StoreEngine, Why};
use crate::answer::Answer;
use crate::in_force::{Met, counts};
use crate::request::{Request, RequestError};

/// When a request that was denied for want of the store may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a request met, what it was answered, and what it took.
pub(super) type DecidedHere = (Vec<Option<Met>>, Answer, Option<SetGrant>);

/// What stands in for a limit.
#[derive(Clone, Copy)]
enum Stand {
    /// The limit itself: it counts nothing, or is counted here anyway.
    Itself,
    Open,
    Closed,
    Share(PolicyId),
    /// A share whose consumption could not be told to the store later.
    NoRoom,
}

impl<S: RuleStore> StoreEngine<S> {
    /// Decides without the store. `None` when it is trusted again.
    pub(super) fn here(
        &self,
        request: &Request<'_>,
        how: How,
        why: Why,
        now: Nanos,
    ) -> Result<Option<DecidedHere>, RequestError> {
        let force = self.read();
        let met = force.rules.meet(request);
        let parts: Vec<&Met> = met.iter().flatten().collect();
        // Held while shares are decided, so that what is told the store later is exactly what was taken.
        let mut unpushed = self.unpushed();
        if why == Why::Degraded && !self.health.is_degraded() {
            return Ok(None);
        }
        let stand = |met: &&Met| stand(&force, met);
        let mut stands: Vec<Stand> = parts.iter().map(stand).collect();
        for (stand, met) in stands.iter_mut().zip(&parts) {
            if let Stand::Share(policy) = *stand
                && how == How::Take
                && met.cost > 0
                && !unpushed.has_room(policy, &met.counter, now)
            {
                *stand = Stand::NoRoom;
            }
        }
        for (stand, met) in stands.iter().zip(&parts) {
            // When the store was asked it began before that.
            if let Stand::Share(policy) = *stand
                && why == Why::Degraded
            {
                self.begin_share(&force, met, policy, now);
            }
        }
        let hits: Vec<Hit> = parts.iter().zip(&stands).map(|(met, stand)| stand.hit(met)).collect();
        let before: Vec<Option<Decision>> =
            parts.iter().zip(&stands).map(|(met, stand)| self.before(&force, met, *stand, now)).collect();
        let too_many = |_| RequestError::TooManyDescriptors { descriptors: hits.len() };
        let (said, grant) = match how {
            How::Take => force.rules.set.acquire(&hits, now).map_err(too_many)?,
            How::Look => (force.rules.set.peek(&hits, now).map_err(too_many)?, None),
        };
        let said = said.decisions().iter().zip(&parts).zip(&stands);
        let decisions: Vec<Decision> =
            said.map(|((decision, met), stand)| stand.told(*decision, met, now)).collect();
        let decided = decisions.iter().zip(&parts).map(|(decision, met)| (*decision, met.enforcement));
        let verdict = Verdict::of(&decided.collect::<Vec<_>>());
        if how == How::Take && verdict.is_allowed() {
            for (((met, stand), before), decision) in parts.iter().zip(&stands).zip(&before).zip(&decisions) {
                if let (Stand::Share(policy), Some(before)) = (stand, before)
                    && decision.is_allowed()
                    && met.cost > 0
                {
                    unpushed.took((*policy, &met.counter), &met.told, before, (met.cost, now));
                }
            }
        }
        drop(unpushed);
        let mut answer = Answer::of(&met, &verdict);
        answer.degraded = stands.iter().any(|stand| !matches!(stand, Stand::Itself));
        Ok(Some((met, answer, grant)))
    }

    /// What a share says of its key before it is charged.
    fn before(&self, force: &InForceThere, met: &Met, stand: Stand, now: Nanos) -> Option<Decision> {
        let Stand::Share(_) = stand else { return None };
        let look = force.rules.set.peek(&[met.hit.with_cost(0).needing(0)], now).ok()?;
        look.decisions().first().copied()
    }
}

fn stand(force: &InForceThere, met: &Met) -> Stand {
    let Some(rule) = met.index.and_then(|index| force.rules.kept.get(index)) else { return Stand::Itself };
    if !counts(&rule.told.limit) {
        return Stand::Itself;
    }
    match (rule.on_failure, force.policies.id(&rule.place)) {
        (OnFailure::Open, _) => Stand::Open,
        (OnFailure::LocalShare, Some(policy)) => Stand::Share(policy),
        (OnFailure::Closed | OnFailure::LocalShare, _) => Stand::Closed,
    }
}

impl Stand {
    fn hit(self, met: &Met) -> Hit {
        match self {
            Self::NoRoom => met.hit.needing(u64::MAX),
            _ => met.hit,
        }
    }

    fn told(self, said: Decision, met: &Met, now: Nanos) -> Decision {
        let size = met.told.limit.size();
        match self {
            Self::Itself | Self::Share(_) => said,
            Self::Open => Decision::unchecked(size, now),
            Self::Closed | Self::NoRoom => {
                // Whoever only looks is told as much as whoever takes.
                Decision::withheld(size, met.cost.max(met.needs).max(1), now, RETRY_AFTER)
            }
        }
    }
}

//! A request, and what was decided about it.

use ratelimit_core::ports::{Charge, PolicyId, RateStoreError};
use ratelimit_core::{Decision, Enforcement, HITS_MAX, TooManyHits, Verdict};

use super::layout::{RowKey, Secret, Tag};

/// What a request asks of one counter, charges of the same counter added up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub policy: usize,
    pub tag: Tag,
    pub cost: u64,
}

/// A request: its distinct counters, and for each charge which of them it is about.
#[derive(Debug)]
pub(super) struct Request {
    pub asked: Vec<Asked>,
    of_charge: Vec<usize>,
    ids: Vec<PolicyId>,
}

/// What was decided.
#[derive(Debug)]
pub(super) struct Decided {
    pub verdict: Verdict,
    pub parts: Vec<Part>,
    /// The commit that has to be durable before anybody is told.
    pub after: Option<u64>,
}

/// What a request took of one counter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub key: RowKey,
    pub version: u64,
    pub cost: u64,
    pub stamp: u64,
}

/// Whether a request is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Charge,
    Look,
}

impl Request {
    pub(super) fn new(charges: &[Charge<'_>], secret: Secret) -> Result<Self, RateStoreError> {
        if charges.len() > HITS_MAX {
            return Err(TooManyHits { hits: charges.len(), hits_max: HITS_MAX }.into());
        }
        let mut asked: Vec<Asked> = Vec::with_capacity(charges.len());
        let mut of_charge = Vec::with_capacity(charges.len());
        for charge in charges {
            // What does not fit is no policy of any store.
            let policy = usize::try_from(charge.policy.0).unwrap_or(usize::MAX);
            let tag = secret.tag(charge.key);
            let same = |other: &Asked| other.policy == policy && other.tag == tag;
            let index = asked.iter().position(same).unwrap_or(asked.len());
            match asked.get_mut(index) {
                Some(other) => other.cost = other.cost.saturating_add(charge.cost),
                None => asked.push(Asked { policy, tag, cost: charge.cost }),
            }
            of_charge.push(index);
        }
        Ok(Self { asked, of_charge, ids: charges.iter().map(|charge| charge.policy).collect() })
    }

    /// Refuses a request with a policy that is none of so many.
    pub(super) fn refuse_unknown(&self, policies: usize) -> Result<(), RateStoreError> {
        let unknown = |policy: &&PolicyId| usize::try_from(policy.0).map_or(true, |id| id >= policies);
        match self.ids.iter().find(unknown) {
            Some(policy) => Err(RateStoreError::UnknownPolicy { policy: *policy, policies }),
            None => Ok(()),
        }
    }

    /// The verdict of the decisions about the distinct counters.
    pub(super) fn verdict(&self, decisions: &[(Decision, Enforcement)]) -> Verdict {
        let of_charge = self.of_charge.iter().filter_map(|index| decisions.get(*index).copied());
        Verdict::of(&of_charge.collect::<Vec<_>>())
    }
}

//! Grants that callers asked for, until they are given back or forgotten.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ratelimit_core::Nanos;

use crate::rule_engine::RuleGrant;

/// Grants kept at a time; the oldest are forgotten for new ones. What is forgotten stays paid.
pub const GRANTS_MAX: usize = 65_536;
/// How long a grant is kept: longer than a request takes that turns out to be free.
pub const GRANT_LIFE: Duration = Duration::from_secs(300);

/// The name of a grant: random, so that nobody names another one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantId([u8; 16]);

/// Not the name of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a grant is named by 32 hexadecimal digits")]
pub struct GrantIdError;

impl GrantId {
    /// Reads the name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, GrantIdError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| GrantIdError)?;
        Ok(Self(bytes))
    }

    /// The name.
    pub fn text(self) -> String {
        hex::encode(self.0)
    }
}

/// A table of grants.
#[derive(Debug, Default)]
pub struct Grants {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// `None` while somebody gives it back.
    grants: HashMap<GrantId, Option<RuleGrant>>,
    /// In the order in which they were made.
    made: VecDeque<(Nanos, GrantId)>,
}

impl Grants {
    /// Keeps a grant; its name. `None` when the system has no randomness: then it stays paid.
    pub fn keep(&self, grant: RuleGrant, now: Nanos) -> Option<GrantId> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let id = GrantId(bytes);
        let mut kept = self.lock();
        kept.forget(now);
        kept.grants.insert(id, Some(grant));
        kept.made.push_back((now, id));
        Some(id)
    }

    /// Takes a grant, for one at a time: what is not used up comes back when that is dropped.
    pub fn take(&self, id: GrantId, now: Nanos) -> Option<TakenGrant<'_>> {
        let mut kept = self.lock();
        kept.forget(now);
        let grant = kept.grants.get_mut(&id)?.take()?;
        Some(TakenGrant { of: self, id, grant: Some(grant) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A grant that is being given back: one that is still there in the end is kept.
#[derive(Debug)]
pub struct TakenGrant<'g> {
    of: &'g Grants,
    id: GrantId,
    /// Taken out by whoever has used it up.
    pub grant: Option<RuleGrant>,
}

impl Drop for TakenGrant<'_> {
    fn drop(&mut self) {
        let mut kept = self.of.lock();
        match (self.grant.take(), kept.grants.get_mut(&self.id)) {
            (Some(grant), Some(place)) => *place = Some(grant),
            (None, Some(_)) => {
                kept.grants.remove(&self.id);
            }
            // It was forgotten meanwhile.
            (_, None) => {}
        }
    }
}

impl Kept {
    /// Drops what is old, and makes room for one more.
    fn forget(&mut self, now: Nanos) {
        while let Some((made, id)) = self.made.front().copied() {
            if self.made.len() < GRANTS_MAX && now.since(made) < GRANT_LIFE {
                break;
            }
            self.made.pop_front();
            self.grants.remove(&id);
        }
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
mod tests {
    use ratelimit_core::rules::{Domain, Entry, Node, NodeValue, Rule, RuleSet};
    use ratelimit_core::{HashSecret, Limit, Rate, TableSize};
    use ratelimit_rules::{Descriptor, Engine, Request};

    use super::*;

    fn grant() -> RuleGrant {
        let limit = Limit::gcra(Rate::per_minute(3), 3).expect("a limit");
        let node = Node::new("client", NodeValue::Any).with_rule(Rule::new(limit));
        let rules = RuleSet::new([Domain { name: "web".to_owned(), nodes: vec![node] }]).expect("rules");
        let engine = Engine::new(rules, TableSize::for_keys(10), HashSecret([7; 16])).expect("an engine");
        let entries = [Entry { key: "client", value: "a" }];
        let descriptors = [Descriptor::new(&entries)];
        let acquired = engine.acquire(&Request::new("web", &descriptors), Nanos(0)).expect("a request");
        RuleGrant::Memory(acquired.1.expect("a grant"))
    }

    /// A refund that failed, or whose caller went away, ate the grant.
    #[test]
    fn a_grant_that_was_not_used_up_is_kept_for_another_try_and_one_that_was_is_gone() {
        let grants = Grants::default();
        let id = grants.keep(grant(), Nanos(0)).expect("randomness");
        for _ in 0..3 {
            let taken = grants.take(id, Nanos(1)).expect("it is there");
            assert!(taken.grant.is_some());
            assert!(grants.take(id, Nanos(1)).is_none(), "one at a time");
        }
        grants.take(id, Nanos(1)).expect("it is there").grant = None;
        assert!(grants.take(id, Nanos(1)).is_none(), "it was given back");
    }

    #[test]
    fn a_grant_that_is_forgotten_while_it_is_taken_stays_forgotten() {
        let grants = Grants::default();
        let id = grants.keep(grant(), Nanos(0)).expect("randomness");
        let taken = grants.take(id, Nanos(1)).expect("it is there");
        let late = Nanos(0).after(GRANT_LIFE);
        assert!(grants.take(id, late).is_none());
        drop(taken);
        assert!(grants.take(id, late).is_none());
        assert!(grants.lock().grants.is_empty() && grants.lock().made.is_empty());
    }
}

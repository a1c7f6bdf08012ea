//! Rules as policies of a store: numbers that stay while anybody may use them, and names by which counters are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use ratelimit_core::KeyParts;
use ratelimit_core::ports::{Policy, PolicyId};
use ratelimit_core::rules::{Placed, RuleSet};

use crate::engine::EngineError;
use crate::in_force::counts;

/// Held by each request while it may use numbers of the rules that it met.
pub(super) type InUse = Arc<()>;

/// The policies of a store, in the order of their numbers. A rule keeps its number as long as it is in force; one that is gone
/// leaves its policy in place until no request can name it any more.
#[derive(Clone, Default)]
pub(super) struct Policies {
    all: Vec<Numbered>,
    by_place: BTreeMap<KeyParts, PolicyId>,
}

#[derive(Clone)]
struct Numbered {
    place: KeyParts,
    policy: Policy,
    /// The requests that may still use it, once its rule is gone.
    gone: Option<Vec<Weak<()>>>,
}

impl Policies {
    /// The policies when these rules come into force. `users` are the requests under way.
    pub(super) fn succeeded_by(&self, rules: &RuleSet, users: &[Weak<()>]) -> Result<Self, EngineError> {
        let placed: Vec<Placed<'_>> =
            rules.rules().into_iter().filter(|placed| counts(&placed.rule.limit)).collect();
        let places: BTreeSet<&KeyParts> = placed.iter().map(|placed| &placed.place).collect();
        let mut next = self.clone();
        for numbered in &mut next.all {
            if !places.contains(&numbered.place) && numbered.gone.is_none() {
                numbered.gone = Some(users.to_vec());
                next.by_place.remove(&numbered.place);
            }
        }
        let numbered = next.all.iter().enumerate();
        let known: BTreeMap<KeyParts, usize> =
            numbered.clone().map(|(index, other)| (other.place.clone(), index)).collect();
        let free = numbered.filter(|(_, other)| other.is_free() && !places.contains(&other.place));
        let mut free: Vec<usize> = free.map(|(index, _)| index).collect();
        for placed in &placed {
            if placed.rule.limit.stored().is_none() || is_sliding(placed) {
                return Err(EngineError::NotStored { path: placed.path.clone() });
            }
            let policy = Policy {
                name: name(&placed.place),
                limit: placed.rule.limit.clone(),
                enforcement: placed.rule.enforcement,
            };
            let numbered = Numbered { place: placed.place.clone(), policy, gone: None };
            let index = match known.get(&placed.place).copied().or_else(|| free.pop()) {
                Some(index) => {
                    if let Some(other) = next.all.get_mut(index) {
                        *other = numbered;
                    }
                    index
                }
                None => {
                    next.all.push(numbered);
                    next.all.len() - 1
                }
            };
            // At most as many as rules of bounded number.
            next.by_place.insert(placed.place.clone(), PolicyId(u32::try_from(index).unwrap_or(u32::MAX)));
        }
        while next.all.last().is_some_and(Numbered::is_free) {
            next.all.pop();
        }
        Ok(next)
    }

    pub(super) fn list(&self) -> Vec<Policy> {
        self.all.iter().map(|numbered| numbered.policy.clone()).collect()
    }

    pub(super) fn id(&self, place: &KeyParts) -> Option<PolicyId> {
        self.by_place.get(place).copied()
    }
}

impl Numbered {
    fn is_free(&self) -> bool {
        self.gone.as_ref().is_some_and(|users| users.iter().all(|user| user.strong_count() == 0))
    }
}

/// Its state is a word, but one that only means something beside the clock that made it.
fn is_sliding(placed: &Placed<'_>) -> bool {
    matches!(placed.rule.limit, ratelimit_core::Limit::SlidingWindow(_))
}

/// The place of a rule as text: its parts joined by `/`, each byte that is not a letter, a digit or one of `.-_*=^~:` as `%`
/// and two hexadecimal digits. No two places have the same one.
fn name(place: &KeyParts) -> String {
    let mut name = String::new();
    let mut bytes = place.as_bytes();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (part, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        for byte in part {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(char::from(*byte)),
                b'.' | b'-' | b'_' | b'*' | b'=' | b'^' | b'~' | b':' => name.push(char::from(*byte)),
                _ => name.push_str(&format!("%{byte:02x}")),
            }
        }
        name.push('/');
        bytes = rest;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_places_apart_whatever_is_in_them() {
        let names = [
            KeyParts::new(["shop", "path", "=", "/login", "client_ip", "*", ""]),
            KeyParts::new(["shop", "path", "=", "", "login", "client_ip", "*", ""]),
            KeyParts::new(["shop/path", "=", "%2flogin"]),
            KeyParts::new(["shop", "path", "=", "%2flogin"]),
        ]
        .map(|place| name(&place));
        assert_eq!(names[0], "shop/path/=/%2flogin/client_ip/*//");
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }
}

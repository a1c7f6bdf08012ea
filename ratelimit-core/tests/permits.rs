//! Permits that are held: never more than there are, and nobody frees another's.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Grant, HashSecret, Limit, Limiter, Nanos, TableSize};

const SECOND: Duration = Duration::from_secs(1);

fn limiter(permits: u64) -> Limiter<str> {
    let limit = Limit::concurrency(permits, SECOND * 10).expect("a limit");
    Limiter::new(limit, TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([4; 16])).expect("memory")
}

fn at(seconds: u64) -> Nanos {
    Nanos::from_duration(SECOND * seconds as u32)
}

fn taken(limiter: &Limiter<str>, cost: u64, now: Nanos) -> Grant {
    limiter.acquire("job", cost, now).1.expect("a permit")
}

#[test]
fn a_permit_is_given_back_and_taken_again() {
    let limiter = limiter(2);
    let (first, _second) = (taken(&limiter, 1, at(0)), taken(&limiter, 1, at(0)));
    let denied = limiter.check("job", at(1));
    assert!(!denied.is_allowed());
    assert_eq!(denied.retry_after(), Some(SECOND * 9));
    limiter.refund(first, at(1));
    assert!(limiter.check("job", at(1)).is_allowed());
}

/// litellm PR 36541: a late release frees what another request holds.
#[test]
fn a_permit_that_has_expired_frees_nothing_when_it_is_released() {
    let limiter = limiter(1);
    let late = taken(&limiter, 1, at(0));
    let _other = taken(&limiter, 1, at(10));
    limiter.refund(late, at(11));
    assert!(!limiter.check("job", at(11)).is_allowed());
}

#[test]
fn a_renewed_permit_lives_on_and_an_expired_one_cannot_be_renewed() {
    let limiter = limiter(1);
    let grant = taken(&limiter, 1, at(0));
    assert!(limiter.renew(&grant, at(9)));
    assert!(!limiter.check("job", at(18)).is_allowed());
    assert!(!limiter.renew(&grant, at(19)));
    assert!(limiter.check("job", at(19)).is_allowed());
}

#[test]
fn a_crashed_holder_costs_its_permits_for_one_expiry() {
    let limiter = limiter(3);
    let _lost = taken(&limiter, 3, at(0));
    assert!(!limiter.check("job", at(9)).is_allowed());
    assert_eq!(limiter.peek("job", 0, at(10)).remaining(), 3);
}

#[derive(Debug, Clone)]
enum Act {
    Take(u64),
    Release(usize),
    Renew(usize),
}

proptest! {
    #[test]
    fn at_every_instant_at_most_the_permits_are_held(
        permits in 1..6u64,
        acts in prop::collection::vec((0..6u64, prop_oneof![
            (1..4u64).prop_map(Act::Take), (0..9usize).prop_map(Act::Release), (0..9usize).prop_map(Act::Renew),
        ]), 1..80),
    ) {
        let limiter = limiter(permits);
        let mut now = 0;
        // The model: holders with their permits and expiry in seconds.
        let mut held: Vec<(Option<Grant>, u64, u64)> = Vec::new();
        for (wait, act) in acts {
            now += wait;
            let live = |held: &Vec<(Option<Grant>, u64, u64)>| -> u64 {
                held.iter().filter(|(grant, _, end)| grant.is_some() && *end > now).map(|(_, cost, _)| cost).sum()
            };
            match act {
                Act::Take(cost) => {
                    let (decision, grant) = limiter.acquire("job", cost, at(now));
                    prop_assert_eq!(decision.is_allowed(), live(&held) + cost <= permits);
                    if grant.is_some() {
                        held.push((grant, cost, now + 10));
                    }
                }
                Act::Release(which) if !held.is_empty() => {
                    let index = which % held.len();
                    if let Some(grant) = held[index].0.take() {
                        limiter.refund(grant, at(now));
                    }
                }
                Act::Renew(which) if !held.is_empty() => {
                    let index = which % held.len();
                    let (grant, _, end) = &mut held[index];
                    if let Some(grant) = grant {
                        prop_assert_eq!(limiter.renew(grant, at(now)), *end > now);
                        *end = if *end > now { now + 10 } else { *end };
                    }
                }
                _ => {}
            }
            prop_assert_eq!(limiter.peek("job", 0, at(now)).remaining(), permits - live(&held));
        }
    }
}

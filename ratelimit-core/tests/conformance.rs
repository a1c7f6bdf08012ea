//! The store in memory keeps its contract, and stores that break it on purpose are found out.

use std::sync::Mutex;

use ratelimit_core::conformance::{self, Harness};
use ratelimit_core::memory::MemoryStore;
use ratelimit_core::ports::{Charge, Policy, RateStore, RateStoreError};
use ratelimit_core::{HashSecret, KeyParts, Nanos, SetGrant, TableSize, Verdict};

struct Memory;

fn memory(policies: &[Policy]) -> MemoryStore {
    MemoryStore::new(policies.to_vec(), TableSize::for_keys(1_000), HashSecret([8; 16])).expect("memory")
}

impl Harness for Memory {
    type Store = MemoryStore;

    fn open(&self, policies: &[Policy]) -> MemoryStore {
        memory(policies)
    }
}

mod memory_keeps {
    use super::Memory;

    ratelimit_core::rate_store_conformance!(Memory);
}

/// How a store is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Looks, then charges: two threads both pass.
    CheckThenAct,
    /// Charges counter after counter, and stops at the first that denies.
    OneByOne,
    /// Takes what is left from a request that it denies.
    DenialsCost,
    /// Counts every cell twice.
    Strict,
    /// Joins the parts of keys with an underscore.
    JoinedKeys,
    /// Believes that time begins anew when a stamp is old.
    OldStampsReset,
    /// Charges when it should look.
    LooksCharge,
    /// Gives back by forgetting everything.
    RefundForgets,
    /// Skips policies that it does not know.
    SkipsUnknown,
}

struct Broken {
    inner: MemoryStore,
    bug: Bug,
    newest: Mutex<Nanos>,
}

struct BrokenHarness(Bug);

impl Harness for BrokenHarness {
    type Store = Broken;

    fn open(&self, policies: &[Policy]) -> Broken {
        Broken { inner: memory(policies), bug: self.0, newest: Mutex::new(Nanos(0)) }
    }
}

/// The charges under a bug that changes what they mean, and the keys that they borrow.
fn joined(key: &KeyParts) -> KeyParts {
    let (mut parts, mut bytes) = (Vec::new(), key.as_bytes());
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (part, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        parts.push(part);
        bytes = rest;
    }
    KeyParts::new([parts.join(&b"_"[..])])
}

impl Broken {
    async fn check_then_act(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<SetGrant>), RateStoreError> {
        let looked = self.inner.peek(charges, now).await?;
        if !looked.is_allowed() {
            return Ok((looked, None));
        }
        std::thread::yield_now();
        // What it then does not get, it believes to have.
        let (_, grant) = self.inner.check(charges, now).await?;
        Ok((looked, grant))
    }
}

impl RateStore for Broken {
    type Grant = SetGrant;

    async fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> Result<(Verdict, Option<SetGrant>), RateStoreError> {
        let keys: Vec<KeyParts> = charges.iter().map(|charge| joined(charge.key)).collect();
        match self.bug {
            Bug::CheckThenAct => self.check_then_act(charges, now).await,
            Bug::OneByOne => {
                for charge in charges {
                    let (verdict, _) = self.inner.check(std::slice::from_ref(charge), now).await?;
                    if !verdict.is_allowed() {
                        return Ok((verdict, None));
                    }
                }
                Ok((self.inner.peek(charges, now).await?, None))
            }
            Bug::DenialsCost => {
                let (verdict, grant) = self.inner.check(charges, now).await?;
                if !verdict.is_allowed() {
                    let one: Vec<Charge<'_>> =
                        charges.iter().map(|charge| Charge { cost: 1, ..*charge }).collect();
                    let _ = self.inner.check(&one, now).await?;
                }
                Ok((verdict, grant))
            }
            Bug::Strict => {
                let doubled =
                    charges.iter().map(|charge| Charge { cost: charge.cost.saturating_mul(2), ..*charge });
                let twice: Vec<Charge<'_>> = doubled.collect();
                self.inner.check(&twice, now).await
            }
            Bug::JoinedKeys => {
                let keyed = charges.iter().zip(&keys).map(|(charge, key)| Charge { key, ..*charge });
                self.inner.check(&keyed.collect::<Vec<_>>(), now).await
            }
            Bug::OldStampsReset => {
                let old = {
                    let mut newest = self.newest.lock().expect("no panic");
                    let old = now < *newest;
                    *newest = now;
                    old
                };
                if old {
                    self.inner.reset(charges, now).await?;
                }
                self.inner.check(charges, now).await
            }
            Bug::SkipsUnknown => {
                let known: Vec<_> = charges.iter().filter(|charge| charge.policy.0 == 0).copied().collect();
                self.inner.check(&known, now).await
            }
            Bug::LooksCharge | Bug::RefundForgets => self.inner.check(charges, now).await,
        }
    }

    async fn peek(&self, charges: &[Charge<'_>], now: Nanos) -> Result<Verdict, RateStoreError> {
        match self.bug {
            Bug::LooksCharge => Ok(self.inner.check(charges, now).await?.0),
            _ => self.inner.peek(charges, now).await,
        }
    }

    async fn refund(&self, grant: &mut Option<SetGrant>, now: Nanos) -> Result<(), RateStoreError> {
        if self.bug == Bug::RefundForgets {
            // The granted cells come back whole, as if nothing had refilled: here by giving back at the earliest time.
            return self.inner.refund(grant, Nanos(0)).await;
        }
        self.inner.refund(grant, now).await
    }

    async fn reset(&self, charges: &[Charge<'_>], now: Nanos) -> Result<(), RateStoreError> {
        self.inner.reset(charges, now).await
    }
}

fn is_found(bug: Bug, guarantee: fn(&BrokenHarness)) {
    let found = std::panic::catch_unwind(|| {
        // A race shows in some runs only.
        for _ in 0..20 {
            guarantee(&BrokenHarness(bug));
        }
    });
    assert!(found.is_err(), "{bug:?} keeps the contract");
}

#[test]
fn each_broken_store_fails_the_guarantee_that_it_breaks() {
    is_found(Bug::CheckThenAct, conformance::g1_exact);
    is_found(Bug::OneByOne, conformance::g2_all_or_nothing);
    is_found(Bug::DenialsCost, conformance::g3_denials_are_free);
    is_found(Bug::Strict, conformance::g4_faithful);
    is_found(Bug::JoinedKeys, conformance::g5_injective);
    is_found(Bug::OldStampsReset, conformance::g6_time);
    is_found(Bug::LooksCharge, conformance::g7_looks);
    is_found(Bug::RefundForgets, conformance::g8_refunds_age);
    is_found(Bug::SkipsUnknown, conformance::g9_refusals);
}

/// It forgets, as it says.
#[test]
fn a_store_in_memory_does_not_pass_for_a_durable_one() {
    let found = std::panic::catch_unwind(|| conformance::g10_durable(&Memory));
    assert!(found.is_err());
}

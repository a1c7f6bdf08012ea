//! What an engine has decided: over all, by rule, and which keys were denied most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use ratelimit_core::Enforcement;

use crate::answer::Answer;
use crate::in_force::Met;
use crate::request::Request;
use crate::tallies::{TotalTally, Totals, one};
use crate::top::{TOP_MAX, TopDenied, TopKeys, shown};

pub(crate) struct Counts {
    totals: TotalTally,
    /// Nobody who decides waits for it.
    top: Mutex<TopKeys>,
    top_skipped: AtomicU64,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            totals: TotalTally::default(),
            top: Mutex::new(TopKeys::new(TOP_MAX)),
            top_skipped: AtomicU64::new(0),
        }
    }

    /// A request was decided.
    pub(crate) fn decided(&self, request: &Request<'_>, met: &[Option<Met>], answer: &Answer) {
        one(if answer.allowed { &self.totals.allowed } else { &self.totals.denied });
        for ((descriptor, met), status) in request.descriptors.iter().zip(met).zip(&answer.statuses) {
            if descriptor.is_negative_hits {
                one(&self.totals.negative_hits_ignored);
            }
            let (Some(met), Some(decision)) = (met, &status.decision) else {
                one(&self.totals.unmatched);
                continue;
            };
            let tally = met.tally.as_deref().unwrap_or(&self.totals.overrides);
            tally.count(decision);
            if answer.degraded && met.tally.is_some() {
                one(&tally.degraded);
            }
            if !answer.allowed && !decision.is_allowed() && met.enforcement != Enforcement::Shadow {
                let told = || TopDenied {
                    domain: request.domain.to_owned(),
                    entries: descriptor
                        .entries
                        .iter()
                        .map(|entry| (entry.key.to_owned(), shown(entry.value)))
                        .collect(),
                    rule: met.told.path.clone(),
                    denied: 0,
                    overcount: 0,
                };
                match self.top.try_lock() {
                    Ok(mut top) => top.denied(met.counter.as_bytes(), told),
                    Err(TryLockError::Poisoned(poisoned)) => {
                        poisoned.into_inner().denied(met.counter.as_bytes(), told);
                    }
                    // Whoever is denied most is met most among those that are counted too.
                    Err(TryLockError::WouldBlock) => one(&self.top_skipped),
                }
            }
        }
    }

    /// A request was refused.
    pub(crate) fn refused(&self) {
        self.totals.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn top(&self, count: usize) -> Vec<TopDenied> {
        self.top.lock().unwrap_or_else(PoisonError::into_inner).top(count)
    }

    pub(crate) fn totals(&self, overflowed: u64) -> Totals {
        Totals { top_skipped: self.top_skipped.load(Ordering::Relaxed), ..self.totals.read(overflowed) }
    }
}

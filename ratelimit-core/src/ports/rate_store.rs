use std::future::Future;

use crate::key::KeyParts;
use crate::limit::Limit;
use crate::limit_set::{Enforcement, TooManyHits, Verdict};
use crate::ticks::Nanos;

/// A limit as a store keeps it. A store is opened with all of its policies; their order is their [`PolicyId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// By which it is found again when the store is opened with other policies.
    pub name: String,
    /// The limit.
    pub limit: Limit,
    /// Whether it denies.
    pub enforcement: Enforcement,
}

/// A policy of a store: its place among those that the store was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

/// What a request takes of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge<'r> {
    /// Under which policy.
    pub policy: PolicyId,
    /// Which counter of the policy.
    pub key: &'r KeyParts,
    /// How many cells. 0 looks.
    pub cost: u64,
}

/// Counters, in this process or elsewhere.
///
/// # Contract
///
/// - **G1 exact**: concurrent calls about one counter take effect one after the other: of `n + 1` requests for `n` cells
///   exactly `n` are admitted.
/// - **G2 all or nothing**: a request takes what it asks of every counter, or of none; nobody sees a part of it. Charges
///   of one counter in a request add up.
/// - **G3 denials are free**: a request that is denied changes nothing.
/// - **G4 faithful**: decisions are those of the limit's algorithm, whatever the store: allowed, limit, remaining, and
///   waits up to the store's unit of time, rounded up.
/// - **G5 injective**: different keys have different counters, and so has one key under different policies; any bytes
///   may be in a key.
/// - **G6 time**: a stamp that is older than others before it opens nothing: it admits at most what a later one would.
/// - **G7 looks**: `peek` answers as `check` would, and changes nothing.
/// - **G8 refunds age**: giving back never admits what would not have been admitted without the grant. What another
///   store granted gives nothing back. A grant gives back once, however often that is tried.
/// - **G9 refusals**: a policy that does not exist, or too many charges, are errors that change nothing.
/// - **G10 durable**, of stores that say so: what is opened again admits no more than what was closed would have.
///
/// After an error it is unknown whether a request was charged.
pub trait RateStore: Send + Sync + 'static {
    /// What is needed to give back what a request took.
    type Grant: Send;

    /// Decides, and charges when the request is admitted (G1 to G6, G9).
    fn check(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> impl Future<Output = Result<(Verdict, Option<Self::Grant>), RateStoreError>> + Send;

    /// Decides without charging (G4, G7, G9).
    fn peek(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> impl Future<Output = Result<Verdict, RateStoreError>> + Send;

    /// Gives back what a request took (G8), and takes the grant out of its place. One that is still there after an error, or after
    /// a call that nobody waited for, gave nothing back and may be tried again: a store that could not know takes it out
    /// before it tries.
    fn refund(
        &self,
        grant: &mut Option<Self::Grant>,
        now: Nanos,
    ) -> impl Future<Output = Result<(), RateStoreError>> + Send;

    /// Forgets what was taken of the counters; their cost does not matter (G9).
    fn reset(
        &self,
        charges: &[Charge<'_>],
        now: Nanos,
    ) -> impl Future<Output = Result<(), RateStoreError>> + Send;
}

/// A store did not decide.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RateStoreError {
    /// There is no such policy.
    #[error("the store was opened with {policies} policies and has no number {}: open it with this one", policy.0)]
    UnknownPolicy {
        /// What was asked for.
        policy: PolicyId,
        /// How many there are.
        policies: usize,
    },
    /// A limit that this store cannot keep.
    #[error(
        "the policy {name} has a limit that this store cannot keep: use a bucket, a fixed window or a calendar quota"
    )]
    Unsupported {
        /// Its policy.
        name: String,
    },
    /// Too many counters at once.
    #[error(transparent)]
    TooMany(#[from] TooManyHits),
    /// The store could not be reached or failed.
    #[error("the store failed while it tried to {action}: {source}")]
    Failed {
        /// What it was doing.
        action: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

//! One limit for many keys.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::change::Keep;
use crate::decision::Decision;
use crate::grant::{Grant, Reservation};
use crate::key::{HashSecret, Hasher, Key};
use crate::keyed::KeyedLimit;
use crate::limit::Limit;
use crate::succession::CannotSucceed;
use crate::table::{TableError, TableSize};
use crate::ticks::Nanos;

/// The last number given to a limiter, so that each ignores the grants of others.
static LIMITERS: AtomicU64 = AtomicU64::new(0);

/// One limit, kept for each key of a kind. Shared between threads as it is.
///
/// # Guarantees
///
/// - Decisions about one key take effect one after the other, whichever threads ask: `n + 1` requests for `n` cells admit
///   exactly `n`.
/// - A denial changes nothing and, unless the limit is a log or permits, writes nothing.
/// - What it takes of memory is fixed when it is built. Keys beyond that may be denied early, never admitted early; keys
///   that have a slot do not notice.
/// - No call panics, and none fails once the limiter is built.
pub struct Limiter<K: Key + ?Sized> {
    keyed: Arc<KeyedLimit>,
    hasher: Hasher,
    number: u64,
    keys: PhantomData<fn(&K)>,
}

impl<K: Key + ?Sized> Limiter<K> {
    /// A limiter for so many keys. The secret has to be random.
    ///
    /// # Errors
    ///
    /// [`TableError`] when the table would be larger than [`TableSize::BYTES_MAX`], or the system does not give the memory.
    pub fn new(limit: Limit, size: TableSize, secret: HashSecret) -> Result<Self, TableError> {
        let keyed = Arc::new(KeyedLimit::new(limit, size)?);
        let number = LIMITERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { keyed, hasher: Hasher::new(secret), number, keys: PhantomData })
    }

    /// A limiter with another limit, which takes over the keys of this one: each key keeps what it had left, as `keep`
    /// says, from the first request about it that reaches either of the two. Whoever still asks this one is answered
    /// by the successor, as long as that lives. Grants of this one give nothing back any more.
    ///
    /// - A log that takes over a log keeps the newest cells that it has room for, each for the new period from when it was
    ///   admitted; where the new period is the shorter one, for the old period, at most a new one from the change. So no
    ///   interval as long as the shorter period admits more than the larger of the two limits.
    /// - Permits that take over permits keep who holds them and until when. While more are held than there are, none is given.
    ///   Grants of this one are good there: they can be released and renewed.
    /// - From one kind to another, cells (or permits) count as used that are not left, for one period (or expiry) of the new
    ///   limit.
    /// - From and to unlimited and deny all nothing is taken over.
    ///
    /// Publish the successor, then drop this one; what it holds is freed when the last of its keys is dead.
    ///
    /// # Errors
    ///
    /// [`CannotSucceed`] when this limiter has a successor already, too many limits wait for their keys to be taken over, or the
    /// table cannot be had. Then nothing has changed.
    pub fn succeed(&self, limit: Limit, keep: Keep, size: TableSize) -> Result<Self, CannotSucceed> {
        let keyed = KeyedLimit::succeed(&self.keyed, limit, keep, size)?;
        let number = match keyed.number() == self.keyed.number() {
            true => self.number,
            false => LIMITERS.fetch_add(1, Ordering::Relaxed),
        };
        Ok(Self { keyed, hasher: self.hasher, number, keys: PhantomData })
    }

    /// The limit.
    pub fn limit(&self) -> &Limit {
        self.keyed.limit()
    }

    /// Takes one cell if there is one.
    #[inline]
    pub fn check(&self, key: &K, now: Nanos) -> Decision {
        self.check_cost(key, 1, now)
    }

    /// Takes `cost` cells if there are so many, else none.
    #[inline]
    pub fn check_cost(&self, key: &K, cost: u64, now: Nanos) -> Decision {
        self.keyed.check(key.tag(&self.hasher), cost, now)
    }

    /// What `check_cost` would answer, without taking anything. A cost of 0 tells what is left.
    pub fn peek(&self, key: &K, cost: u64, now: Nanos) -> Decision {
        self.keyed.look(key.tag(&self.hasher), cost, now)
    }

    /// Takes `cost` cells if there are so many; with the grant they can be given back.
    pub fn acquire(&self, key: &K, cost: u64, now: Nanos) -> (Decision, Option<Grant>) {
        let tag = key.tag(&self.hasher);
        let charged = self.keyed.charge(tag, cost, now);
        let grant = charged.stamp.map(|stamp| Grant { tag, cost, stamp, limiter: self.number });
        (charged.decision, grant)
    }

    /// Gives back what a grant took, aged; permits are given back all together. Does nothing when the grant is another
    /// limiter's, its window is over, its permits have expired, or its key has no slot any more.
    #[expect(clippy::needless_pass_by_value, reason = "a grant is given back once: giving back takes it")]
    pub fn refund(&self, grant: Grant, now: Nanos) {
        let Grant { tag, cost, stamp, limiter } = grant;
        if limiter == self.number && cost > 0 {
            self.keyed.refund(tag, cost, stamp, now);
        }
    }

    /// Holds permits for another expiry, counted from now. `false` when they have expired.
    pub fn renew(&self, grant: &Grant, now: Nanos) -> bool {
        grant.limiter == self.number && self.keyed.renew(grant.tag, grant.stamp, now)
    }

    /// Takes `cost` cells if there are so many, for a request whose real cost is [committed](Self::commit) within `within`.
    pub fn reserve(
        &self,
        key: &K,
        cost: u64,
        within: Duration,
        now: Nanos,
    ) -> (Decision, Option<Reservation>) {
        let (decision, grant) = self.acquire(key, cost, now);
        (decision, grant.map(|grant| Reservation { grant, expires_at: now.after(within) }))
    }

    /// Settles a reservation at its real cost. Less than reserved gives the rest back, aged, unless the reservation has
    /// expired. More is charged whether it is there or not, down to the debt that the limit allows.
    pub fn commit(&self, reservation: Reservation, cost: u64, now: Nanos) {
        let Reservation { mut grant, expires_at } = reservation;
        if grant.limiter != self.number {
            return;
        }
        match cost.checked_sub(grant.cost) {
            Some(0) => {}
            Some(excess) => self.keyed.debit(grant.tag, excess, now),
            None if now < expires_at => {
                let unused = grant.cost - cost;
                self.refund(grant.split(unused), now);
            }
            None => {}
        }
    }

    /// Settles a reservation that was not used.
    pub fn release(&self, reservation: Reservation, now: Nanos) {
        self.commit(reservation, 0, now);
    }

    /// Forgets what a key used, when it has a slot.
    pub fn reset(&self, key: &K, now: Nanos) {
        self.keyed.reset(key.tag(&self.hasher), now);
    }

    /// Keys that have used something that has not refilled, and have a slot. Reads the whole table: for a gauge, not for
    /// each request.
    pub fn live_keys(&self, now: Nanos) -> u64 {
        self.keyed.live_keys(now)
    }

    /// How many charges found no slot and went to the sketch, or were denied where there is none.
    pub fn overflowed(&self) -> u64 {
        self.keyed.table().overflowed()
    }

    /// Bytes reserved for keys, and for the sketch. They never change.
    pub fn reserved_bytes(&self) -> (usize, usize) {
        self.keyed.table().bytes()
    }
}

impl<K: Key + ?Sized> std::fmt::Debug for Limiter<K> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Limiter").field("limit", self.limit()).finish_non_exhaustive()
    }
}

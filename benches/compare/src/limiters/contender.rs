//! The two limiters, each with a clock.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{MonotonicClock, QuantaClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use ratelimit_core::{HashSecret, Limit, Limiter, Nanos, Rate, TableSize};

/// Not random: runs are compared.
const SECRET: HashSecret = HashSecret([9; 16]);

/// What the limit says to nearly every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Yes.
    Admits,
    /// No.
    Denies,
}

impl Policy {
    /// Cells for each period, and how many at once.
    fn parameters(self) -> (u32, Duration, u32) {
        match self {
            // A burst that nobody uses up, and a bucket that is never full again: all keys stay live.
            Self::Admits => (1, Duration::from_secs(1), 1_000_000_000),
            Self::Denies => (1, Duration::from_secs(3_600), 1),
        }
    }
}

/// A keyed limiter.
pub trait Contender: Sync {
    /// Asks once for each key.
    fn fill(&self, keys: u64) {
        for key in 0..keys {
            self.decide(key);
        }
    }

    /// Reads the clock and decides.
    fn decide(&self, key: u64) -> bool;
}

/// A clock that both can read.
pub trait Time: Clone + Sync + Send {
    /// The same clock as governor takes it.
    type Governors: governor::clock::Clock<Instant: Send + Sync> + Sync + Send;

    /// Nanoseconds since it was made.
    fn now(&self) -> Nanos;

    /// See [`Self::Governors`].
    fn governors(&self) -> Self::Governors;
}

/// The time stamp counter.
#[derive(Debug, Clone)]
pub struct Tsc {
    clock: quanta::Clock,
    /// What the counter said when it was made.
    start: u64,
}

impl Default for Tsc {
    fn default() -> Self {
        let clock = quanta::Clock::new();
        let start = clock.raw();
        Self { clock, start }
    }
}

impl Time for Tsc {
    type Governors = QuantaClock;

    #[inline]
    fn now(&self) -> Nanos {
        Nanos(self.clock.delta_as_nanos(self.start, self.clock.raw()))
    }

    fn governors(&self) -> QuantaClock {
        QuantaClock::default()
    }
}

/// The operating system's clock.
#[derive(Debug, Clone)]
pub struct Monotonic {
    start: Instant,
}

impl Default for Monotonic {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Time for Monotonic {
    type Governors = MonotonicClock;

    #[inline]
    fn now(&self) -> Nanos {
        Nanos::from_duration(self.start.elapsed())
    }

    fn governors(&self) -> MonotonicClock {
        MonotonicClock
    }
}

/// Ours.
#[derive(Debug)]
pub struct Ours<T> {
    limiter: Limiter<u64>,
    time: T,
}

impl<T: Time> Ours<T> {
    /// A limiter with room for so many keys.
    pub fn new(policy: Policy, keys: u64, time: T) -> Self {
        let (count, period, burst) = policy.parameters();
        let rate = Rate::new(count.into(), period);
        let limit = Limit::gcra(rate, burst.into()).expect("the limit can be kept");
        let limiter = Limiter::new(limit, TableSize::for_keys(keys), SECRET).expect("memory");
        Self { limiter, time }
    }
}

impl<T: Time> Contender for Ours<T> {
    #[inline]
    fn decide(&self, key: u64) -> bool {
        self.limiter.check(&key, self.time.now()).is_allowed()
    }
}

/// Governor's.
pub struct Governed<T: Time> {
    limiter: Governor<T>,
}

type Governor<T> = RateLimiter<
    u64,
    DashMapStateStore<u64>,
    <T as Time>::Governors,
    NoOpMiddleware<<<T as Time>::Governors as governor::clock::Clock>::Instant>,
>;

impl<T: Time> Governed<T> {
    /// A limiter in its default store, which grows.
    pub fn new(policy: Policy, time: T) -> Self {
        let (count, period, burst) = policy.parameters();
        let burst = NonZeroU32::new(burst).expect("a burst");
        let quota = Quota::with_period(period / count).expect("a period").allow_burst(burst);
        Self { limiter: RateLimiter::dashmap_with_clock(quota, time.governors()) }
    }
}

impl<T: Time> Contender for Governed<T> {
    #[inline]
    fn decide(&self, key: u64) -> bool {
        self.limiter.check_key(&key).is_ok()
    }
}

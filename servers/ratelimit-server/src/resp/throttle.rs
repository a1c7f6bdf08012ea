//! `CL.THROTTLE key max_burst count period [quantity]`, as redis-cell has it.
//!
//! The bucket holds `max_burst + 1`; it refills `count` per `period` seconds. What redis-cell does otherwise here is a
//! defect there: a key that keeps a state after an error, numbers that wrap, a wait that is up to a millisecond short.

use std::time::Duration;

use ratelimit_core::{AdHoc, AdHocPolicy, Decision, LimitError, Nanos, Outcome, Rate};

use super::request::integer;

/// Bytes of a key.
pub const KEY_BYTES_MAX: usize = 4 << 10;

const USAGE: &str = "Usage: CL.THROTTLE <key> <max_burst> <count per period> <period> [<quantity>]";

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle<'b> {
    /// The key.
    pub key: &'b [u8],
    /// The bucket.
    pub bucket: Bucket,
    /// How much is taken. 0 looks.
    pub quantity: u64,
}

/// The numbers that make a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    max_burst: u64,
    count: u64,
    period_s: u64,
}

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ThrottleError {
    /// Too few or too many arguments.
    #[error("Cell error: {USAGE}")]
    Usage,
    /// A number is none, or too small.
    #[error("Cell error: {name} must be a whole number from {min}")]
    Number {
        /// Which.
        name: &'static str,
        /// The smallest.
        min: i64,
    },
    /// The key is too long.
    #[error("Cell error: a key has at most {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// The numbers make no bucket that can be counted.
    #[error("Cell error: {0}")]
    Policy(#[from] LimitError),
}

impl<'b> Throttle<'b> {
    /// Reads the arguments behind the command's name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(arguments: &[&'b [u8]]) -> Result<Self, ThrottleError> {
        let (key, max_burst, count, period, quantity) = match *arguments {
            [key, max_burst, count, period] => (key, max_burst, count, period, &b"1"[..]),
            [key, max_burst, count, period, quantity] => (key, max_burst, count, period, quantity),
            _ => return Err(ThrottleError::Usage),
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(ThrottleError::KeyTooLong);
        }
        let bucket = Bucket {
            max_burst: number("max_burst", max_burst, 0)?,
            count: number("count", count, 1)?,
            period_s: number("period", period, 1)?,
        };
        Ok(Self { key, bucket, quantity: number("quantity", quantity, 0)? })
    }

    /// Decides.
    pub fn decide(&self, keys: &AdHoc, policy: &AdHocPolicy, now: Nanos) -> Decision {
        keys.check(self.key, policy, self.quantity, now)
    }
}

fn number(name: &'static str, digits: &[u8], min: i64) -> Result<u64, ThrottleError> {
    let number = integer(digits).filter(|number| *number >= min);
    number.and_then(|number| u64::try_from(number).ok()).ok_or(ThrottleError::Number { name, min })
}

impl Bucket {
    /// The policy of these numbers.
    ///
    /// # Errors
    /// When it cannot be counted.
    pub fn policy(&self) -> Result<AdHocPolicy, LimitError> {
        AdHocPolicy::new(
            Rate::new(self.count, Duration::from_secs(self.period_s)),
            self.max_burst.saturating_add(1),
        )
    }
}

/// The five integers of the reply: 1 when limited, the limit, what is left, seconds to wait (-1 when it was allowed or
/// never will be), seconds until all is left. Seconds are rounded up.
pub fn reply(decision: &Decision) -> [i64; 5] {
    let seconds = |time: Duration| signed(time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)));
    [
        i64::from(decision.outcome() != Outcome::Allowed),
        signed(decision.limit()),
        signed(decision.remaining()),
        decision.retry_after().map_or(-1, seconds),
        seconds(decision.reset_after()),
    ]
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use ratelimit_core::{HashSecret, TableSize};

    use super::*;

    fn keys() -> AdHoc {
        AdHoc::new(TableSize { keys: 100, sketch_bytes: 0 }, HashSecret([1; 16])).expect("memory")
    }

    fn asked(keys: &AdHoc, words: &[&str], now: Nanos) -> [i64; 5] {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let throttle = Throttle::read(&words).expect("arguments");
        let policy = throttle.bucket.policy().expect("a policy");
        reply(&throttle.decide(keys, &policy, now))
    }

    const START: Nanos = Nanos(1_000_000_000);

    /// The vectors that redis-cell shares with the Go and Ruby implementations: a burst of 5, one per second.
    #[test]
    fn the_vectors_of_redis_cell_hold() {
        let keys = keys();
        // Milliseconds since the start, quantity; limited, remaining, retry and reset in seconds rounded up.
        let vectors = [
            (0, 6, [1, 5, -1, 0]),
            (0, 1, [0, 4, -1, 1]),
            (0, 1, [0, 3, -1, 2]),
            (0, 1, [0, 2, -1, 3]),
            (0, 1, [0, 1, -1, 4]),
            (0, 1, [0, 0, -1, 5]),
            (0, 1, [1, 0, 1, 5]),
            (3_000, 1, [0, 2, -1, 3]),
            (3_100, 1, [0, 1, -1, 4]),
            (4_000, 1, [0, 1, -1, 4]),
            (8_000, 1, [0, 4, -1, 1]),
            (9_500, 1, [0, 4, -1, 1]),
            (9_500, 0, [0, 4, -1, 1]),
            (9_500, 2, [0, 2, -1, 3]),
            (9_500, 5, [1, 2, 3, 3]),
        ];
        for (index, (ms, quantity, [limited, remaining, retry, reset])) in vectors.into_iter().enumerate() {
            let now = START.after(Duration::from_millis(ms));
            let reply = asked(&keys, &["foo", "4", "1", "1", &quantity.to_string()], now);
            assert_eq!(reply, [limited, 5, remaining, retry, reset], "vector {index}");
        }
    }

    #[test]
    fn the_example_of_its_readme_holds() {
        assert_eq!(asked(&keys(), &["user123", "15", "30", "60", "1"], START), [0, 16, 15, -1, 2]);
        assert_eq!(asked(&keys(), &["user123", "15", "30", "60"], START), [0, 16, 15, -1, 2]);
    }

    #[test]
    fn f4_whatever_is_wrong_is_an_error_and_leaves_no_state() {
        let keys = keys();
        for words in [
            &["k"][..],
            &["k", "1", "1"],
            &["k", "1", "1", "1", "1", "1"],
            &["neg", "5", "10", "60", "-100"],
            &["neg", "-1", "10", "60"],
            &["k", "5", "0", "60"],
            &["k", "5", "10", "0"],
            &["k", "5", "-10", "60"],
            &["k", "5", "10", "60", "99999999999999999999"],
            &["k", "x", "10", "60"],
        ] {
            let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let error = Throttle::read(&bytes).expect_err("refused");
            assert!(error.to_string().starts_with("Cell error: "), "{words:?}");
        }
        for numbers in [[200_000, 1, 86_400], [i64::MAX, 1, 1], [1, i64::MAX, 1], [1, 1, i64::MAX]] {
            let words: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let mut bytes = vec![&b"k"[..]];
            bytes.extend(words.iter().map(String::as_bytes));
            assert!(Throttle::read(&bytes).expect("numbers").bucket.policy().is_err(), "{numbers:?}");
        }
        assert_eq!(keys.live_keys(START), 0);
        // A quantity that never fits is no error, and leaves nothing either.
        let huge = asked(&keys, &["k", "4", "1", "1", &i64::MAX.to_string()], START);
        assert_eq!(huge, [1, 5, 5, -1, 0]);
        assert_eq!(keys.live_keys(START), 0);
    }

    #[test]
    fn a_wait_is_never_told_short() {
        let keys = keys();
        assert_eq!(asked(&keys, &["k", "0", "1", "1"], START)[0], 0);
        let just_after = START.after(Duration::from_nanos(999_999_999));
        assert_eq!(asked(&keys, &["k", "0", "1", "1"], just_after), [1, 1, 0, 1, 1]);
        assert_eq!(asked(&keys, &["k", "0", "1", "1"], START.after(Duration::from_secs(1)))[0], 0);
    }
}

//! When to try again, and after how long.

use std::time::Duration;

use crate::error::{ErrorCode, Refusal};
use crate::options::RetryPolicy;

/// Longest wait that a server may ask for with `RetryInfo`.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Which failures of a call are worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeatable {
    /// The call changes nothing, or is recognised when it comes twice.
    Always,
    /// A second try could do it twice or report its own success as a conflict.
    Never,
}

impl RetryPolicy {
    /// The wait before the try after `try_number` (from 1), or `None` when that was the last one.
    pub(crate) fn wait_after(
        &self,
        try_number: u32,
        refusal: &Refusal,
        repeatable: Repeatable,
    ) -> Option<Duration> {
        if repeatable == Repeatable::Never || try_number >= self.tries_max || !is_transient(refusal) {
            return None;
        }
        let asked = refusal.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        Some(self.backoff(try_number, random_unit()).max(asked))
    }

    /// The wait before a stream that stood is opened again, as often as it takes; `None` when that is no use.
    pub(crate) fn wait_before_resuming(&self, try_number: u32, refusal: &Refusal) -> Option<Duration> {
        let asked = refusal.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        is_transient(refusal).then(|| self.backoff(try_number, random_unit()).max(asked))
    }

    /// Back-off after `try_number` tries; `unit` in 0..1 decides the jitter.
    fn backoff(&self, try_number: u32, unit: f64) -> Duration {
        let exponent = i32::try_from(try_number.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.backoff_min.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let capped = grown.min(self.backoff_max.as_secs_f64());
        let jitter = self.jitter.clamp(0.0, 1.0);
        let varied = capped * (1.0 - jitter + 2.0 * jitter * unit);
        Duration::try_from_secs_f64(varied).unwrap_or(self.backoff_max)
    }
}

fn is_transient(refusal: &Refusal) -> bool {
    // A fenced vault waits for an administrator, who is slower than any back-off.
    refusal.reason != "VAULT_DIVERGED"
        && matches!(
            refusal.code,
            ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Overloaded
        )
}

/// A number in 0..1; the middle when the system has no randomness, which only makes waits equal.
fn random_unit() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: ErrorCode) -> Refusal {
        Refusal { code, ..Refusal::default() }
    }

    #[test]
    fn waits_double_from_100_ms_to_10_s_and_vary_by_a_quarter() {
        let policy = RetryPolicy { tries_max: 50, ..RetryPolicy::default() };
        assert_eq!(policy.backoff(1, 0.5), Duration::from_millis(100));
        assert_eq!(policy.backoff(2, 0.5), Duration::from_millis(200));
        assert_eq!(policy.backoff(40, 0.5), Duration::from_secs(10));
        assert_eq!(policy.backoff(1, 0.0), Duration::from_millis(75));
        assert_eq!(policy.backoff(1, 1.0), Duration::from_millis(125));
    }

    #[test]
    fn only_transient_failures_of_repeatable_calls_are_tried_again() {
        let policy = RetryPolicy::default();
        for code in [ErrorCode::Unavailable, ErrorCode::DeadlineExceeded, ErrorCode::Overloaded] {
            assert!(policy.wait_after(1, &refusal(code), Repeatable::Always).is_some(), "{code:?}");
            assert!(policy.wait_after(3, &refusal(code), Repeatable::Always).is_none(), "{code:?}");
            assert!(policy.wait_after(1, &refusal(code), Repeatable::Never).is_none(), "{code:?}");
        }
        for code in
            [ErrorCode::ConditionFailed, ErrorCode::NotFound, ErrorCode::Unauthorized, ErrorCode::Internal]
        {
            assert!(policy.wait_after(1, &refusal(code), Repeatable::Always).is_none(), "{code:?}");
        }
    }

    #[test]
    fn the_servers_wish_to_wait_is_honoured_up_to_30_s() {
        let policy = RetryPolicy::default();
        let asked = |seconds| Refusal {
            retry_after: Some(Duration::from_secs(seconds)),
            ..refusal(ErrorCode::Overloaded)
        };
        assert_eq!(policy.wait_after(1, &asked(2), Repeatable::Always), Some(Duration::from_secs(2)));
        assert_eq!(policy.wait_after(1, &asked(900), Repeatable::Always), Some(RETRY_AFTER_MAX));
    }
}

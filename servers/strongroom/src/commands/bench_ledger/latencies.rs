//! Latencies in buckets of one percent: small, mergeable, and exact enough for percentiles.

/// Buckets below 64 µs are one microsecond wide; above, each power of two has this many.
const SUB_BUCKETS: u64 = 64;

/// How long calls took.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Latencies {
    /// One call.
    pub fn record(&mut self, us: u64) {
        let bucket = bucket_of(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds another client's calls.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (own, more) in self.counts.iter_mut().zip(&other.counts) {
            *own += more;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Calls recorded.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest, microseconds.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// Microseconds within which `percent` of the calls ended; at most 1.6 % too high.
    pub fn percentile_us(&self, percent: f64) -> u64 {
        let wanted = (self.total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(bucket).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket_of(us: u64) -> usize {
    if us < SUB_BUCKETS {
        return us as usize;
    }
    let power = u64::from(us.ilog2() - SUB_BUCKETS.ilog2());
    let within = (us >> power) - SUB_BUCKETS;
    (SUB_BUCKETS + power * SUB_BUCKETS + within) as usize
}

fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB_BUCKETS {
        return bucket;
    }
    let power = (bucket - SUB_BUCKETS) / SUB_BUCKETS;
    let within = (bucket - SUB_BUCKETS) % SUB_BUCKETS;
    ((SUB_BUCKETS + within + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_two_percent() {
        let mut latencies = Latencies::default();
        for us in 1..=100_000 {
            latencies.record(us);
        }
        for (percent, exact) in [(50.0, 50_000.0), (99.0, 99_000.0), (99.9, 99_900.0)] {
            let found = latencies.percentile_us(percent) as f64;
            assert!((exact..exact * 1.02).contains(&found), "{percent}: {found}");
        }
        assert_eq!((latencies.max_us(), latencies.total()), (100_000, 100_000));
        assert_eq!(Latencies::default().percentile_us(99.0), 0);
    }

    #[test]
    fn merging_adds() {
        let (mut a, mut b) = (Latencies::default(), Latencies::default());
        a.record(5);
        b.record(5_000_000);
        a.merge(&b);
        assert_eq!((a.total(), a.max_us(), a.percentile_us(50.0)), (2, 5_000_000, 5));
    }
}

//! A log-linear histogram of latencies: constant memory, values within 1 in 128 (below 0.8 %).

/// Linear steps inside each power of two.
const STEPS: u64 = 128;
/// log2 of [`STEPS`].
const STEP_BITS: u32 = 7;
/// Largest latency kept apart: 2^36 us is 19 hours.
const OCTAVES: u32 = 36;
/// Buckets in all: the exact ones below [`STEPS`], then 128 for every octave.
const BUCKETS: usize = (STEPS as usize) * ((OCTAVES - STEP_BITS + 1) as usize);

/// Counts of latencies in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    count: u64,
    max_us: u64,
}

impl Latencies {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max_us: 0 }
    }

    /// Counts one latency; what exceeds the range lands in the last bucket, the maximum stays exact.
    pub(crate) fn record(&mut self, latency_us: u64) {
        let last = BUCKETS - 1;
        if let Some(slot) = self.counts.get_mut(bucket(latency_us).min(last)) {
            *slot += 1;
        }
        self.count += 1;
        self.max_us = self.max_us.max(latency_us);
    }

    /// Adds everything that `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (slot, count) in self.counts.iter_mut().zip(&other.counts) {
            *slot += count;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many latencies were counted.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The largest latency, exact; 0 when nothing was counted.
    pub(crate) fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The smallest latency that at least `quantile` (0 to 1) of all do not exceed, rounded up within its bucket.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        let wanted = ((self.count as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound_us(index).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket(latency_us: u64) -> usize {
    if latency_us < STEPS {
        return latency_us as usize;
    }
    let octave = 63 - latency_us.leading_zeros();
    let shift = octave - STEP_BITS;
    let step = (latency_us >> shift) - STEPS;
    (STEPS * u64::from(shift + 1) + step) as usize
}

fn upper_bound_us(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let step = index % STEPS;
    ((STEPS + step + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_within_its_bucket_and_one_in_128() {
        for exponent in 0..35 {
            for offset in [0, 1, 3, 77, 1_001] {
                let value = (1_u64 << exponent) + offset;
                let upper = upper_bound_us(bucket(value));
                assert!(upper >= value, "{value} above its bucket's bound {upper}");
                assert!(upper - value <= value / STEPS, "{value} is too far from {upper}");
            }
        }
    }

    #[test]
    fn quantiles_of_a_known_series_are_exact_where_buckets_are() {
        let mut latencies = Latencies::new();
        for value in 1..=100 {
            latencies.record(value);
        }
        assert_eq!(latencies.quantile_us(0.5), 50);
        assert_eq!(latencies.quantile_us(0.99), 99);
        assert_eq!(latencies.quantile_us(0.999), 100);
        assert_eq!(latencies.max_us(), 100);
    }

    #[test]
    fn a_merge_counts_both_sides() {
        let (mut left, mut right) = (Latencies::new(), Latencies::new());
        left.record(10);
        right.record(90_000_000_000_000);
        left.merge(&right);
        assert_eq!(left.count(), 2);
        assert_eq!(left.quantile_us(0.5), 10);
        assert_eq!(left.max_us(), 90_000_000_000_000);
    }
}

//! Threads that ask without a pause, and what they were admitted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::CELL_NS;

/// What happens meanwhile. It is told how to tell the time since the begin.
pub(super) type Step<'s> = &'s mut dyn FnMut(&dyn Fn() -> u64);

/// What was asked and admitted.
pub(super) struct Crowd {
    pub asked: u64,
    /// Questions that ended in an error.
    pub failed: u64,
    /// When each admission was asked for, in nanoseconds since the begin, ascending.
    pub passed: Vec<u64>,
}

impl Crowd {
    /// So many threads ask again and again: `ask` is told the time since the begin, and answers whether it was admitted,
    /// `None` after an error. The steps are taken in their order while they ask, as far apart as the length allows; each asks for
    /// the time when it needs it, for it may wait for the others before.
    pub(super) fn ask(
        threads: usize,
        length: Duration,
        ask: impl Fn(u64) -> Option<bool> + Sync,
        steps: &mut [Step<'_>],
    ) -> Self {
        let begin = Instant::now();
        let elapsed_ns = || u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let (stop, passed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let (asked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let (mut mine, mut asked_here) = (Vec::new(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        let at_ns = elapsed_ns();
                        asked_here += 1;
                        match ask(at_ns) {
                            Some(true) => mine.push(at_ns),
                            Some(false) => {}
                            None => {
                                failed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    asked.fetch_add(asked_here, Ordering::Relaxed);
                    passed.lock().expect("no thread panics").extend(mine);
                });
            }
            let part = length / (steps.len() as u32 + 1);
            std::thread::sleep(part);
            for step in steps {
                step(&elapsed_ns);
                std::thread::sleep(part);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let mut passed = passed.into_inner().expect("no thread panicked");
        passed.sort_unstable();
        Self { asked: asked.into_inner(), failed: failed.into_inner(), passed }
    }

    /// From the first admission to the last.
    pub(super) fn span_ns(&self) -> u64 {
        self.passed.last().copied().unwrap_or(0) - self.passed.first().copied().unwrap_or(0)
    }

    /// The most that was admitted in any interval beyond what refills in it, in cells. By time as the threads measured it: a
    /// jump of the store's clock lengthens no interval.
    pub(super) fn worst(&self) -> u64 {
        // In an interval from i to j: j - i + 1 - ⌊(t_j - t_i) / T⌋. The largest is found in one pass over
        // (j + 1) · T - t_j and the smallest i · T - t_i before it; only the last step divides.
        let cell = i128::from(CELL_NS);
        let (mut least, mut most) = (i128::MAX, 0);
        for (index, at_ns) in self.passed.iter().enumerate() {
            let here = index as i128 * cell - i128::from(*at_ns);
            least = least.min(here);
            most = most.max(here + cell - least);
        }
        u64::try_from(most.div_euclid(cell) + i128::from(most.rem_euclid(cell) > 0)).unwrap_or(0)
    }
}

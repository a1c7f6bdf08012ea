//! Threads that ask as fast as they can.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Policy};

/// Decisions between two looks at the time that is left.
const BATCH: u64 = 4_096;

/// Who asks how.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Different keys.
    pub keys: u64,
    /// Threads that share the limiter.
    pub threads: usize,
    /// What they are told.
    pub policy: Policy,
}

/// The processor time that a thread takes for a decision, of all threads together: two threads that each take as long as one
/// alone are as fast as that one.
pub fn nanoseconds_per_decision(contender: &impl Contender, load: Load, seconds: f64) -> f64 {
    let (barrier, length) = (Barrier::new(load.threads), Duration::from_secs_f64(seconds));
    let took: Vec<f64> = thread::scope(|scope| {
        let run = |thread: usize| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                one_thread(contender, load.keys, thread as u64 + 1, length)
            })
        };
        let threads: Vec<_> = (0..load.threads).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("the thread measures")).collect()
    });
    took.iter().sum::<f64>() / took.len() as f64
}

fn one_thread(contender: &impl Contender, keys: u64, seed: u64, length: Duration) -> f64 {
    let (start, began, mut decisions, mut state) = (Instant::now(), processor_ns(), 0_u64, seed);
    while start.elapsed() < length {
        for _ in 0..BATCH {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let key = ((u128::from(state) * u128::from(keys)) >> 64) as u64;
            black_box(contender.decide(black_box(key)));
        }
        decisions += BATCH;
    }
    (processor_ns() - began) / decisions as f64
}

/// Processor time of this thread so far: what others do on the machine is not counted.
fn processor_ns() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("it takes Linux's /proc");
    let first = times.split_whitespace().next().expect("a number");
    first.parse().expect("nanoseconds")
}

/// The middle one.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

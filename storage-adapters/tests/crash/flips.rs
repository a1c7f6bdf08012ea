//! The node on files of which one byte is not what was written: every promise holds, or it refuses.

use crate::campaign::contents;
use crate::damage::{Outcome, damage};
use crate::disk::{DiskFile, Image};
use crate::power_cut::{Moment, Syncs};
use crate::promises::{History, Progress};
use crate::recovery::{Expected, Retries, Violation, recover};
use crate::tally::Tally;
use crate::workload::{Plan, Run, record};

/// Every how many bytes of a file one is damaged in the normal tests: a prime, so that all places in a row are met.
const STRIDE_BYTES: usize = 499;
/// Rounds of writes: a small ledger.
const ROUNDS: usize = 12;

/// Damages a file of a ledger that was shut down in order.
fn flip(test: &str, file: DiskFile, stride: usize) {
    let Run { home, image, trace, chain } = record(Plan { seed: 5, rounds: ROUNDS });
    let (log, state) = contents(&image);
    let history = History::of(log, state, &Default::default(), &trace);
    let (mut moment, mut progress) = (Moment::before(image, Syncs::Honoured), Progress::default());
    for event in &trace {
        moment.pass(event);
        progress.pass(event);
    }
    let whole = moment.cut(crate::power_cut::Loss::Nothing).0;
    let retries = Retries::All;
    let expected = Expected { history: &history, progress: &progress, chain: Some(&chain), retries };
    recover(&home, whole.clone(), &expected, &mut Tally::default()).expect("the files are sound");
    let tally = damage(test, stride, &whole[file as usize], |damaged| {
        let mut image: Image = whole.clone();
        image[file as usize] = damaged.to_vec();
        match recover(&home, image, &expected, &mut Tally::default()) {
            Ok(_) => Outcome::Harmless,
            Err(Violation::Refused(_)) => Outcome::Detected,
            Err(Violation::Broken(text)) if text.contains("lost") => Outcome::Hidden,
            Err(Violation::Broken(_)) => Outcome::Wrong,
        }
    });
    assert_eq!((tally.wrong, tally.hidden, tally.panicked), (0, 0, 0), "{tally:?}");
    assert!(tally.detected > 15, "too little was damaged to prove anything: {tally:?}");
}

macro_rules! flips {
    ($($name:ident, $every:ident: $file:expr;)+) => {$(
        #[test]
        fn $name() {
            flip(concat!("flips::", stringify!($name)), $file, STRIDE_BYTES);
        }

        #[test]
        #[ignore = "takes many minutes: every byte, not a sample"]
        fn $every() {
            flip(concat!("flips::", stringify!($every)), $file, 1);
        }
    )+};
}

flips! {
    a_node_on_a_damaged_log_keeps_every_promise_or_refuses, a_node_on_a_log_with_any_byte_damaged: DiskFile::Raft;
    a_node_on_a_damaged_state_keeps_every_promise_or_refuses, a_node_on_a_state_with_any_byte_damaged: DiskFile::State;
    a_node_on_damaged_blocks_keeps_every_promise_or_refuses, a_node_on_blocks_with_any_byte_damaged: DiskFile::Blocks;
}

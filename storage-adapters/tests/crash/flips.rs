//! The node on files of which one byte is not what was written: every promise holds, or it refuses.

use crate::campaign::contents;
use crate::damage::{Outcome, damage};
use crate::disk_image::{Image, Place};
use crate::power_cut::{Moment, Syncs};
use crate::promises::{History, Progress};
use crate::recovery::{Expected, Retries, Rows, Violation, recover};
use crate::tally::Tally;
use crate::workload::{Run, plan, record};

/// Every how many bytes of a file one is damaged in the normal tests: primes, so that all places in a row are met. The log
/// is small and in use to its end.
const STRIDE_BYTES: usize = 499;
const LOG_STRIDE_BYTES: usize = 113;
/// Rounds of writes: a small ledger.
const ROUNDS: usize = 12;

/// What is damaged.
#[derive(Debug, Clone, Copy)]
enum Damaged {
    /// Every segment of the log, the prepared one included.
    Log,
    State,
    Blocks,
}

impl Damaged {
    fn places(self, image: &Image) -> Vec<Place> {
        match self {
            Self::Log => image.log_names.values().map(|number| Place::LogFile(*number)).collect(),
            Self::State => vec![Place::State],
            Self::Blocks => vec![Place::Blocks],
        }
    }

    /// All its files, one behind the other.
    fn bytes(self, image: &Image) -> Vec<u8> {
        self.places(image).into_iter().flat_map(|place| image.bytes(place).to_vec()).collect()
    }

    fn replaced(self, image: &Image, mut bytes: &[u8]) -> Image {
        let mut replaced = image.clone();
        for place in self.places(image) {
            let (content, rest) = bytes.split_at(image.bytes(place).len());
            replaced.bytes_mut(place).copy_from_slice(content);
            bytes = rest;
        }
        replaced
    }
}

/// Damages a part of a ledger that was shut down in order.
fn flip(test: &str, part: Damaged, stride: usize) {
    let Run { home, image, trace, chain } = record(plan(5, ROUNDS));
    let (log, state) = contents(&image);
    let history = History::of(log, state, &Default::default(), &trace);
    let (mut moment, mut progress) = (Moment::before(image, Syncs::Honoured), Progress::default());
    for event in &trace {
        moment.pass(event);
        progress.pass(event);
    }
    let whole = moment.cut(crate::power_cut::Loss::Nothing).0;
    let retries = Retries::All;
    let expected = Expected {
        history: &history,
        progress: &progress,
        chain: Some(&chain),
        retries,
        rows: Rows::MayBeMissing,
    };
    recover(&home, whole.clone(), &expected, &mut Tally::default()).expect("the files are sound");
    let tally = damage(test, stride, &part.bytes(&whole), |damaged| {
        match recover(&home, part.replaced(&whole, damaged), &expected, &mut Tally::default()) {
            Ok(_) => Outcome::Harmless,
            Err(Violation::Refused(_)) => Outcome::Detected,
            Err(Violation::Broken(text)) => {
                eprintln!("{text}");
                if text.contains("lost") { Outcome::Hidden } else { Outcome::Wrong }
            }
        }
    });
    assert_eq!((tally.wrong, tally.hidden, tally.panicked), (0, 0, 0), "{tally:?}");
    assert!(tally.detected > 15, "too little was damaged to prove anything: {tally:?}");
}

macro_rules! flips {
    ($($name:ident, $every:ident: $part:expr, $stride:expr;)+) => {$(
        #[test]
        fn $name() {
            flip(concat!("flips::", stringify!($name)), $part, $stride);
        }

        #[test]
        #[ignore = "takes many minutes: every byte, not a sample"]
        fn $every() {
            flip(concat!("flips::", stringify!($every)), $part, 1);
        }
    )+};
}

flips! {
    a_node_on_a_damaged_log_keeps_every_promise_or_refuses, a_node_on_a_log_with_any_byte_damaged: Damaged::Log, LOG_STRIDE_BYTES;
    a_node_on_a_damaged_state_keeps_every_promise_or_refuses, a_node_on_a_state_with_any_byte_damaged: Damaged::State, STRIDE_BYTES;
    a_node_on_damaged_blocks_keeps_every_promise_or_refuses, a_node_on_blocks_with_any_byte_damaged: Damaged::Blocks, STRIDE_BYTES;
}

//! Damages every byte of a file, one at a time, and counts what came of it.

use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;

/// What came of damaging bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Some call failed.
    pub detected: usize,
    /// All that was asked for came back as it was written.
    pub harmless: usize,
    /// A row that was written came back as absent.
    pub hidden: usize,
    /// Something came back that was not written.
    pub wrong: usize,
    /// A panic came through a call of ours.
    pub panicked: usize,
    /// The process was aborted: redb panicked while it unwound from a panic.
    pub aborted: usize,
}

impl Tally {
    fn counts_mut(&mut self) -> [&mut usize; 6] {
        let Self { detected, harmless, hidden, wrong, panicked, aborted } = self;
        [detected, harmless, hidden, wrong, panicked, aborted]
    }

    /// The line that `scripts/soak` puts into its table.
    fn report(&self, test: &str) {
        let Self { detected, harmless, hidden, wrong, panicked, aborted } = self;
        let runs = detected + harmless + hidden + wrong + panicked + aborted;
        let what = test.rsplit("::").next().unwrap_or(test).replace('_', " ");
        println!(
            "\nsoak: flips: {what} | {runs} | {detected} detected, {harmless} harmless, {hidden} rows hidden, {wrong} \
             wrong answers, {panicked} panics, {aborted} aborts"
        );
    }

    fn add(&mut self, outcome: Outcome) {
        *self.counts_mut()[outcome as usize] += 1;
    }
}

/// What came of one damaged byte.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    Detected,
    Harmless,
    Hidden,
    Wrong,
    Panicked,
    Aborted,
}

/// Set for the process that does the damage: the file in which it says how far it is.
const PROGRESS_VARIABLE: &str = "DAMAGED_BYTES_PROGRESS";

/// Flips all bits, and then one bit, of every `stride`-th byte of `content` that lies in a page with
/// content, and asks `look` what the store makes of it. This happens in a process of its own, which is
/// started again behind the byte at which it died.
pub fn damage(test: &str, stride: usize, content: &[u8], look: impl Fn(&[u8]) -> Outcome) -> Tally {
    if let Ok(progress) = std::env::var(PROGRESS_VARIABLE) {
        damage_from(Path::new(&progress), stride, content, look);
        std::process::exit(0);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let progress = dir.path().join("progress");
    std::fs::write(&progress, Progress::default().to_text()).expect("the file can be written");
    loop {
        let program = std::env::current_exe().expect("a test has a path");
        let output = Command::new(program)
            .args([test, "--exact", "--include-ignored", "--nocapture"])
            .env(PROGRESS_VARIABLE, &progress)
            .output()
            .expect("the test can be started again");
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let mut reached = Progress::read(&progress);
        if output.status.success() {
            reached.tally.report(test);
            return reached.tally;
        }
        assert!(reached.working, "it died outside of the damage: {output:?}");
        reached.tally.add(Outcome::Aborted);
        reached.flip += 1;
        std::fs::write(&progress, reached.to_text()).expect("the file can be written");
    }
}

/// How far the damaging process is.
#[derive(Debug, Default)]
struct Progress {
    /// Number of the flip that is made, from 0.
    flip: usize,
    /// Whether that flip is under way.
    working: bool,
    tally: Tally,
}

impl Progress {
    fn to_text(&self) -> String {
        let Tally { detected, harmless, hidden, wrong, panicked, aborted } = self.tally;
        let counts = [detected, harmless, hidden, wrong, panicked, aborted];
        let counts = counts.map(|count| count.to_string()).join(" ");
        format!("{} {} {counts}", self.flip, usize::from(self.working))
    }

    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the file is there");
        let mut numbers = text.split(' ').map(|number| number.parse().expect("it holds numbers"));
        let mut next = || numbers.next().expect("it holds eight numbers");
        let mut progress = Self { flip: next(), working: next() == 1, tally: Tally::default() };
        for count in progress.tally.counts_mut() {
            *count = next();
        }
        progress
    }
}

fn damage_from(path: &Path, stride: usize, content: &[u8], look: impl Fn(&[u8]) -> Outcome) {
    const PAGE_BYTES: usize = 4096;
    let in_use = |page: &(usize, &[u8])| page.1.iter().any(|byte| *byte != 0);
    let pages = content.chunks(PAGE_BYTES).enumerate().filter(in_use);
    let positions = pages.flat_map(|(page, bytes)| page * PAGE_BYTES..page * PAGE_BYTES + bytes.len());
    let flips =
        positions.step_by(stride).flat_map(|position| [(position, 0xFF), (position, 1 << (position % 8))]);
    // Nobody reads what a panic says here, and there are thousands.
    panic::set_hook(Box::new(|_| {}));
    let mut progress = Progress::read(path);
    let mut damaged = content.to_vec();
    for (position, mask) in flips.skip(progress.flip) {
        progress.working = true;
        std::fs::write(path, progress.to_text()).expect("the file can be written");
        damaged[position] ^= mask;
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| look(&damaged)));
        damaged[position] ^= mask;
        let outcome = outcome.unwrap_or(Outcome::Panicked);
        if matches!(outcome, Outcome::Hidden | Outcome::Wrong | Outcome::Panicked) {
            eprintln!("{outcome:?} with byte {position} changed by {mask:#04x}");
        }
        progress.tally.add(outcome);
        progress.flip += 1;
        progress.working = false;
    }
    std::fs::write(path, progress.to_text()).expect("the file can be written");
}

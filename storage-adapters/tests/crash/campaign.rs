//! Cuts the power of recorded runs, in parallel, and during the recoveries too.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use storage_adapters::wal::Upkeep;

use crate::disk::{Disk, Event};
use crate::disk_image::Image;
use crate::power_cut::{Dice, Loss, Moment, Syncs};
use crate::promises::{History, LogContent, Progress, StateContent};
use crate::recovery::{Expected, Recovered, Retries, Rows, Violation, recover};
use crate::tally::Tally;
use crate::workload::{DiskStores, Home, Run};

/// Crashes within recoveries within recoveries.
pub const DEPTH: usize = 3;
/// Violations that are told in full; the others are only counted.
const TOLD_MAX: usize = 5;

/// One cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Events that have happened.
    pub position: usize,
    pub loss: Loss,
    /// How deep: 1 = no cut during the recovery.
    pub depth: usize,
    pub seed: u64,
}

/// How long a campaign takes: a fixed number of runs, or as many as fit into the time that `scripts/soak` gives.
pub fn seeds(bounded: u64) -> impl Iterator<Item = u64> {
    let time = std::env::var("STRONGROOM_SOAK_SECONDS").ok();
    let time =
        time.map(|text| Duration::from_secs(text.parse().expect("STRONGROOM_SOAK_SECONDS is a number")));
    let started = Instant::now();
    (0..).take_while(move |seed| match time {
        Some(time) => *seed == 0 || started.elapsed() < time,
        None => *seed < bounded,
    })
}

/// Whether `scripts/soak` asked for every cut of every run, not for a sample of them.
pub fn is_exhaustive() -> bool {
    std::env::var_os("STRONGROOM_SOAK_EXHAUSTIVE").is_some()
}

/// A recorded run, ready to be cut.
pub struct Recorded {
    pub run: Run,
    history: History,
}

/// What the stores of an image hold: an image of a run's beginning, or one that a recovery held on.
pub fn contents(image: &Image) -> (Arc<LogContent>, Arc<StateContent>) {
    let stores =
        DiskStores::open(&Disk::holding(image.clone()), Upkeep::Inline).expect("a sound image opens");
    let log = LogContent::of(&*stores.log).expect("it can be read");
    let state = StateContent::of(&*stores.state).expect("it can be read");
    (Arc::new(log), Arc::new(state))
}

impl Recorded {
    pub fn new(run: Run) -> Self {
        let (log, state) = contents(&run.image);
        let history = History::of(log, state, &Default::default(), &run.trace);
        Self { run, history }
    }

    /// Position of every storage effect, and how many effects are without a sync behind it.
    pub fn moments(&self, syncs: Syncs) -> Vec<(usize, usize)> {
        moments(&self.run.image, &self.run.trace, syncs)
    }

    /// Makes the cuts on as many threads as there are processors; returns the first violations in words.
    pub fn cut_all(&self, cuts: &[Cut], syncs: Syncs) -> (Tally, Vec<String>) {
        let total = Mutex::new((Tally::default(), Vec::new()));
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let (home, total) = (self.run.home.twin(), &total);
                let share = cuts.iter().skip(worker).step_by(workers);
                scope.spawn(move || {
                    let (tally, told) = self.cut_share(&home, share, syncs);
                    let mut total = total.lock().expect("no worker panics");
                    total.0.add(&tally);
                    total.1.extend(told);
                });
            }
        });
        let (tally, mut told) = total.into_inner().expect("no worker panics");
        told.truncate(TOLD_MAX);
        (tally, told)
    }

    /// Makes cuts in the order of their positions.
    fn cut_share<'c>(
        &self,
        home: &Home,
        cuts: impl Iterator<Item = &'c Cut>,
        syncs: Syncs,
    ) -> (Tally, Vec<String>) {
        let (mut tally, mut told) = (Tally::default(), Vec::new());
        let mut moment = Moment::before(self.run.image.clone(), syncs);
        let mut progress = Progress::default();
        for cut in cuts {
            for event in &self.run.trace[moment.position..cut.position] {
                moment.pass(event);
                progress.pass(event);
            }
            let expected = Expected {
                history: &self.history,
                progress: &progress,
                chain: Some(&self.run.chain),
                retries: Retries::Newest,
                rows: Rows::Compared,
            };
            if let Err(violation) = cut_once(home, &moment, *cut, &expected, &mut tally) {
                tally.violations += 1;
                told.push(format!("{cut:?} after {}: {violation}", last_of(&self.run.trace, cut.position)));
            }
        }
        (tally, told)
    }
}

fn moments(image: &Image, trace: &[Event], syncs: Syncs) -> Vec<(usize, usize)> {
    let mut moment = Moment::before(image.clone(), syncs);
    let mut found = Vec::new();
    for event in trace {
        moment.pass(event);
        if matches!(event, Event::Effect(..)) {
            found.push((moment.position, moment.pending()));
        }
    }
    found
}

fn last_of(trace: &[Event], position: usize) -> String {
    match &trace[position - 1] {
        Event::Effect(place, effect) => {
            let text = format!("{effect:?}");
            format!("{}: {}", place.name(), text.chars().take(40).collect::<String>())
        }
        _ => "no effect".to_owned(),
    }
}

/// Cuts, recovers, and cuts the recovery at a place that the seed chooses, as deep as the cut says.
fn cut_once(
    home: &Home,
    moment: &Moment<'_>,
    cut: Cut,
    expected: &Expected<'_>,
    tally: &mut Tally,
) -> Result<(), Violation> {
    let (image, damage) = moment.cut(cut.loss);
    tally.cuts += 1;
    tally.writes_lost += damage.lost;
    tally.writes_torn += damage.torn;
    tally.names_lost += damage.names_lost;
    tally.growths_lost += damage.growths_lost;
    let recovered = recover(home, image, expected, tally)?;
    if cut.depth <= 1 {
        return Ok(());
    }
    let Recovered { image, trace, log, state } = recovered;
    let history = History::of(log, state, &expected.history.append_only, &trace);
    let mut dice = Dice::new(cut.seed);
    let places = moments(&image, &trace, Syncs::Honoured);
    let Some((position, pending)) = places.get(dice.below(places.len())).copied() else {
        return Err(Violation::Broken("a recovery left no trace on the disk".to_owned()));
    };
    let losses = Loss::all(pending, dice.next(), 4);
    let loss = losses[dice.below(losses.len())];
    let mut moment = Moment::before(image, Syncs::Honoured);
    let mut progress = Progress::with(expected.progress.promises.clone());
    for event in &trace[..position] {
        moment.pass(event);
        progress.pass(event);
    }
    tally.second_cuts += u64::from(cut.depth == DEPTH);
    tally.third_cuts += u64::from(cut.depth < DEPTH);
    let next = Cut { position, loss, depth: cut.depth - 1, seed: dice.next() };
    let inner = Expected { history: &history, progress: &progress, ..*expected };
    cut_once(home, &moment, next, &inner, tally).map_err(|violation| {
        let place = last_of(&trace, position);
        Violation::Broken(format!("and in the recovery {next:?} after {place}: {violation}"))
    })
}

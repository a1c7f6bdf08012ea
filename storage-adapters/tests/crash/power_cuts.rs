//! Campaigns of power cuts.

use crate::campaign::{Cut, DEPTH, Recorded, is_exhaustive, seeds};
use crate::disk::Event;
use crate::disk_image::{Effect, Part, Place};
use crate::power_cut::{Dice, Loss, Syncs};
use crate::tally::Tally;
use crate::workload::{plan, record};

/// Rounds of writes in one recorded run.
const ROUNDS: usize = 30;

/// Every effect of a run, and of the cuts at each: all of them at length, a throw of dice otherwise.
fn cuts_everywhere(recorded: &Recorded, syncs: Syncs, seed: u64, each: Option<usize>) -> Vec<Cut> {
    let mut dice = Dice::new(seed);
    let mut cuts = Vec::new();
    for (position, pending) in recorded.moments(syncs) {
        let mut losses = Loss::all(pending, dice.next(), 4);
        if let Some(each) = each {
            while losses.len() > each {
                losses.swap_remove(dice.below(losses.len()));
            }
        }
        cuts.extend(losses.into_iter().map(|loss| Cut { position, loss, depth: 1, seed: dice.next() }));
    }
    cuts
}

/// How often each kind of effect was in a run: what never happened was never cut.
fn effects(recorded: &Recorded) -> [(&'static str, usize); 7] {
    let count = |is: fn(&Effect) -> bool| {
        let events = recorded.run.trace.iter();
        events.filter(|event| matches!(event, Event::Effect(_, effect) if is(effect))).count()
    };
    [
        ("writes", count(|effect| matches!(effect, Effect::Write { .. }))),
        ("lengths", count(|effect| matches!(effect, Effect::SetLength(_)))),
        ("files", count(|effect| matches!(effect, Effect::Created { .. }))),
        ("new names", count(|effect| matches!(effect, Effect::Renamed { .. }))),
        ("removals", count(|effect| matches!(effect, Effect::Removed(_)))),
        ("syncs", count(|effect| matches!(effect, Effect::Sync))),
        ("syncs of names", {
            let events = recorded.run.trace.iter();
            events.filter(|event| matches!(event, Event::Effect(Place::LogNames, Effect::Sync))).count()
        }),
    ]
}

#[test]
fn campaign_a_power_cut_at_any_effect_loses_nothing_that_was_acknowledged() {
    let (mut tally, mut runs, mut told) = (Tally::default(), 0, Vec::new());
    for seed in seeds(1) {
        let recorded = Recorded::new(record(plan(seed, ROUNDS)));
        let effects = effects(&recorded);
        println!("seed {seed}: {effects:?}");
        assert!(effects.iter().all(|(_, count)| *count > 0), "an effect never happened: {effects:?}");
        let cuts = cuts_everywhere(&recorded, Syncs::Honoured, seed, (!is_exhaustive()).then_some(3));
        let (found, words) = recorded.cut_all(&cuts, Syncs::Honoured);
        tally.add(&found);
        tally.crash_points += recorded.moments(Syncs::Honoured).len() as u64;
        told.extend(words.into_iter().map(|text| format!("seed {seed}: {text}")));
        runs += 1;
    }
    tally.report("power cut at every effect", runs);
    assert!(told.is_empty(), "{} promises were broken:\n{}", tally.violations, told.join("\n"));
    let Tally { crash_points, acknowledged, retries, checkpoints, .. } = tally;
    assert!(crash_points > 200 && acknowledged > 1_000, "too little happened: {tally:?}");
    assert!(retries > 200 && checkpoints > 100, "too little happened: {tally:?}");
    let Tally { votes, marks, log_batches_rescued, log_batches_cut, writes_torn, writes_lost, .. } = tally;
    assert!(votes > 100 && marks > 100, "too little happened: {tally:?}");
    assert!(log_batches_rescued > 0 && log_batches_cut > 0, "a batch under way has two ends: {tally:?}");
    assert!(writes_torn > 50 && writes_lost > 50, "too little was lost: {tally:?}");
    assert!(tally.names_lost > 10, "too few names were lost: {tally:?}");
}

#[test]
fn campaign_a_power_cut_during_a_recovery_from_a_power_cut_loses_nothing_either() {
    /// Chains of cuts in the bounded campaign.
    const CHAINS: usize = 120;
    let (mut tally, mut runs, mut told) = (Tally::default(), 0, Vec::new());
    for seed in seeds(1) {
        let recorded = Recorded::new(record(plan(!seed, ROUNDS)));
        let mut cuts = cuts_everywhere(&recorded, Syncs::Honoured, !seed, Some(1));
        let mut dice = Dice::new(seed);
        while !is_exhaustive() && cuts.len() > CHAINS {
            cuts.swap_remove(dice.below(cuts.len()));
        }
        cuts.sort_by_key(|cut| cut.position);
        cuts.iter_mut().for_each(|cut| cut.depth = DEPTH);
        let (found, words) = recorded.cut_all(&cuts, Syncs::Honoured);
        tally.add(&found);
        tally.crash_points += cuts.len() as u64;
        told.extend(words.into_iter().map(|text| format!("seed {seed}: {text}")));
        runs += 1;
    }
    tally.report("power cut during recovery, depth 3", runs);
    assert!(told.is_empty(), "{} promises were broken:\n{}", tally.violations, told.join("\n"));
    assert!(tally.second_cuts > 50 && tally.third_cuts > 50, "too little happened: {tally:?}");
    assert!(tally.acknowledged > 500 && tally.retries > 100, "too little happened: {tally:?}");
}

/// The same harness on disks whose syncs do nothing must find that promises are broken: otherwise it proves nothing.
#[test]
fn campaign_without_syncs_the_same_power_cuts_break_promises() {
    /// Cuts of each control: an unsynced disk has as many pending effects as the run had.
    const CUTS: usize = 24;
    silence_redb();
    let recorded = Recorded::new(record(plan(1, ROUNDS)));
    let mut total = Tally::default();
    let mut runs = 0;
    let parts = Part::ALL.map(Syncs::IgnoredOn);
    for syncs in [Syncs::Ignored].into_iter().chain(parts) {
        for in_order in [false, true] {
            let cuts = late_cuts(&recorded, syncs, in_order, CUTS);
            let (tally, told) = recorded.cut_all(&cuts, syncs);
            println!(
                "{syncs:?}, in order {in_order}: {} of {} found\n{}",
                tally.violations,
                tally.cuts,
                told.join("\n")
            );
            // A name that is lost may be one that nobody needs any more.
            let enough = if syncs == Syncs::IgnoredOn(Part::LogNames) { 6 } else { 9 };
            assert!(
                tally.violations * 10 >= tally.cuts * enough,
                "{syncs:?}: the harness misses what a lost sync does: {tally:?}"
            );
            // A disk that loses the end and keeps the order leaves sound files: only the promises tell. Names without
            // their content, or the other way round, are refused.
            let is_sound = in_order && !matches!(syncs, Syncs::IgnoredOn(Part::LogFiles | Part::LogNames));
            let by_promise = told.iter().filter(|text| text.contains(" was ") && text.contains(" and is "));
            assert!(!is_sound || by_promise.count() == told.len(), "{told:?}");
            total.add(&tally);
            runs += 1;
        }
    }
    total.crash_points = total.cuts;
    total.report("control: syncs ignored (must break)", runs);
}

/// Cuts in the second half of a run that lose effects by dice, or some of the last ones.
fn late_cuts(recorded: &Recorded, syncs: Syncs, in_order: bool, count: usize) -> Vec<Cut> {
    let moments = recorded.moments(syncs);
    let mut dice = Dice::new(7);
    let mut cut = || {
        let (position, pending) = moments[moments.len() / 2 + dice.below(moments.len() / 2)];
        let kept = pending / 4 + dice.below(pending / 4);
        let loss = if in_order { Loss::Prefix(kept) } else { Loss::Random(dice.next()) };
        Cut { position, loss, depth: 1, seed: 0 }
    };
    let mut cuts: Vec<Cut> = (0..count).map(|_| cut()).collect();
    cuts.sort_by_key(|cut| cut.position);
    cuts
}

/// redb panics on files that are garbage; the adapter makes errors of it, and nobody needs the backtraces.
fn silence_redb() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("/redb-")) {
            others(panic);
        }
    }));
}

//! Bugs that are planted into every node: the checks must find each of them.

use std::ops::Range;

use ledger_core::planted_bugs::PlantedBug;
use ledger_simulation::run::RunOptions;
use ledger_simulation::violation::Violation;

use super::{run_as_asked, seeds_or};

/// Runs seeds until one shows the bug as it must show.
fn find(bug: PlantedBug, seeds: Range<u64>, shows: impl Fn(&Violation) -> bool) {
    for seed in seeds_or(seeds.clone()) {
        let usual = RunOptions::of(seed);
        // A forgotten vote shows only when it is given again: the voter must go down right after it.
        let trap_per_mille = if bug == PlantedBug::ForgetVote { 500 } else { usual.trap_per_mille };
        let report = run_as_asked(RunOptions { bug: Some(bug), trap_per_mille, ..usual });
        if let Some(violation) = report.violations.iter().find(|violation| shows(violation)) {
            return println!("{bug:?} was found in seed {seed}: {violation}");
        }
        println!("{bug:?} in seed {seed}: {:?}", report.violations);
    }
    panic!("{bug:?} was not found in seeds {seeds:?}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    find(PlantedBug::AnswerBeforeCommit, 1..11, |violation| {
        matches!(
            violation,
            Violation::LostWrite { .. } | Violation::Fork { .. } | Violation::NotLinearizable(_)
        )
    });
}

#[test]
fn a_forgotten_vote_is_found() {
    find(PlantedBug::ForgetVote, 1..41, |violation| {
        matches!(violation, Violation::TwoLeaders { .. } | Violation::Fork { .. })
    });
}

#[test]
fn a_stale_read_is_found() {
    find(PlantedBug::StaleRead, 1..11, |violation| matches!(violation, Violation::NotLinearizable(_)));
}

#[test]
fn a_transaction_that_is_applied_twice_is_found() {
    find(PlantedBug::ApplyTwice, 1..3, |violation| matches!(violation, Violation::AppliedTwice { .. }));
}

#[test]
fn a_dropped_idempotency_record_is_found() {
    find(PlantedBug::DropIdempotencyRecord, 2..6, |violation| {
        matches!(violation, Violation::AppliedTwice { .. })
    });
}

#[test]
fn a_checkpoint_that_is_signed_early_is_found() {
    find(PlantedBug::SignEarly, 1..5, |violation| matches!(violation, Violation::CheckpointUnmarked { .. }));
}

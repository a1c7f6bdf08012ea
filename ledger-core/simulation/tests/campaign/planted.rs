//! Bugs that are planted into every node: the checks must find each of them.

use ledger_core::planted_bugs::PlantedBug;
use ledger_simulation::run::{RunOptions, run};
use ledger_simulation::violation::Violation;

/// Runs seeds until one shows the bug as it must show.
fn find(bug: PlantedBug, seeds_max: u64, shows: impl Fn(&Violation) -> bool) {
    let mut seen = Vec::new();
    for seed in 1..=seeds_max {
        let report = run(RunOptions { bug: Some(bug), ..RunOptions::of(seed) }).unwrap();
        if let Some(violation) = report.violations.iter().find(|violation| shows(violation)) {
            println!("{bug:?} was found in seed {seed}: {violation}");
            return;
        }
        seen.extend(report.violations);
    }
    panic!("{bug:?} was not found in {seeds_max} seeds; what was: {seen:?}");
}

#[test]
fn an_answer_before_the_commit_is_found() {
    find(PlantedBug::AnswerBeforeCommit, 10, |violation| {
        matches!(
            violation,
            Violation::LostWrite { .. } | Violation::Fork { .. } | Violation::NotLinearizable(_)
        )
    });
}

#[test]
fn a_forgotten_vote_is_found() {
    find(PlantedBug::ForgetVote, 40, |violation| {
        matches!(violation, Violation::TwoLeaders { .. } | Violation::Fork { .. })
    });
}

#[test]
fn a_stale_read_is_found() {
    find(PlantedBug::StaleRead, 10, |violation| matches!(violation, Violation::NotLinearizable(_)));
}

#[test]
fn a_transaction_that_is_applied_twice_is_found() {
    find(PlantedBug::ApplyTwice, 2, |violation| matches!(violation, Violation::AppliedTwice { .. }));
}

#[test]
fn a_dropped_idempotency_record_is_found() {
    find(PlantedBug::DropIdempotencyRecord, 4, |violation| {
        matches!(violation, Violation::AppliedTwice { .. })
    });
}

#[test]
fn a_checkpoint_that_is_signed_early_is_found() {
    find(PlantedBug::SignEarly, 4, |violation| matches!(violation, Violation::CheckpointUnmarked { .. }));
}

//! Bugs that are planted into every node: the checks must find each of them.

use std::ops::Range;
use std::sync::Arc;

use ledger_core::command::{Command, Proposal, Submission};
use ledger_core::entity::EntityKey;
use ledger_core::ledger_state::LedgerState;
use ledger_core::memory::MemoryStateStore;
use ledger_core::names::{LedgerId, VaultId};
use ledger_core::planted_bugs::{PlantedBug, Planting};
use ledger_core::ports::LogId;
use ledger_core::transaction::{Action, Actor, IdempotencyKey, Operation, Transaction};
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

/// The same bug on one node of several: replicas are compared by what they remember, also where the rows are whole and
/// only the index in memory lacks a key.
#[test]
fn a_record_that_one_replica_drops_is_seen_by_comparing_with_another() {
    let replica = |bug: Option<PlantedBug>| {
        let _planted = Planting::of(bug);
        let mut state = LedgerState::load(Arc::new(MemoryStateStore::default())).unwrap();
        let vault = VaultId([7; 16]);
        let mut commands = vec![
            Command::Initialise { ledger_id: LedgerId([1; 16]), page_key: [2; 32] },
            Command::CreateNamespace { name: "acme".to_owned().try_into().unwrap() },
            Command::CreateVault { vault: "acme/main".parse().unwrap(), id: vault },
        ];
        for number in 0..32_u8 {
            let key = EntityKey::new("key").unwrap();
            let action = Action::DeleteEntity { key };
            let operations = vec![Operation { action, condition: None }];
            let key = IdempotencyKey::from_parts(1_800_000_000_000, [number; 10]);
            let transaction = Transaction::new(key, operations).unwrap();
            let actor = Actor::new("client:test").unwrap();
            commands.push(Command::Write { submissions: vec![Submission { vault, actor, transaction }] });
        }
        for (index, command) in (0..).zip(commands) {
            let proposal = Proposal { time_ms: 1_800_000_000_000, command };
            state.apply(LogId { term: 1, node: 0, index }, &proposal).unwrap();
        }
        let root = state.tip(vault).unwrap().header.state_root;
        (root, state.replica_digests().pop().unwrap().idempotency())
    };
    let (sound, wrong) = (replica(None), replica(Some(PlantedBug::DropIdempotencyRecord)));
    assert_eq!(sound.0, wrong.0, "the blocks do not show it");
    assert_ne!(sound.1, wrong.1);
    assert_eq!(sound, replica(None));
}

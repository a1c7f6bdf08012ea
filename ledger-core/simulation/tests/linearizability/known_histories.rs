//! Histories made by hand, good and bad.

use ledger_simulation::history::{Call, Ending, History};
use ledger_simulation::linearizability::{STEPS_MAX, Verdict, check, check_key};
use ledger_simulation::register::{Answer, Operation};

const FOUND_NOTHING: Answer = Answer::Found(None);
const NEW: Answer = Answer::Done { existed: false };
const REPLACED: Answer = Answer::Done { existed: true };

fn found(value: u64) -> Answer {
    Answer::Found(Some(value))
}

/// A call from one moment to another.
fn call(operation: Operation, began: u64, at: u64, answer: Answer) -> Call {
    Call { client: 0, key: 0, operation, began, ending: Ending::Answered { at, answer } }
}

fn unanswered(operation: Operation, began: u64) -> Call {
    Call { client: 0, key: 0, operation, began, ending: Ending::Unknown }
}

fn verdict(calls: &[Call]) -> Verdict {
    check_key(0, calls, STEPS_MAX)
}

fn assert_good(calls: &[Call]) {
    assert_eq!(verdict(calls), Verdict::Linearizable);
}

fn assert_bad(calls: &[Call]) {
    assert!(matches!(verdict(calls), Verdict::Violated(_)), "accepted: {calls:#?}");
}

#[test]
fn an_empty_history_is_good() {
    assert_good(&[]);
}

#[test]
fn one_after_the_other_each_sees_the_one_before() {
    assert_good(&[
        call(Operation::Get, 1, 2, FOUND_NOTHING),
        call(Operation::Put(7), 3, 4, NEW),
        call(Operation::Get, 5, 6, found(7)),
        call(Operation::CompareAndSet { expected: 7, new: 8 }, 7, 8, REPLACED),
        call(Operation::Create(9), 9, 10, Answer::Refused(Some(8))),
        call(Operation::Delete, 11, 12, REPLACED),
        call(Operation::Delete, 13, 14, NEW),
        call(Operation::Create(10), 15, 16, NEW),
        call(Operation::CompareAndSet { expected: 8, new: 11 }, 17, 18, Answer::Refused(Some(10))),
    ]);
}

#[test]
fn a_stale_read_is_bad() {
    assert_bad(&[
        call(Operation::Put(1), 1, 2, NEW),
        call(Operation::Put(2), 3, 4, REPLACED),
        call(Operation::Get, 5, 6, found(1)),
    ]);
}

#[test]
fn a_read_beside_a_write_sees_either_value() {
    for seen in [FOUND_NOTHING, found(1)] {
        assert_good(&[call(Operation::Put(1), 1, 10, NEW), call(Operation::Get, 2, 3, seen)]);
    }
}

#[test]
fn two_reads_beside_a_write_that_go_back_in_time_are_bad() {
    assert_good(&[
        call(Operation::Put(1), 1, 10, NEW),
        call(Operation::Get, 2, 3, FOUND_NOTHING),
        call(Operation::Get, 4, 5, found(1)),
    ]);
    assert_bad(&[
        call(Operation::Put(1), 1, 10, NEW),
        call(Operation::Get, 2, 3, found(1)),
        call(Operation::Get, 4, 5, FOUND_NOTHING),
    ]);
}

#[test]
fn a_lost_acknowledged_write_is_bad() {
    assert_bad(&[call(Operation::Put(1), 1, 2, NEW), call(Operation::Get, 3, 4, FOUND_NOTHING)]);
}

#[test]
fn a_value_that_nobody_wrote_is_bad() {
    assert_bad(&[call(Operation::Put(1), 1, 2, NEW), call(Operation::Get, 3, 4, found(5))]);
}

#[test]
fn a_write_without_an_answer_happened_or_not_and_also_late() {
    let put = unanswered(Operation::Put(1), 1);
    assert_good(&[put.clone(), call(Operation::Get, 5, 6, FOUND_NOTHING)]);
    assert_good(&[put.clone(), call(Operation::Get, 5, 6, found(1))]);
    let late = [
        put.clone(),
        call(Operation::Get, 5, 6, FOUND_NOTHING),
        call(Operation::Put(2), 7, 8, NEW),
        call(Operation::Get, 9, 10, found(1)),
    ];
    assert_good(&late);
    let twice = [
        put,
        call(Operation::Get, 5, 6, found(1)),
        call(Operation::Put(2), 7, 8, REPLACED),
        call(Operation::Get, 9, 10, found(1)),
    ];
    assert_bad(&twice);
}

#[test]
fn a_write_is_not_seen_before_it_was_called() {
    assert_bad(&[call(Operation::Get, 1, 2, found(1)), unanswered(Operation::Put(1), 3)]);
}

#[test]
fn split_brain_that_grants_one_condition_twice_is_bad() {
    assert_bad(&[
        call(Operation::Put(1), 1, 2, NEW),
        call(Operation::CompareAndSet { expected: 1, new: 2 }, 3, 10, REPLACED),
        call(Operation::CompareAndSet { expected: 1, new: 3 }, 4, 11, REPLACED),
    ]);
}

#[test]
fn two_leaders_that_both_create_a_key_are_bad() {
    assert_bad(&[call(Operation::Create(1), 1, 10, NEW), call(Operation::Create(2), 2, 11, NEW)]);
}

#[test]
fn an_answer_says_whether_the_key_existed_and_that_is_checked() {
    assert_bad(&[call(Operation::Put(1), 1, 2, NEW), call(Operation::Put(2), 3, 4, NEW)]);
    assert_bad(&[call(Operation::Delete, 1, 2, REPLACED)]);
    assert_bad(&[
        call(Operation::Put(1), 1, 2, NEW),
        call(Operation::CompareAndSet { expected: 9, new: 2 }, 3, 4, Answer::Refused(Some(8))),
    ]);
}

#[test]
fn a_retry_that_was_applied_twice_is_bad() {
    // The first put took effect, was overwritten, and its retry took effect again.
    assert_bad(&[
        call(Operation::Put(1), 1, 20, NEW),
        call(Operation::Get, 2, 3, found(1)),
        call(Operation::Put(2), 4, 5, REPLACED),
        call(Operation::Get, 6, 7, found(2)),
        call(Operation::Get, 8, 9, found(1)),
    ]);
}

#[test]
fn keys_do_not_influence_each_other_and_the_bad_one_is_named() {
    let mut history = History::default();
    let one = history.begin(1, 1, Operation::Put(1));
    let two = history.begin(2, 2, Operation::Put(2));
    history.answer(two, NEW);
    history.answer(one, NEW);
    assert_eq!(check(&history, STEPS_MAX), Verdict::Linearizable);
    let stale = history.begin(1, 2, Operation::Get);
    history.answer(stale, FOUND_NOTHING);
    let Verdict::Violated(violation) = check(&history, STEPS_MAX) else { panic!("accepted a stale read") };
    assert_eq!(violation.key, 2);
    assert_eq!(violation.register, Some(2));
    assert_eq!(violation.stuck_at.operation, Operation::Get);
    assert_eq!(violation.explained.len(), 1);
}

#[test]
fn a_withdrawn_call_never_happened() {
    let mut history = History::default();
    let refused = history.begin(1, 1, Operation::Put(1));
    history.withdraw(refused);
    assert_eq!(history.calls().count(), 0);
    let read = history.begin(1, 1, Operation::Get);
    history.answer(read, found(1));
    assert!(matches!(check(&history, STEPS_MAX), Verdict::Violated(_)));
}

#[test]
fn a_search_beyond_its_limit_is_inconclusive_and_says_so() {
    let mut calls: Vec<Call> = (1..=20).map(|value| unanswered(Operation::Put(value), value)).collect();
    calls.push(call(Operation::Get, 100, 101, found(99)));
    assert_eq!(check_key(0, &calls, 1_000), Verdict::Inconclusive { key: 0, steps: 1_000 });
}

#[test]
fn ten_thousand_calls_of_eight_clients_are_checked() {
    // Rounds of eight overlapping compare-and-sets of which one wins.
    let mut calls = vec![call(Operation::Put(0), 1, 2, NEW)];
    let (mut moment, mut value) = (10, 0);
    for round in 1..=1_250_u64 {
        let winner = round % 8;
        let new = round * 8 + winner;
        for client in 0..8 {
            let operation = Operation::CompareAndSet { expected: value, new: round * 8 + client };
            let answer = if client == winner { REPLACED } else { Answer::Refused(Some(new)) };
            calls.push(call(operation, moment + client, moment + 20 + client, answer));
        }
        (moment, value) = (moment + 40, new);
    }
    assert_eq!(calls.len(), 10_001);
    assert_good(&calls);
    calls.push(call(Operation::Get, moment, moment + 1, found(0)));
    assert_bad(&calls);
}

/// The checker once let a put of the value that was there take effect at once, for good, and refused what needs it later.
#[test]
fn a_put_of_the_value_that_is_there_may_take_effect_after_another_write() {
    let set = Operation::CompareAndSet { expected: 1, new: 2 };
    assert_good(&[
        call(Operation::Put(1), 1, 8, NEW),
        call(Operation::Put(1), 2, 12, REPLACED),
        call(Operation::Get, 3, 7, FOUND_NOTHING),
        call(set, 9, 10, REPLACED),
        call(Operation::Get, 11, 13, found(1)),
    ]);
}

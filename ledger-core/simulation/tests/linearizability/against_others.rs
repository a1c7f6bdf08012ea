//! Small random histories, judged by trying every order, and by stateright's tester.

use ledger_simulation::history::{Call, Ending};
use ledger_simulation::linearizability::{STEPS_MAX, Verdict, check_key};
use ledger_simulation::register::{Answer, Operation, Register};
use proptest::prelude::*;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

const CLIENTS: u32 = 3;
const CALLS_MAX: usize = 6;

/// What a client does next: begin an operation, end the open one as if it took effect on some register, or give up.
#[derive(Debug, Clone)]
enum Move {
    Begin(Operation),
    End(Register),
    GiveUp,
}

fn operation() -> impl Strategy<Value = Operation> {
    let value = 1..4_u64;
    prop_oneof![
        3 => Just(Operation::Get),
        2 => value.clone().prop_map(Operation::Put),
        2 => (value.clone(), value.clone())
            .prop_map(|(expected, new)| Operation::CompareAndSet { expected, new }),
        1 => value.prop_map(Operation::Create),
        1 => Just(Operation::Delete),
    ]
}

fn history() -> impl Strategy<Value = Vec<Call>> {
    let next = prop_oneof![
        6 => operation().prop_map(Move::Begin),
        5 => prop::option::of(1..4_u64).prop_map(Move::End),
        1 => Just(Move::GiveUp),
    ];
    prop::collection::vec((0..CLIENTS, next), 1..24).prop_map(|moves| play(&moves))
}

/// Half of the answers are what a register would say that takes each operation at its end, so that good histories are
/// not rare; the others are arbitrary.
fn play(moves: &[(u32, Move)]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open = [None; CLIENTS as usize];
    let mut register: Register = None;
    for (moment, (client, next)) in (1_u64..).zip(moves) {
        let slot = &mut open[*client as usize];
        match (next, *slot) {
            (Move::Begin(operation), None) if calls.len() < CALLS_MAX => {
                *slot = Some(calls.len());
                let operation = *operation;
                calls.push(Call {
                    client: *client,
                    key: 0,
                    operation,
                    began: moment,
                    ending: Ending::Unknown,
                });
            }
            (Move::End(assumed), Some(index)) => {
                *slot = None;
                let honest = moment % 2 == 0;
                let (answer, after) = calls[index].operation.apply(if honest { register } else { *assumed });
                if honest {
                    register = after;
                }
                calls[index].ending = Ending::Answered { at: moment, answer };
            }
            (Move::GiveUp, Some(_)) => *slot = None,
            _ => {}
        }
    }
    calls
}

/// Tries every order of every choice of unanswered calls.
fn explainable_by_trying(calls: &[Call]) -> bool {
    fn go(calls: &[Call], done: &mut Vec<bool>, register: Register) -> bool {
        let answered = |call: &Call| matches!(call.ending, Ending::Answered { .. });
        if calls.iter().zip(done.iter()).all(|(call, done)| *done || !answered(call)) {
            return true;
        }
        for index in 0..calls.len() {
            // Whoever answered before this one began must have taken effect.
            let must_wait = calls.iter().zip(done.iter()).any(|(other, done)| {
                !done && matches!(other.ending, Ending::Answered { at, .. } if at < calls[index].began)
            });
            if done[index] || must_wait {
                continue;
            }
            let (answer, after) = calls[index].operation.apply(register);
            let fits = match calls[index].ending {
                Ending::Answered { answer: given, .. } => given == answer,
                Ending::Unknown => true,
            };
            if fits {
                done[index] = true;
                if go(calls, done, after) {
                    return true;
                }
                done[index] = false;
            }
        }
        false
    }
    go(calls, &mut vec![false; calls.len()], None)
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OneKey(Register);

impl SequentialSpec for OneKey {
    type Op = Operation;
    type Ret = Answer;

    fn invoke(&mut self, operation: &Operation) -> Answer {
        let (answer, after) = operation.apply(self.0);
        self.0 = after;
        answer
    }
}

fn stateright_accepts(calls: &[Call]) -> bool {
    // Its threads have one call at a time, and one without an answer stays open for ever: each call is a thread of its
    // own, which loses nothing, as real time orders the calls of a client.
    let mut events: Vec<(u64, usize, Option<Answer>)> = Vec::new();
    for (index, call) in calls.iter().enumerate() {
        events.push((call.began, index, None));
        if let Ending::Answered { at, answer } = call.ending {
            events.push((at, index, Some(answer)));
        }
    }
    events.sort_by_key(|(moment, ..)| *moment);
    let mut tester = LinearizabilityTester::new(OneKey(None));
    for (_, index, answer) in events {
        match answer {
            None => tester.on_invoke(index, calls[index].operation).unwrap(),
            Some(answer) => tester.on_return(index, answer).unwrap(),
        };
    }
    tester.is_consistent()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_on_a_small_history_is_that_of_two_other_checkers(calls in history()) {
        let ours = check_key(0, &calls, STEPS_MAX);
        let accepted = match &ours {
            Verdict::Linearizable => true,
            Verdict::Violated(_) => false,
            Verdict::Inconclusive { .. } => panic!("a small history was too large"),
        };
        prop_assert_eq!(accepted, explainable_by_trying(&calls), "by trying: {:#?}", calls);
        prop_assert_eq!(accepted, stateright_accepts(&calls), "by stateright: {:#?}", calls);
    }
}

#[test]
fn the_random_histories_are_good_and_bad_in_fair_shares() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut good = 0;
    for _ in 0..1_000 {
        let calls = history().new_tree(&mut runner).unwrap().current();
        good += usize::from(check_key(0, &calls, STEPS_MAX) == Verdict::Linearizable);
    }
    assert!((150..=850).contains(&good), "{good} of 1,000 are good");
}

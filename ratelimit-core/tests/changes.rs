//! Changing a limit: what was left stays, and nobody gains.

use std::time::Duration;

use proptest::prelude::*;
use ratelimit_core::{Keep, Limit, Nanos, Rate};

const NOW: Nanos = Nanos(50_000_000_000);

fn per_second(burst: u64) -> Limit {
    Limit::gcra(Rate::per_second(1), burst).expect("a limit")
}

fn left(limit: &Limit, word: u64, now: Nanos) -> u64 {
    limit.stored().expect("one word").decide(word, 0, now).decision.remaining()
}

fn used(limit: &Limit, cost: u64) -> u64 {
    limit.stored().expect("one word").decide(0, cost, NOW).next.unwrap_or(0)
}

fn changed(old: &Limit, word: u64, new: &Limit, keep: Keep) -> u64 {
    new.stored().expect("one word").carried_from(old.stored().expect("one word"), word, keep, NOW)
}

#[test]
fn what_was_left_stays_up_to_the_new_size() {
    let (small, large) = (per_second(10), per_second(100));
    let word = used(&small, 7);
    let raised = changed(&small, word, &large, Keep::Cells);
    assert_eq!(left(&large, raised, NOW), 3);
    let lowered = changed(&large, used(&large, 7), &small, Keep::Cells);
    assert_eq!(left(&small, lowered, NOW), 10);
    let share = changed(&small, word, &large, Keep::Share);
    assert_eq!(left(&large, share, NOW), 30);
}

#[test]
fn a_key_that_used_nothing_has_the_new_size_at_once() {
    let (small, large) = (per_second(10), per_second(100));
    assert_eq!(left(&large, changed(&small, 0, &large, Keep::Cells), NOW), 100);
    let long_ago = small.stored().expect("one word").decide(0, 5, Nanos(0)).next.expect("charged");
    assert_eq!(left(&large, changed(&small, long_ago, &large, Keep::Cells), NOW), 100);
}

#[test]
fn what_is_owed_stays_owed() {
    let in_debt = |debt_max| Limit::gcra_with_debt(Rate::per_second(1), 10, debt_max).expect("a limit");
    let (old, new) = (in_debt(5), Limit::gcra_with_debt(Rate::per_second(2), 4, 3).expect("a limit"));
    let word = old.stored().expect("one word").debited(used(&old, 10), 5, NOW);
    let word = changed(&old, word, &new, Keep::Cells);
    let wait = new.stored().expect("one word").decide(word, 1, NOW).decision.retry_after();
    assert_eq!(wait, Some(Duration::from_secs(2)), "three owed and one to have, at two a second");
}

fn limits() -> impl Strategy<Value = Limit> {
    let period = (1_000_000..10_000_000_000u64).prop_map(Duration::from_nanos);
    prop_oneof![
        3 => (1..1_000u64, period.clone(), 1..200u64)
            .prop_map(|(count, period, burst)| Limit::gcra(Rate::new(count, period), burst).expect("a limit")),
        1 => (1..200u64, period.clone())
            .prop_map(|(limit, period)| Limit::fixed_window(limit, period).expect("a limit")),
        1 => (1..200u64, period).prop_map(|(limit, period)| Limit::sliding_window(limit, period).expect("a limit")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_sequence_of_changes_at_one_instant_gives_anybody_a_cell(
        limits in prop::collection::vec(limits(), 2..8), part in 1..100u64,
    ) {
        let mut word = used(&limits[0], (limits[0].size() * part).div_ceil(100));
        let mut had = left(&limits[0], word, NOW);
        for pair in limits.windows(2) {
            word = changed(&pair[0], word, &pair[1], Keep::Cells);
            let has = left(&pair[1], word, NOW);
            // A key of which everything is left counts as one that used nothing.
            if had == pair[0].size() || word == 0 {
                return Ok(());
            }
            prop_assert!(has <= had && has <= pair[1].size(), "{had} became {has}");
            prop_assert!(matches!(pair, [Limit::Gcra(_), Limit::Gcra(_)]) || has == had.min(pair[1].size()));
            had = has;
        }
    }

    #[test]
    fn a_share_stays_a_share_rounded_down(old in limits(), new in limits(), part in 1..100u64) {
        let word = used(&old, (old.size() * part).div_ceil(100));
        let had = left(&old, word, NOW);
        let has = left(&new, changed(&old, word, &new, Keep::Share), NOW);
        prop_assert!(u128::from(has) * u128::from(old.size()) <= u128::from(had + 1) * u128::from(new.size()));
    }
}

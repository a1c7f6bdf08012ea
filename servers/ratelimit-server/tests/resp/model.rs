//! `CL.THROTTLE` over a real socket beside an exact model of redis-cell's reply, with a clock that the test moves.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::server::{Client, TestClock, TestServer, throttle};

/// A bucket per key, in exact arithmetic: time is counted in parts of a nanosecond of which every rate here has a whole number
/// per cell, so nothing is rounded but the seconds of the reply. Nothing of it is the server's.
#[derive(Default)]
struct Model {
    /// For each key, when its bucket is full again.
    full_at: [u128; KEYS],
}

const KEYS: usize = 3;
/// Parts of a nanosecond: divided by every count below, with every period below.
const PARTS: u128 = 8;
const SECOND: u128 = 1_000_000_000 * PARTS;

/// One request: of which key, what, and how long after the one before.
#[derive(Debug, Clone, Copy)]
struct Ask {
    key: usize,
    max_burst: u64,
    count: u64,
    period_s: u64,
    quantity: u64,
    wait_ns: u64,
}

impl Model {
    /// What redis-cell documents: limited, limit, remaining, retry after, reset after. What it rounds early is late here.
    fn reply(&mut self, ask: Ask, now_ns: u64) -> [i64; 5] {
        let now = u128::from(now_ns) * PARTS;
        let (limit, quantity) = (u128::from(ask.max_burst) + 1, u128::from(ask.quantity));
        let cell = SECOND * u128::from(ask.period_s) / u128::from(ask.count);
        let capacity = limit * cell;
        let owed = self.full_at[ask.key].saturating_sub(now);
        let cost = quantity * cell;
        let (fits_ever, fits) = (quantity <= limit, quantity == 0 || owed + cost <= capacity);
        let is_allowed = fits_ever && fits;
        let owed_after = if is_allowed { owed + cost } else { owed };
        if is_allowed && quantity > 0 {
            self.full_at[ask.key] = now + owed_after;
        }
        let seconds = |time: u128| i64::try_from(time.div_ceil(SECOND)).expect("seconds");
        [
            i64::from(!is_allowed),
            i64::try_from(limit).expect("a limit"),
            i64::try_from(capacity.saturating_sub(owed_after) / cell).expect("a rest"),
            if is_allowed || !fits_ever { -1 } else { seconds(owed + cost - capacity) },
            seconds(owed_after),
        ]
    }
}

/// Counts and periods whose cells are whole eighths of a nanosecond.
const RATES: [(u64, u64); 12] = [
    (1, 1),
    (30, 60),
    (10, 1),
    (1, 86_400),
    (7, 7),
    (3, 60),
    (100, 3_600),
    (1_000, 1),
    (125_000, 1),
    (5, 3),
    (60, 1_800),
    (64, 60),
];

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let waits = prop_oneof![
        4 => Just(0u64),
        2 => 0..2_000_000u64,
        3 => 0..3_000_000_000u64,
        2 => (0..7_200u64).prop_map(|seconds| seconds * 1_000_000_000),
        // Just before and after whole seconds.
        2 => (1..5u64, 0..3u64).prop_map(|(seconds, ns)| seconds * 1_000_000_000 - 1 + ns),
        1 => Just(200_000 * 1_000_000_000),
    ];
    let bursts = prop_oneof![3 => Just(0u64), 3 => 1..5u64, 2 => 5..20u64, 1 => Just(1_000)];
    let quantities = prop_oneof![2 => Just(0u64), 6 => Just(1u64), 3 => 2..6u64, 1 => 6..2_000u64];
    let numbers = (0..KEYS, bursts, prop::sample::select(&RATES[..]), quantities, waits, 0..10u8);
    // Most requests for a key have the same numbers, as clients do; some bring others.
    let fixed = prop::collection::vec((0..5u64, prop::sample::select(&RATES[..])), KEYS);
    (fixed, prop::collection::vec(numbers, 1..120)).prop_map(|(fixed, numbers)| {
        let ask = |(key, burst, rate, quantity, wait_ns, other)| {
            let (max_burst, (count, period_s)) = if other == 0 { (burst, rate) } else { fixed[key] };
            Ask { key, max_burst, count, period_s, quantity, wait_ns }
        };
        numbers.into_iter().map(ask).collect()
    })
}

async fn reply(client: &mut Client, prefix: &str, ask: Ask) -> [i64; 5] {
    let Ask { key, max_burst, count, period_s, quantity, .. } = ask;
    let numbers = format!("{max_burst} {count} {period_s} {quantity}");
    client.send(&throttle(&format!("{prefix}-{key}"), &numbers)).await;
    client.reply_of_five().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_is_that_of_an_exact_model_whatever_is_asked_and_however_time_passes() {
    const START_NS: u64 = 5_000_000_123;
    let clock = TestClock::starting_at(START_NS);
    let server = TestServer::at(clock.clone()).await;
    let mut client = server.client().await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut limited, mut never, mut looks, mut asked) = (0, 0, 0, 0);
    for round in 0..120 {
        let mut model = Model::default();
        let asks = asks().new_tree(&mut runner).expect("a sequence").current();
        for (step, ask) in asks.iter().enumerate() {
            let now_ns = clock.pass(ask.wait_ns);
            let expected = model.reply(*ask, now_ns);
            let told = reply(&mut client, &round.to_string(), *ask).await;
            assert_eq!(told, expected, "round {round}, step {step} of {asks:?}");
            asked += 1;
            looks += usize::from(ask.quantity == 0);
            limited += usize::from(told[0] == 1);
            never += usize::from(told[0] == 1 && told[3] == -1);
        }
    }
    // What is rare has happened.
    assert!(
        asked > 4_000 && limited > 500 && never > 100 && looks > 300,
        "{asked} {limited} {never} {looks}"
    );
    server.stop().await;
}

/// A rate whose cell is no whole number of the server's ticks is rounded to the slow side: then the model is a bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_cannot_be_counted_exactly_never_admits_what_the_model_would_not() {
    let clock = TestClock::starting_at(7);
    let server = TestServer::at(clock.clone()).await;
    let mut client = server.client().await;
    for (count, period_s) in [(7, 1), (3, 1), (999_999, 1), (13, 60)] {
        let (mut admitted, start) = (0u128, clock.pass(0));
        for step in 0..3_000u64 {
            let now = clock.pass(step * 7_919 % 400_000_000);
            let ask = Ask { key: 0, max_burst: 4, count, period_s, quantity: 1, wait_ns: 0 };
            admitted += u128::from(reply(&mut client, &format!("{count}"), ask).await[0] == 0);
            let refilled =
                u128::from(now - start) * u128::from(count) / (u128::from(period_s) * 1_000_000_000);
            assert!(admitted <= 5 + refilled, "{count} per {period_s}: {admitted} in {} ns", now - start);
        }
    }
    server.stop().await;
}

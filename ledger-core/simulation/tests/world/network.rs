//! What the network does to messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ledger_node::peers::PeerError;
use ledger_simulation::network::WireQuality;

use crate::echo::{A, B, Echo, address, boot, call_from_a, name, request, world};

const BAD: WireQuality = WireQuality {
    delay_us_min: 500,
    delay_us_max: 20_000,
    loss_per_mille: 100,
    duplicate_per_mille: 50,
    straggler_per_mille: 20,
};
const TICK: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_millis(200);

#[test]
fn a_good_network_delivers_each_request_once_and_each_answer() {
    let mut world = world(1, WireQuality::GOOD);
    let echo = Arc::new(Echo::default());
    world.boot(B, boot(echo.clone())).unwrap();
    let outcomes = call_from_a(&mut world, 100, TICK, TIMEOUT);
    world.run_for(Duration::from_secs(2));
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 100);
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(echo.handled.load(Ordering::Relaxed), 100);
}

#[test]
fn a_bad_network_loses_delays_doubles_and_reorders() {
    let mut world = world(2, BAD);
    let echo = Arc::new(Echo::default());
    world.boot(B, boot(echo)).unwrap();
    let outcomes = call_from_a(&mut world, 1_000, TICK, TIMEOUT);
    world.run_for(Duration::from_secs(10));
    let outcomes = outcomes.lock().unwrap();
    let timeouts =
        outcomes.iter().filter(|outcome| matches!(outcome, Err(PeerError::Timeout { .. }))).count();
    let counters = world.network().counters();
    assert_eq!(outcomes.len(), 1_000);
    // Of a thousand round trips 19 % lose a message and 4 % meet a straggler, most of these beyond the timeout.
    assert!((150..300).contains(&timeouts), "{timeouts} timeouts");
    assert!((150..250).contains(&counters.lost), "{counters:?}");
    assert!((20..90).contains(&counters.duplicated), "{counters:?}");
    assert!(counters.overtaken > 100, "{counters:?}");
}

#[test]
fn a_wire_is_cut_in_one_direction() {
    for (from, to, handled) in [(A, B, 0), (B, A, 10)] {
        let mut world = world(3, WireQuality::GOOD);
        let echo = Arc::new(Echo::default());
        world.boot(B, boot(echo.clone())).unwrap();
        world.network().cut(from, to);
        let outcomes = call_from_a(&mut world, 10, TICK, TIMEOUT);
        world.run_for(Duration::from_secs(1));
        let answered = outcomes.lock().unwrap().iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((echo.handled.load(Ordering::Relaxed), answered), (handled, 0));
        assert_eq!(world.network().counters().cut, 10);
        world.network().heal();
        let outcomes = call_from_a(&mut world, 10, TICK, TIMEOUT);
        world.run_for(Duration::from_secs(1));
        assert!(outcomes.lock().unwrap().iter().all(Result::is_ok));
    }
}

#[test]
fn a_host_without_a_process_refuses_connections_and_a_crash_loses_what_was_being_answered() {
    let mut world = world(4, WireQuality::GOOD);
    let outcomes = call_from_a(&mut world, 1, TICK, TIMEOUT);
    world.run_for(Duration::from_millis(100));
    assert!(matches!(outcomes.lock().unwrap()[0], Err(PeerError::Unreachable { .. })));

    let slow = Arc::new(Echo { takes: Duration::from_millis(50), ..Echo::default() });
    world.boot(B, boot(slow.clone())).unwrap();
    let outcomes = call_from_a(&mut world, 1, TICK, TIMEOUT);
    world.run_for(Duration::from_millis(20));
    world.crash(B);
    world.boot(B, boot(slow.clone())).unwrap();
    world.run_for(Duration::from_millis(500));
    assert_eq!(slow.handled.load(Ordering::Relaxed), 0, "the crash ends what was under way");
    assert!(matches!(outcomes.lock().unwrap()[0], Err(PeerError::Timeout { .. })));
}

#[test]
fn a_paused_process_answers_when_it_goes_on_and_its_clock_has_jumped() {
    let mut world = world(5, WireQuality::GOOD);
    let echo = Arc::new(Echo { takes: Duration::from_millis(300), ..Echo::default() });
    world.boot(B, boot(echo)).unwrap();
    let outcomes = call_from_a(&mut world, 1, TICK, Duration::from_secs(5));
    world.run_for(Duration::from_millis(50));
    world.pause(B);
    world.run_for(Duration::from_secs(1));
    assert!(outcomes.lock().unwrap().is_empty());
    world.resume(B);
    world.run_for(Duration::from_millis(20));
    assert!(outcomes.lock().unwrap()[0].is_ok(), "its 300 ms have passed while it stood");
}

#[test]
fn a_caller_that_expects_another_name_is_refused_and_so_is_an_unknown_address() {
    let mut world = world(6, WireQuality::GOOD);
    world.boot(B, boot(Arc::new(Echo::default()))).unwrap();
    let transport = world.network().transport(A);
    world
        .run_on(A, async move {
            let wrong_name = transport.call(&address(B), Some(&name(A)), request(A, ""), TIMEOUT).await;
            assert!(matches!(wrong_name, Err(PeerError::Untrusted { .. })));
            let nowhere = transport.call("nowhere:1", None, request(A, ""), TIMEOUT).await;
            assert!(matches!(nowhere, Err(PeerError::Unreachable { .. })));
        })
        .unwrap();
    world.run_for(Duration::from_millis(50));
}

#[test]
fn a_seed_always_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| {
        let mut world = world(seed, BAD);
        world.boot(B, boot(Arc::new(Echo::default()))).unwrap();
        let _outcomes = call_from_a(&mut world, 200, TICK, TIMEOUT);
        world.run_for(Duration::from_millis(600));
        world.crash(B);
        world.run_for(Duration::from_millis(200));
        world.boot(B, boot(Arc::new(Echo::default()))).unwrap();
        world.run_for(Duration::from_secs(1));
        (world.trace().hash(), world.trace().lines())
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1), run(2));
}

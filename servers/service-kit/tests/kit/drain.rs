use std::convert::Infallible;
use std::future::{pending, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use service_kit::admission::{AdmissionLayer, AdmissionLimits};
use service_kit::tls::Protocol;
use service_kit::{
    Drain, DrainOutcome, DrainSettings, Listener, ListenerLimits, Phase, Readiness, serve_grpc,
};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::service::Routes;

use crate::loopback::{Slow, any_port, call, connect, grpc_status, in_time};

const SETTINGS: DrainSettings = DrainSettings {
    delay: Duration::from_secs(5),
    total: Duration::from_secs(30),
    callbacks: Duration::from_secs(5),
};

fn drain(settings: DrainSettings) -> (Drain, Readiness) {
    let readiness = Readiness::starting();
    readiness.advance(Phase::Ready);
    (Drain::new(settings, readiness.clone()), readiness)
}

#[test]
fn a_phase_never_goes_back() {
    let readiness = Readiness::starting();
    readiness.advance(Phase::Draining);
    readiness.advance(Phase::Ready);
    assert_eq!(readiness.phase(), Phase::Draining);
    readiness.advance(Phase::ShuttingDown);
    readiness.advance(Phase::Starting);
    assert_eq!(readiness.phase(), Phase::ShuttingDown);
}

#[test]
fn loopback_has_no_drain_delay_and_others_have_five_seconds() {
    let delay = |address: &str| DrainSettings::for_address(address.parse().expect("an address")).delay;
    assert_eq!(delay("127.0.0.1:1"), Duration::ZERO);
    assert_eq!(delay("[::1]:1"), Duration::ZERO);
    assert_eq!(delay("0.0.0.0:1"), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_server_stays_open_for_the_drain_delay_while_its_probe_fails() {
    let (drain, readiness) = drain(SETTINGS);
    let started = Instant::now();
    let stop = drain.stop_accepting();
    let phases = readiness.clone();
    let serving = async move {
        phases.reached(Phase::Draining).await;
        assert_eq!(started.elapsed(), Duration::ZERO, "unready at once");
        assert!(phases.check().is_err());
        stop.await;
        assert_eq!(started.elapsed(), Duration::from_secs(5), "the door closes after the delay");
        Ok::<_, Infallible>(())
    };
    drain.request();
    assert_eq!(drain.supervise(serving).await, Ok(DrainOutcome::Clean));
    assert_eq!(readiness.phase(), Phase::ShuttingDown);
}

#[tokio::test(start_paused = true)]
async fn requests_that_never_end_are_cut_off_and_callbacks_still_run_within_the_total() {
    let (drain, _) = drain(SETTINGS);
    let started = Instant::now();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    drain.before_exit("flush", move || async move {
        let _ = sender.send(started.elapsed());
    });
    drain.request();
    let outcome = drain.supervise(pending::<Result<(), Infallible>>()).await.expect("no error");
    assert_eq!(outcome, DrainOutcome::OutOfTime);
    assert_eq!(outcome.exit_code(), 1);
    assert_eq!(receiver.await, Ok(Duration::from_secs(25)));
    assert!(started.elapsed() <= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_hangs_ends_with_the_total() {
    let (drain, _) = drain(SETTINGS);
    let started = Instant::now();
    drain.before_exit("hangs", pending);
    drain.request();
    let serving = async {
        drain.stop_accepting().await;
        Ok::<_, Infallible>(())
    };
    assert_eq!(drain.supervise(serving).await, Ok(DrainOutcome::OutOfTime));
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn a_second_request_ends_at_once_in_every_step() {
    let (in_delay, _) = drain(SETTINGS);
    let started = Instant::now();
    in_delay.request();
    in_delay.request();
    let outcome = in_delay.supervise(pending::<Result<(), Infallible>>()).await;
    assert_eq!(outcome, Ok(DrainOutcome::Forced));
    assert_eq!(started.elapsed(), Duration::ZERO);

    let (in_callback, _) = drain(SETTINGS);
    let again = in_callback.clone();
    in_callback.before_exit("asks again", move || async move {
        again.request();
        pending::<()>().await;
    });
    in_callback.request();
    let serving = async {
        in_callback.stop_accepting().await;
        Ok::<_, Infallible>(())
    };
    assert_eq!(in_callback.supervise(serving).await, Ok(DrainOutcome::Forced));
    assert_eq!(started.elapsed(), SETTINGS.delay);
}

#[tokio::test(start_paused = true)]
async fn callbacks_run_last_added_first_and_also_when_the_server_fails() {
    let (drain, _) = drain(SETTINGS);
    let order = Arc::new(Mutex::new(Vec::new()));
    for name in ["store", "engine"] {
        let order = Arc::clone(&order);
        drain.before_exit(name, move || async move { order.lock().expect("no panic").push(name) });
    }
    assert_eq!(drain.supervise(ready(Err("the accept loop broke"))).await, Err("the accept loop broke"));
    assert_eq!(*order.lock().expect("no panic"), ["engine", "store"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_closes_the_door_and_finishes_the_request_under_way() {
    let (drain, readiness) = drain(DrainSettings::for_address(any_port()));
    let slow = Slow::default();
    let limits = ListenerLimits::default();
    let listener =
        Listener::bind("drained", any_port(), Protocol::Http2, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let supervisor = drain.clone();
    let routes = Routes::new(slow.clone());
    let supervised = tokio::spawn(async move {
        let admission = AdmissionLayer::new(&AdmissionLimits::default());
        let stop = supervisor.stop_accepting();
        let serving = serve_grpc(listener.accept(), &limits, admission, routes, stop);
        let serving = async {
            serving.await;
            Ok::<(), Infallible>(())
        };
        supervisor.supervise(serving).await
    });

    let channel = connect(address).await;
    let waiting = tokio::spawn(async move { call(&channel, "/test.Slow/Wait", Default::default()).await });
    slow.one_entered().await;
    drain.request();
    in_time("the phase", readiness.reached(Phase::ShuttingDown)).await;
    in_time("the door closes", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!supervised.is_finished(), "a request is under way");
    slow.state.release.add_permits(1);
    let answer = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(grpc_status(&answer), "0");
    let outcome = in_time("the end", supervised).await.expect("no panic");
    assert_eq!(outcome.expect("no transport error"), DrainOutcome::Clean);
}

#[tokio::test]
async fn a_real_signal_asks_for_the_end() {
    let (drain, readiness) = drain(DrainSettings::for_address(any_port()));
    drain.listen_to_signals().expect("signals");
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::TERM).expect("a signal to ourselves");
    let serving = async {
        drain.stop_accepting().await;
        Ok::<_, Infallible>(())
    };
    assert_eq!(in_time("the signal arrives", drain.supervise(serving)).await, Ok(DrainOutcome::Clean));
    assert_eq!(readiness.phase(), Phase::ShuttingDown);
}

#[test]
fn an_outcome_reads_as_words() {
    for outcome in [DrainOutcome::Clean, DrainOutcome::OutOfTime, DrainOutcome::Forced] {
        let text = outcome.to_string();
        assert!(text.contains(' ') && text != format!("{outcome:?}"), "{text}");
    }
}

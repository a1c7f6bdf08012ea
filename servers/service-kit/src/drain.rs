//! The orderly end of a server.
//!
//! A signal makes the server unready; after the drain delay it stops accepting; requests under way finish; callbacks
//! flush what is left; the process exits. All of it fits into one time, 30 s unless set otherwise, which is also what
//! orchestrators allow. A second signal ends the process at once.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::readiness::{Phase, Readiness};

/// How long the steps may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// Between the failing readiness probe and the closed door: load balancers need some probes to notice.
    pub delay: Duration,
    /// From the first signal to the exit, everything included.
    pub total: Duration,
    /// Kept back from the total for callbacks, however long requests take.
    pub callbacks: Duration,
}

impl DrainSettings {
    /// Default drain delay beyond loopback: two probes at common settings.
    pub const DELAY: Duration = Duration::from_secs(5);
    /// Default time in all: the grace period that Kubernetes gives.
    pub const TOTAL: Duration = Duration::from_secs(30);
    /// Default time for callbacks.
    pub const CALLBACKS: Duration = Duration::from_secs(5);

    /// Defaults for a server on `address`. On loopback no load balancer watches, so there is no delay.
    pub fn for_address(address: SocketAddr) -> Self {
        let delay = if address.ip().to_canonical().is_loopback() { Duration::ZERO } else { Self::DELAY };
        Self { delay, total: Self::TOTAL, callbacks: Self::CALLBACKS }
    }
}

/// How a server ended after it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOutcome {
    /// Every request was finished and every callback ran.
    Clean,
    /// Time was up: requests were cut off, or a callback was.
    OutOfTime,
    /// A second signal: nothing more was waited for.
    Forced,
}

impl fmt::Display for DrainOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DrainOutcome::Clean => "everything was finished",
            DrainOutcome::OutOfTime => "time was up",
            DrainOutcome::Forced => "a second signal forced the end",
        })
    }
}

impl DrainOutcome {
    /// The process' exit code: 0 for a clean end, else 1.
    pub fn exit_code(self) -> u8 {
        match self {
            DrainOutcome::Clean => 0,
            DrainOutcome::OutOfTime | DrainOutcome::Forced => 1,
        }
    }
}

/// Handle on a server's end. Clones refer to the same server.
#[derive(Clone)]
pub struct Drain {
    settings: DrainSettings,
    readiness: Readiness,
    requests: watch::Sender<u32>,
    callbacks: Arc<Mutex<Vec<Callback>>>,
}

struct Callback {
    name: &'static str,
    run: Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>,
}

impl Drain {
    /// A server that nobody has asked to end.
    pub fn new(settings: DrainSettings, readiness: Readiness) -> Self {
        Self { settings, readiness, requests: watch::Sender::new(0), callbacks: Arc::default() }
    }

    /// Asks for the end, as a signal does. The second call forces it.
    pub fn request(&self) {
        self.requests.send_modify(|requests| *requests = requests.saturating_add(1));
    }

    /// Asks for the end unless somebody has: never forces it.
    pub fn request_first(&self) {
        self.requests.send_if_modified(|requests| {
            let is_first = *requests == 0;
            *requests = (*requests).max(1);
            is_first
        });
    }

    /// Lets SIGTERM and SIGINT ask for the end, from a task of its own.
    ///
    /// # Errors
    /// The operating system refused to deliver signals.
    pub fn listen_to_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "asked to end");
                drain.request();
            }
        });
        Ok(())
    }

    /// Completes when the end has been asked for: streams should say goodbye.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.requested_times(1)
    }

    /// Completes when listeners must close: for [`serve_grpc`](crate::serve_grpc).
    pub fn stop_accepting(&self) -> impl Future<Output = ()> + Send + use<> {
        let readiness = self.readiness.clone();
        async move { readiness.reached(Phase::ShuttingDown).await }
    }

    /// Adds work for after the last request, such as flushing. The one added last runs first.
    pub fn before_exit<F>(&self, name: &'static str, run: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let callback = Callback { name, run: Box::new(move || Box::pin(run())) };
        self.callbacks.lock().unwrap_or_else(PoisonError::into_inner).push(callback);
    }

    /// Runs the server to its end. `serving` completes when every listener has closed and every request is done;
    /// it must watch [`Drain::stop_accepting`].
    ///
    /// # Errors
    /// The server's own, after the callbacks ran.
    pub async fn supervise<E>(
        &self,
        serving: impl Future<Output = Result<(), E>>,
    ) -> Result<DrainOutcome, E> {
        let mut serving = pin!(serving);
        tokio::select! {
            served = &mut serving => {
                self.readiness.advance(Phase::ShuttingDown);
                let outcome = self.run_callbacks(Instant::now() + self.settings.callbacks).await;
                return served.map(|()| outcome);
            }
            () = self.requested() => {}
        }
        let deadline = Instant::now() + self.settings.total;
        let requests_deadline = deadline.checked_sub(self.settings.callbacks).unwrap_or(deadline);
        self.readiness.advance(Phase::Draining);
        let drained = async {
            tokio::select! {
                served = &mut serving => return served,
                () = sleep(self.settings.delay) => {}
            }
            self.readiness.advance(Phase::ShuttingDown);
            serving.await
        };
        let drained = tokio::select! {
            biased;
            () = self.requested_times(2) => return Ok(DrainOutcome::Forced),
            drained = timeout_at(requests_deadline, drained) => drained,
        };
        self.readiness.advance(Phase::ShuttingDown);
        if drained.is_err() {
            tracing::warn!("requests were still under way when time was up");
        }
        let outcome = self.run_callbacks(deadline).await;
        match drained {
            Ok(served) => served.map(|()| outcome),
            Err(_) => Ok(outcome.max_severity(DrainOutcome::OutOfTime)),
        }
    }

    async fn run_callbacks(&self, deadline: Instant) -> DrainOutcome {
        let callbacks = std::mem::take(&mut *self.callbacks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outcome = DrainOutcome::Clean;
        for Callback { name, run } in callbacks.into_iter().rev() {
            let time = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                () = self.requested_times(2) => return DrainOutcome::Forced,
                done = timeout(time, run()) => if done.is_err() {
                    tracing::warn!(callback = name, "was not done when time was up");
                    outcome = DrainOutcome::OutOfTime;
                },
            }
        }
        outcome
    }

    fn requested_times(&self, times: u32) -> impl Future<Output = ()> + Send + use<> {
        let mut requests = self.requests.subscribe();
        let sender = self.requests.clone();
        async move {
            // The sender is held here: the channel cannot close while this future is polled.
            let _ = requests.wait_for(|requests| *requests >= times).await;
            drop(sender);
        }
    }
}

impl DrainOutcome {
    fn max_severity(self, other: Self) -> Self {
        match (self, other) {
            (DrainOutcome::Forced, _) | (_, DrainOutcome::Forced) => DrainOutcome::Forced,
            (DrainOutcome::OutOfTime, _) | (_, DrainOutcome::OutOfTime) => DrainOutcome::OutOfTime,
            (DrainOutcome::Clean, DrainOutcome::Clean) => DrainOutcome::Clean,
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("settings", &self.settings)
            .field("phase", &self.readiness.phase())
            .finish()
    }
}

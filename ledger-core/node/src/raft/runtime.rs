//! What the engine runs on: tokio, with random numbers that follow from a seed, and with watch channels that wake in
//! order (see [`ordered_watch`]).

use std::future::Future;
use std::io;
use std::time::Duration;

use openraft::OptionalSend;
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::watch::SendError;
use openraft_rt::{AsyncRuntime, OptionalSync, RecvError, Watch, WatchReceiver, WatchSender};
use openraft_rt_tokio::TokioRuntime;

use crate::ordered_watch::{self, Look, Receiver, Sender};

type Seeded = DeterministicRng<TokioRuntime>;

/// The engine's runtime.
#[derive(Debug)]
pub(crate) struct NodeRuntime(Seeded);

/// Runs something that starts the engine, whose random numbers (election timeouts) then follow from the seed.
/// The engine can be started nowhere else.
pub(crate) async fn with_randomness<T>(seed: u64, work: impl Future<Output = T>) -> T {
    Seeded::scope(seed, work).await
}

impl AsyncRuntime for NodeRuntime {
    type JoinError = <Seeded as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Seeded as AsyncRuntime>::Sleep;
    type Instant = <Seeded as AsyncRuntime>::Instant;
    type TimeoutError = <Seeded as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Seeded as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Seeded as AsyncRuntime>::Mpsc;
    type Watch = OrderedWatch;
    type Oneshot = <Seeded as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Seeded::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Seeded::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Seeded::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Seeded::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Seeded::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Seeded::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Seeded::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(Seeded::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Seeded::spawn_blocking(f)
    }
}

/// [`ordered_watch`] as the engine knows watch channels.
#[derive(Debug)]
pub(crate) struct OrderedWatch;

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Look<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        ordered_watch::channel(init)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if !self.has_receivers() {
            return Err(SendError(value));
        }
        self.replace(value);
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.modify_if(modify)
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        Sender::subscribe(self)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        Receiver::changed(self).await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Look<'_, T> {
        Receiver::borrow_and_update(self)
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;

    #[test]
    fn the_runtime_keeps_every_promise_that_the_engine_relies_on() {
        // The suite's other half wraps a runtime in seeded random numbers, which this one has already.
        Suite::test_all_on(&mut NodeRuntime::new(1));
    }
}

//! What the engine runs on: tokio, except that in a simulation its random numbers come from the node's seed, and that
//! whoever watches a value is woken in the order in which it began to wait.
//!
//! tokio wakes the receivers of a watch channel in an order that it draws by lot, which no seed reaches in its stable
//! interface. [`OrderedWatch`] has one list where tokio's channel has eight: the engine runs on one thread, on which
//! there is nothing to spread.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use openraft::OptionalSend;
use openraft_rt::watch::SendError;
use openraft_rt::{AsyncRuntime, OptionalSync, RecvError, Watch, WatchReceiver, WatchSender};
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime};
use tokio::sync::Notify;

use crate::randomness::{EngineRng, Randomness};

/// The engine's runtime.
#[derive(Debug)]
pub(crate) struct NodeRuntime(TokioRuntime);

impl AsyncRuntime for NodeRuntime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = EngineRng;
    type Mpsc = TokioMpsc;
    type Watch = OrderedWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match Randomness::of_this_task() {
            Randomness::System => TokioRuntime::spawn(future),
            seeded @ Randomness::Seeded(_) => TokioRuntime::spawn(seeded.scope(future)),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        EngineRng::of_this_task()
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// A value that is watched; receivers are woken in the order in which they began to wait.
pub(crate) struct OrderedWatch;

struct Shared<T> {
    value: RwLock<T>,
    /// Changes of the value; stands under the value's lock when it is written.
    version: AtomicUsize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

impl<T> Shared<T> {
    fn borrow(&self) -> OrderedRef<'_, T> {
        OrderedRef(self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        {
            let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
            if !modify(&mut value) {
                return false;
            }
            self.version.fetch_add(1, Ordering::SeqCst);
        }
        self.changed.notify_waiters();
        true
    }
}

/// A look at the value.
pub(crate) struct OrderedRef<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for OrderedRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Changes the value.
pub(crate) struct OrderedSender<T>(Arc<Shared<T>>);

/// Sees the value, and that it changed.
pub(crate) struct OrderedReceiver<T> {
    shared: Arc<Shared<T>>,
    seen: usize,
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = OrderedSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = OrderedReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = OrderedRef<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (OrderedSender<T>, OrderedReceiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicUsize::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
            changed: Notify::new(),
        });
        (OrderedSender(Arc::clone(&shared)), OrderedReceiver { shared, seen: 0 })
    }
}

impl<T> Clone for OrderedSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for OrderedSender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for OrderedSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError(value));
        }
        self.0.modify(|held| {
            *held = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.modify(modify)
    }

    fn borrow_watched(&self) -> OrderedRef<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> OrderedReceiver<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        OrderedReceiver { shared: Arc::clone(&self.0), seen: self.0.version.load(Ordering::SeqCst) }
    }
}

impl<T> Clone for OrderedReceiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for OrderedReceiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for OrderedReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let shared = Arc::clone(&self.shared);
        loop {
            // Before the look: a change after it wakes this future, polled or not.
            let changed = shared.changed.notified();
            let version = shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if shared.senders.load(Ordering::SeqCst) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> OrderedRef<'_, T> {
        self.shared.borrow()
    }

    fn borrow_and_update(&mut self) -> OrderedRef<'_, T> {
        let value = self.shared.borrow();
        // Under the value's lock: no change comes between the two.
        self.seen = self.shared.version.load(Ordering::SeqCst);
        value
    }
}

impl<T> fmt::Debug for OrderedReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedReceiver").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;

    #[test]
    fn the_runtime_keeps_every_promise_that_the_engine_relies_on() {
        Suite::<NodeRuntime>::test_all();
    }

    #[test]
    fn receivers_are_woken_in_the_order_in_which_they_began_to_wait() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let order = runtime.map(|runtime| {
            runtime.block_on(async {
                let (sender, _receiver) = OrderedWatch::channel(0_u32);
                let order = Arc::new(RwLock::new(Vec::new()));
                let tasks: Vec<_> = (0..32)
                    .map(|number| {
                        let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
                        tokio::spawn(async move {
                            let _ = receiver.changed().await;
                            order.write().unwrap_or_else(PoisonError::into_inner).push(number);
                        })
                    })
                    .collect();
                tokio::task::yield_now().await;
                let _ = sender.send(1);
                for task in tasks {
                    let _ = task.await;
                }
                let order = order.read().unwrap_or_else(PoisonError::into_inner).clone();
                order
            })
        });
        assert_eq!(order.unwrap_or_default(), (0..32).collect::<Vec<u32>>());
    }
}

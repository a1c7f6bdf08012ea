//! A value that is watched, as tokio's watch channel, except that whoever waits is woken in the order of waiting.
//!
//! tokio wakes the receivers of a watch channel in an order that it draws by lot, which no seed reaches in its stable
//! interface; two runs of a simulation would part there. This channel has one list where tokio's has eight, to spread
//! what many threads do: a node does its work on one.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// Every sender is gone: the value changes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was watched changes no more")]
pub(crate) struct WatchEnded;

struct Shared<T> {
    value: RwLock<T>,
    /// Changes of the value; written under the value's lock.
    version: AtomicUsize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

/// A look at the value, which cannot change meanwhile.
pub(crate) struct Look<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Shared<T> {
    /// A change is one assignment, or the caller's own, so a poisoned lock guards no half change.
    fn look(&self) -> Look<'_, T> {
        Look(self.value.read().unwrap_or_else(PoisonError::into_inner))
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

/// A value and one receiver.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

/// Changes the value. Clones change the same one.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicUsize::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    pub fn replace(&self, value: T) {
        self.0.modify(|held| {
            *held = value;
            true
        });
    }

    /// Changes the value and tells so when `modify` says that it did.
    pub fn modify_if(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        self.0.modify(modify)
    }

    pub fn has_receivers(&self) -> bool {
        self.0.receivers.load(Ordering::SeqCst) > 0
    }

    pub fn borrow(&self) -> Look<'_, T> {
        self.0.look()
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Receiver { shared: Arc::clone(&self.0), seen: self.0.version.load(Ordering::SeqCst) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// Sees the value, and that it changed.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: usize,
}

impl<T> Receiver<T> {
    pub fn borrow(&self) -> Look<'_, T> {
        self.shared.look()
    }

    pub fn borrow_and_update(&mut self) -> Look<'_, T> {
        let value = self.shared.look();
        // Under the value's lock: no change comes between the two.
        self.seen = self.shared.version.load(Ordering::SeqCst);
        value
    }

    /// What was sent so far counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.version.load(Ordering::SeqCst);
    }

    /// Waits for a change that was not seen, and counts it as seen.
    pub async fn changed(&mut self) -> Result<(), WatchEnded> {
        loop {
            // Before the look: a change after it wakes this future, polled or not.
            let changed = self.shared.changed.notified();
            let version = self.shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::SeqCst) == 0 {
                return Err(WatchEnded);
            }
            changed.await;
        }
    }

    /// Waits until the value is as `is_awaited` wants it, and answers it.
    pub async fn wait_for(&mut self, mut is_awaited: impl FnMut(&T) -> bool) -> Result<T, WatchEnded>
    where
        T: Clone,
    {
        loop {
            {
                let value = self.borrow_and_update();
                if is_awaited(&value) {
                    return Ok(value.clone());
                }
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn receivers_are_woken_in_the_order_in_which_they_began_to_wait() {
        let (sender, order) = (Sender::new(0_u32), Arc::new(Mutex::new(Vec::new())));
        let tasks: Vec<_> = (0..32)
            .map(|number| {
                let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.replace(1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..32).collect::<Vec<u32>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_last_sender_ends_the_wait() {
        let (sender, mut receiver) = channel(1);
        sender.replace(2);
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), 2);
        assert!(!sender.modify_if(|_| false));
        let second = sender.clone();
        drop(sender);
        let waits = tokio::spawn(async move { receiver.wait_for(|value| *value == 9).await });
        tokio::task::yield_now().await;
        drop(second);
        assert_eq!(waits.await.unwrap(), Err(WatchEnded));
    }
}

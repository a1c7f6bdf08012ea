//! Requests that wait for their turn.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

use super::admission::{Admission, Ask, Checked, Shared, Stop};
use super::counters;
use crate::keys::RequestKey;

/// Most requests of one layer that may be allowed to wait.
pub const WAITING_MAX: usize = 100_000;

/// Lets requests wait instead of refusing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitPolicy {
    /// How long a request may wait. One that cannot be admitted by then is refused at once, as far as that is known.
    pub deadline: Duration,
    /// How many requests may wait at a time, all keys together; more are refused. At most [`WAITING_MAX`].
    pub waiting_max: usize,
}

/// A request that waits.
pub(super) type WaitFuture = Pin<Box<dyn Future<Output = Result<Admission, Stop>> + Send>>;

/// Where a request waits: the rule that denies it, and its key there.
pub(super) type Place = (usize, RequestKey);

fn place(ask: &Ask) -> Place {
    (ask.rule, ask.key.clone())
}

/// The queues of a layer. There is one only while somebody waits in it.
pub(super) struct Queues {
    policy: WaitPolicy,
    /// Read without the lock: as long as nobody waits, requests do not look at the queues.
    waiting: AtomicUsize,
    by_place: Mutex<HashMap<Place, Queue>>,
}

struct Queue {
    /// Tokio's lock is given in the order in which it was asked for.
    turn: Arc<Turn<()>>,
    /// Told when a permit comes back.
    returned: Arc<Notify>,
    waiting: usize,
}

/// A place in a queue. Dropped, the request has left.
struct Ticket {
    queues: Arc<Queues>,
    place: Place,
    turn: Arc<Turn<()>>,
    returned: Arc<Notify>,
}

impl Queues {
    pub(super) fn new(policy: WaitPolicy) -> Arc<Self> {
        Arc::new(Self { policy, waiting: AtomicUsize::new(0), by_place: Mutex::default() })
    }

    /// A queue in which others wait for what this request asks.
    pub(super) fn queue_before(&self, asks: &[Ask]) -> Option<Place> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let by_place = self.lock();
        asks.iter().map(place).find(|place| by_place.contains_key(place))
    }

    /// Where a request that got this answer waits; `None` when it was admitted, or cannot be in time.
    pub(super) fn place_after(&self, shared: &Shared, asks: &[Ask], checked: &Checked) -> Option<Place> {
        let (position, wait) = checked.denied_by()?;
        let ask = asks.get(position)?;
        (wait <= self.policy.deadline || shared.holds_permits(ask)).then(|| place(ask))
    }

    /// A permit has come back: whoever is first in its queue looks again.
    pub(super) fn returned(&self, ask: &Ask) {
        if self.waiting.load(Ordering::Relaxed) > 0
            && let Some(queue) = self.lock().get(&place(ask))
        {
            queue.returned.notify_one();
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.policy.deadline).unwrap_or(now)
    }

    /// A place at the end of a queue; `None` when too many wait already.
    fn join(self: &Arc<Self>, place: Place) -> Option<Ticket> {
        let mut by_place = self.lock();
        if self.waiting.load(Ordering::Relaxed) >= self.policy.waiting_max {
            return None;
        }
        let empty = || Queue { turn: Arc::default(), returned: Arc::default(), waiting: 0 };
        let queue = by_place.entry(place.clone()).or_insert_with(empty);
        queue.waiting += 1;
        let (turn, returned) = (Arc::clone(&queue.turn), Arc::clone(&queue.returned));
        self.waiting.fetch_add(1, Ordering::Relaxed);
        counters::waiting().increment(1);
        Some(Ticket { queues: Arc::clone(self), place, turn, returned })
    }

    /// No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Queue>> {
        self.by_place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    async fn turn(&self, deadline: Instant) -> Option<OwnedMutexGuard<()>> {
        timeout_at(deadline, Arc::clone(&self.turn).lock_owned()).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut by_place = self.queues.lock();
        self.queues.waiting.fetch_sub(1, Ordering::Relaxed);
        counters::waiting().decrement(1);
        if let Entry::Occupied(mut queue) = by_place.entry(self.place.clone()) {
            queue.get_mut().waiting -= 1;
            if queue.get().waiting == 0 {
                queue.remove();
            }
        }
    }
}

/// Waits until the request is admitted, or cannot be before its deadline. Dropped, it has consumed nothing.
pub(super) async fn wait(
    shared: Arc<Shared>,
    queues: Arc<Queues>,
    asks: Vec<Ask>,
    mut at: Place,
    deadline: Instant,
) -> Result<Admission, Stop> {
    loop {
        let rule = at.0;
        let Some(ticket) = queues.join(at) else { return Err(shared.overtaken(&asks, rule)) };
        let Some(_turn) = ticket.turn(deadline).await else { return Err(shared.overtaken(&asks, rule)) };
        at = loop {
            let checked = shared.check(&asks);
            let denied = checked.denied_by().and_then(|(position, wait)| Some((asks.get(position)?, wait)));
            let Some((denying, wait)) = denied else { return shared.admit(asks, checked) };
            let now = Instant::now();
            let in_time = now.checked_add(wait).filter(|until| *until <= deadline);
            let permit = shared.holds_permits(denying);
            let until = if permit && now < deadline { Some(in_time.unwrap_or(deadline)) } else { in_time };
            let Some(until) = until else { return shared.admit(asks, checked) };
            // Another rule denies than the one whose turn this is: to its queue, and out of the way of this one.
            if place(denying) != ticket.place {
                break place(denying);
            }
            // Without a permit that comes back this is a sleep.
            let returned = ticket.returned.notified();
            let _ = timeout_at(until, async { if permit { returned.await } else { pending().await } }).await;
        };
    }
}

//! Faults that a simulation plants into its own nodes, to see that its checks find them.
//!
//! Without the feature `planted-bugs` nothing can be planted and every hook compiles to nothing; with it nothing is
//! planted unless a thread asks for it, and then only in what runs on that thread: a server's nodes run on others.

#[cfg(feature = "planted-bugs")]
use std::cell::Cell;

/// A bug that a simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlantedBug {
    /// The leader takes the silence of a member for its consent, so it answers before a quorum has the entry.
    AnswerBeforeCommit,
    /// A vote is given before it is durable, and never becomes so.
    ForgetVote,
    /// The leader answers reads without asking whether it still leads.
    StaleRead,
    /// A transaction takes effect twice.
    ApplyTwice,
    /// Of some writes it is not remembered that they were done.
    DropIdempotencyRecord,
    /// A checkpoint is signed before it is durable that it was.
    SignEarly,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
}

/// Whether what runs on this thread has the bug.
#[cfg(feature = "planted-bugs")]
pub fn is_planted(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether what runs on this thread has the bug: never, without the feature.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub const fn is_planted(_bug: PlantedBug) -> bool {
    false
}

/// Whatever runs on this thread has a bug, or none, until this is dropped.
#[cfg(feature = "planted-bugs")]
#[derive(Debug)]
#[must_use]
pub struct Planting(());

#[cfg(feature = "planted-bugs")]
impl Planting {
    /// Plants a bug in place of the one before.
    pub fn of(bug: Option<PlantedBug>) -> Self {
        PLANTED.set(bug);
        Self(())
    }
}

#[cfg(feature = "planted-bugs")]
impl Drop for Planting {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}

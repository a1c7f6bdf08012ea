//! What clients did and saw, in the order in which it happened.

use std::collections::BTreeMap;
use std::fmt;

use crate::register::{Answer, Operation};

/// A moment: later moments have larger numbers, and no two events share one.
pub type Moment = u64;

/// The number of a key.
pub type Key = u32;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an answer.
    Answered {
        /// When the client had it.
        at: Moment,
        /// What it was.
        answer: Answer,
    },
    /// Without one: it may have happened, may happen later, or never.
    Unknown,
}

/// One call of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who called, for people.
    pub client: u32,
    /// The key.
    pub key: Key,
    /// What was asked.
    pub operation: Operation,
    /// When the client began.
    pub began: Moment,
    /// How it ended.
    pub ending: Ending,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, operation, began, ending } = self;
        write!(f, "client {client}, key {key}: {operation}, from {began} ")?;
        match ending {
            Ending::Answered { at, answer } => write!(f, "to {at}: {answer:?}"),
            Ending::Unknown => f.write_str("on: no answer"),
        }
    }
}

/// A call that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct OpenCall(usize);

/// Records calls. A call that is never ended has an unknown outcome.
#[derive(Debug, Clone, Default)]
pub struct History {
    calls: Vec<Option<Call>>,
    now: Moment,
}

impl History {
    /// Begins a call.
    pub fn begin(&mut self, client: u32, key: Key, operation: Operation) -> OpenCall {
        self.now += 1;
        self.calls.push(Some(Call { client, key, operation, began: self.now, ending: Ending::Unknown }));
        OpenCall(self.calls.len() - 1)
    }

    /// Ends a call with its answer.
    pub fn answer(&mut self, open: OpenCall, answer: Answer) {
        self.now += 1;
        let at = self.now;
        if let Some(Some(call)) = self.calls.get_mut(open.0) {
            call.ending = Ending::Answered { at, answer };
        }
    }

    /// Takes back a call that certainly did not and will not happen: it was refused before anything was decided.
    pub fn withdraw(&mut self, open: OpenCall) {
        if let Some(call) = self.calls.get_mut(open.0) {
            *call = None;
        }
    }

    /// One call; `None` when it was withdrawn.
    pub fn call(&self, open: OpenCall) -> Option<&Call> {
        self.calls.get(open.0)?.as_ref()
    }

    /// All calls that may have happened.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().flatten()
    }

    /// The calls by key. Keys do not influence each other, so each is checked alone: a history is linearizable when
    /// and only when its part for each key is (Herlihy and Wing 1990, locality).
    pub fn by_key(&self) -> BTreeMap<Key, Vec<Call>> {
        let mut by_key: BTreeMap<Key, Vec<Call>> = BTreeMap::new();
        for call in self.calls() {
            by_key.entry(call.key).or_default().push(call.clone());
        }
        by_key
    }
}

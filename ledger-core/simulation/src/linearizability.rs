//! Whether a history can be explained by operations that take effect one after the other, each at one moment
//! between its call and its answer.
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017): walk over calls and answers in time
//! order, let one open call after the other take effect, go back at an answer that does not fit, and never look twice at
//! the same set of effective calls with the same register. A call whose answer says that it changed nothing takes effect
//! where it fits: every explanation in which it comes later is one with it here too, so there is nothing to go back to.
//! That a call would change nothing *here* is not enough: a put of the value that is there may be needed later.

use std::collections::HashSet;
use std::fmt;

use crate::history::{Call, Ending, History, Key, Moment};
use crate::register::{Answer, Register};

/// Most steps of the search for one key, unless told otherwise; beyond it the verdict is open. Each step remembers
/// one configuration.
pub const STEPS_MAX: usize = 4_000_000;

/// What the checker found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none for this key.
    Violated(Box<Violation>),
    /// The search was given up. Neither good nor bad: count it apart.
    Inconclusive {
        /// The key.
        key: Key,
        /// Steps that were made.
        steps: usize,
    },
}

/// Why a key's history has no explanation, as far as the search came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Key,
    /// The longest explanation that was found: calls in the order in which they take effect.
    pub explained: Vec<Call>,
    /// What the key holds after them.
    pub register: Register,
    /// The answer that fits no continuation of it.
    pub stuck_at: Call,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = 12;
        writeln!(
            f,
            "key {}: no order of its calls explains all answers. The longest that was found:",
            self.key
        )?;
        let skipped = self.explained.len().saturating_sub(shown);
        if skipped > 0 {
            writeln!(f, "  ({skipped} earlier calls)")?;
        }
        for call in self.explained.iter().skip(skipped) {
            writeln!(f, "  {call}")?;
        }
        write!(f, "  then the key holds {:?}, and this does not fit: {}", self.register, self.stuck_at)
    }
}

/// Checks every key of a history; answers the first violation, or else the first open verdict.
pub fn check(history: &History, steps_max: usize) -> Verdict {
    let mut open = None;
    for (key, calls) in history.by_key() {
        match check_key(key, &calls, steps_max) {
            Verdict::Linearizable => {}
            Verdict::Inconclusive { key, steps } => {
                open.get_or_insert(Verdict::Inconclusive { key, steps });
            }
            violated @ Verdict::Violated(_) => return violated,
        }
    }
    open.unwrap_or(Verdict::Linearizable)
}

/// Checks the calls of one key, which begins empty.
pub fn check_key(key: Key, calls: &[Call], steps_max: usize) -> Verdict {
    // A read without an answer says nothing and changes nothing.
    let says_something = |call: &&Call| !(call.operation.only_reads() && call.ending == Ending::Unknown);
    let calls: Vec<Call> = calls.iter().filter(says_something).cloned().collect();
    Search::new(&calls).run(key, steps_max)
}

/// Calls that have taken effect, one bit each.
type Effective = Box<[u64]>;

/// What the walk meets: position 0 is before everything.
#[derive(Debug, Clone, Copy)]
enum Event {
    Start,
    Call(usize),
    Answer(usize),
}

/// A call that took effect, and what the register was before.
struct Step {
    call: usize,
    before: Register,
    /// Whether leaving the call for later is worth a try.
    has_alternative: bool,
}

struct Search<'a> {
    calls: &'a [Call],
    events: Vec<Event>,
    /// A doubly linked list over `events`, without those whose call has taken effect.
    next: Vec<usize>,
    previous: Vec<usize>,
    call_at: Vec<usize>,
    answer_at: Vec<Option<usize>>,
    effective: Effective,
    register: Register,
    steps: Vec<Step>,
    seen: HashSet<(Effective, Register)>,
    /// Calls with an answer that have not taken effect.
    unexplained: usize,
    best: Option<(Vec<usize>, Register, usize)>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let mut moments: Vec<(Moment, Event)> = Vec::with_capacity(calls.len() * 2);
        for (index, call) in calls.iter().enumerate() {
            moments.push((call.began, Event::Call(index)));
            if let Ending::Answered { at, .. } = call.ending {
                moments.push((at, Event::Answer(index)));
            }
        }
        moments.sort_by_key(|(moment, _)| *moment);
        let events: Vec<Event> =
            std::iter::once(Event::Start).chain(moments.into_iter().map(|(_, event)| event)).collect();
        let (mut call_at, mut answer_at) = (vec![0; calls.len()], vec![None; calls.len()]);
        for (position, event) in events.iter().enumerate() {
            match event {
                Event::Start => {}
                Event::Call(index) => call_at[*index] = position,
                Event::Answer(index) => answer_at[*index] = Some(position),
            }
        }
        let unexplained = answer_at.iter().flatten().count();
        Self {
            calls,
            next: (1..=events.len()).collect(),
            previous: (0..=events.len()).map(|position| position.saturating_sub(1)).collect(),
            events,
            call_at,
            answer_at,
            effective: vec![0; calls.len().div_ceil(64)].into_boxed_slice(),
            register: None,
            steps: Vec::new(),
            seen: HashSet::new(),
            unexplained,
            best: None,
        }
    }

    fn run(mut self, key: Key, steps_max: usize) -> Verdict {
        let mut position = self.next[0];
        while self.unexplained > 0 {
            if self.seen.len() >= steps_max {
                return Verdict::Inconclusive { key, steps: self.seen.len() };
            }
            position = match self.events.get(position) {
                Some(Event::Start) => self.next[position],
                Some(Event::Call(call)) => {
                    let call = *call;
                    if self.take_effect(call) { self.next[0] } else { self.next[position] }
                }
                Some(Event::Answer(call)) => {
                    let call = *call;
                    self.remember_best(call);
                    match self.go_back() {
                        Some(position) => position,
                        None => return self.violation(key),
                    }
                }
                // Calls without an answer are all that is left, and they need no explanation.
                None => return Verdict::Linearizable,
            };
        }
        Verdict::Linearizable
    }

    /// Lets a call take effect now, unless its answer says otherwise or the same was tried before.
    fn take_effect(&mut self, index: usize) -> bool {
        let call = &self.calls[index];
        let (answer, after) = call.operation.apply(self.register);
        match call.ending {
            Ending::Answered { answer: given, .. } if given != answer => return false,
            // Nobody learns that it happened, and it leaves no trace.
            Ending::Unknown if after == self.register => return false,
            _ => {}
        }
        let (word, bit) = (index / 64, 1_u64 << (index % 64));
        let has_alternative = !matches!(answer, Answer::Found(_) | Answer::Refused(_));
        self.effective[word] |= bit;
        if has_alternative && !self.seen.insert((self.effective.clone(), after)) {
            self.effective[word] &= !bit;
            return false;
        }
        self.steps.push(Step { call: index, before: self.register, has_alternative });
        self.register = after;
        self.unlink(self.call_at[index]);
        if let Some(answer_at) = self.answer_at[index] {
            self.unlink(answer_at);
            self.unexplained -= 1;
        }
        true
    }

    /// Undoes steps up to the last one that has an alternative; answers where to go on, or nothing when there is none.
    fn go_back(&mut self) -> Option<usize> {
        loop {
            let Step { call, before, has_alternative } = self.steps.pop()?;
            self.effective[call / 64] &= !(1_u64 << (call % 64));
            self.register = before;
            if let Some(answer_at) = self.answer_at[call] {
                self.link(answer_at);
                self.unexplained += 1;
            }
            self.link(self.call_at[call]);
            if has_alternative {
                return Some(self.next[self.call_at[call]]);
            }
        }
    }

    fn unlink(&mut self, position: usize) {
        let (before, after) = (self.previous[position], self.next[position]);
        self.next[before] = after;
        self.previous[after] = before;
    }

    /// Takes back the newest [`unlink`](Self::unlink) that was not taken back.
    fn link(&mut self, position: usize) {
        let (before, after) = (self.previous[position], self.next[position]);
        self.next[before] = position;
        self.previous[after] = position;
    }

    fn remember_best(&mut self, stuck_at: usize) {
        if self.best.as_ref().is_none_or(|(explained, ..)| explained.len() < self.steps.len()) {
            let explained = self.steps.iter().map(|step| step.call).collect();
            self.best = Some((explained, self.register, stuck_at));
        }
    }

    fn violation(self, key: Key) -> Verdict {
        let (explained, register, stuck_at) = self.best.unwrap_or_default();
        let explained = explained.into_iter().map(|call| self.calls[call].clone()).collect();
        let stuck_at = self.calls[stuck_at].clone();
        Verdict::Violated(Box::new(Violation { key, explained, register, stuck_at }))
    }
}

//! The sequential meaning of one key: what each operation answers when nothing else happens at the same time.

use std::fmt;

/// A value of a key. A simulation writes each value once, so a value tells which write it came from.
pub type Value = u64;

/// What is stored under a key; `None` = nothing.
pub type Register = Option<Value>;

/// What a client asks of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reads.
    Get,
    /// Writes without a condition.
    Put(Value),
    /// Writes when the key holds `expected`.
    CompareAndSet {
        /// What the key must hold.
        expected: Value,
        /// What it holds afterwards.
        new: Value,
    },
    /// Writes when the key does not exist.
    Create(Value),
    /// Deletes, also when there is nothing.
    Delete,
}

/// What a client was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To a get.
    Found(Register),
    /// To a put, a compare-and-set or a create that was carried out, and to a delete: whether the key existed before.
    Done {
        /// Whether it existed.
        existed: bool,
    },
    /// To a compare-and-set or a create whose condition did not hold: what was there instead.
    Refused(Register),
}

impl Operation {
    /// What the operation answers on `before`, and what it leaves.
    pub fn apply(self, before: Register) -> (Answer, Register) {
        let done = Answer::Done { existed: before.is_some() };
        match self {
            Self::Get => (Answer::Found(before), before),
            Self::Put(value) => (done, Some(value)),
            Self::CompareAndSet { expected, new } if before == Some(expected) => (done, Some(new)),
            Self::Create(value) if before.is_none() => (done, Some(value)),
            Self::CompareAndSet { .. } | Self::Create(_) => (Answer::Refused(before), before),
            Self::Delete => (done, None),
        }
    }

    /// Whether it changes nothing whatever it finds.
    pub fn only_reads(self) -> bool {
        self == Self::Get
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => f.write_str("get"),
            Self::Put(value) => write!(f, "put {value}"),
            Self::CompareAndSet { expected, new } => write!(f, "compare-and-set {expected} -> {new}"),
            Self::Create(value) => write!(f, "create {value}"),
            Self::Delete => f.write_str("delete"),
        }
    }
}

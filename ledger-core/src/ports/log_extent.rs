use super::{BatchRefused, LogChange};

/// Which records a log holds: the arithmetic of G4 and G5 that every
/// [`LogStore`](super::LogStore) needs before it writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogExtent {
    /// Indexes of the first and the last record; `None` = no record.
    pub held: Option<(u64, u64)>,
    /// Index of the last purged record.
    pub purged: Option<u64>,
}

impl LogExtent {
    /// The extent after `change`, or why the change is refused (G4).
    pub fn after(self, change: &LogChange) -> Result<Self, BatchRefused> {
        match change {
            LogChange::Append(record) => self.appended(record.id.index),
            LogChange::TruncateAfter(index) => Ok(self.truncated(*index)),
            LogChange::PurgeThrough(id) => Ok(self.purged_through(id.index)),
            LogChange::SaveVote(_) | LogChange::SaveCommitted(_) | LogChange::SaveSigned(_) => Ok(self),
        }
    }

    /// The extent after all of `changes`, or the first refusal.
    pub fn after_all(self, changes: &[LogChange]) -> Result<Self, BatchRefused> {
        changes.iter().try_fold(self, Self::after)
    }

    fn appended(self, index: u64) -> Result<Self, BatchRefused> {
        let before = self.held.map(|(_, last)| last).or(self.purged);
        // An index after `u64::MAX` does not exist: saturating makes that append a refusal.
        if let Some(expected) = before.map(|before| before.saturating_add(1))
            && (index != expected || before == Some(index))
        {
            return Err(BatchRefused::NotNext { expected, found: index });
        }
        let first = self.held.map_or(index, |(first, _)| first);
        Ok(Self { held: Some((first, index)), ..self })
    }

    fn truncated(self, keep: Option<u64>) -> Self {
        let held = self.held.zip(keep).and_then(|((first, last), keep)| {
            let last = last.min(keep);
            (first <= last).then_some((first, last))
        });
        Self { held, ..self }
    }

    fn purged_through(self, index: u64) -> Self {
        if self.purged.is_some_and(|purged| index <= purged) {
            return self;
        }
        let held = self.held.and_then(|(first, last)| {
            let next = index.checked_add(1)?;
            (next <= last).then_some((first.max(next), last))
        });
        Self { held, purged: Some(index) }
    }
}

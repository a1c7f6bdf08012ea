//! What a decision wants committed: conditions, writes, and what goes into the audit log with them.

use crate::audit::AuditDraft;
use crate::millis::Millis;
use crate::ports::{Check, Write};
use crate::records::{Loaded, Stored};

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub checks: Vec<Check>,
    pub writes: Vec<Write>,
    pub drafts: Vec<AuditDraft>,
}

impl Plan {
    /// That a record that is only read is still as it was.
    pub(crate) fn hold<T>(&mut self, loaded: &Loaded<T>) {
        self.checks.push(Check { key: loaded.key.clone(), expect: loaded.unchanged() });
    }

    /// Replaces a record that is still as it was.
    pub(crate) fn replace<T: Stored>(&mut self, loaded: &Loaded<T>, value: &T, expires_at: Option<Millis>) {
        self.hold(loaded);
        self.writes.push(Write::Put { key: loaded.key.clone(), value: value.encode().into(), expires_at });
    }

    /// Removes a record that is still as it was.
    pub(crate) fn remove<T>(&mut self, loaded: &Loaded<T>) {
        self.hold(loaded);
        self.writes.push(Write::Delete { key: loaded.key.clone() });
    }

    pub(crate) fn audit(&mut self, draft: AuditDraft) {
        self.drafts.push(draft);
    }
}

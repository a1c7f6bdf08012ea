use super::{Auth, AuthError, RESENDS_MAX};
use crate::audit::{append, shard_of};
use crate::millis::Millis;
use crate::plan::Plan;
use crate::ports::{AuthStore, AuthStoreError, Commit, CommitId, Write};
use crate::records::{AuditEntry, AuditHead, Loaded, Stored};

/// What became of a plan.
pub(super) enum Committed {
    /// It is done.
    Applied,
    /// Something has changed since it was decided: read and decide anew.
    Conflict,
}

impl<S: AuthStore> Auth<S> {
    /// Commits a plan with what it wants in the log.
    pub(super) async fn commit(&self, mut plan: Plan, now: Millis) -> Result<Committed, AuthError> {
        // All drafts of a plan are about one user.
        if let Some(draft) = plan.drafts.first() {
            let shard = shard_of(draft.user);
            let head: Loaded<AuditHead> = self.load(AuditHead::key(self.tenant, shard), now).await?;
            let before = head.value().copied().unwrap_or_default();
            let (entries, after) = append(self.tenant, shard, before, &plan.drafts, now);
            plan.replace(&head, &after, None);
            for entry in entries {
                let key = AuditEntry::key(self.tenant, shard, entry.sequence);
                // The head is checked: nobody else has written an entry of this number.
                plan.writes.push(Write::Put { key, value: entry.encode().into(), expires_at: None });
            }
        }
        let id = CommitId::new(now, self.fresh.array());
        self.send(&Commit { id, checks: plan.checks, writes: plan.writes }, now).await
    }

    /// Sends a commit until it is known what became of it: by its id the store knows it again.
    async fn send(&self, commit: &Commit, now: Millis) -> Result<Committed, AuthError> {
        let mut resends = 0;
        loop {
            match self.store.commit(commit, now).await {
                Ok(_) => return Ok(Committed::Applied),
                Err(AuthStoreError::Conflict { .. }) => return Ok(Committed::Conflict),
                Err(AuthStoreError::UnknownOutcome { .. }) if resends < RESENDS_MAX => resends += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

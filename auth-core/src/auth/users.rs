use super::commit::Committed;
use super::sessions::By;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::audit::{AuditDraft, AuditEvent};
use crate::ids::UserId;
use crate::key::Key;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::ports::AuthStore;
use crate::records::{Actor, Loaded, Resource, User, UserSessions, UserState};
use crate::refusal::{Answer, RefusalReason};

impl<S: AuthStore> Auth<S> {
    /// Makes a user.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn create_user(&self, now: Millis) -> Result<UserId, AuthError> {
        for _ in 0..ATTEMPTS_MAX {
            let id = UserId::from_bytes(self.fresh.array());
            let user = User { state: UserState::Active, epoch: 1, created_at: now };
            let mut plan = Plan::default();
            plan.replace(&absent(User::key(self.tenant, id)), &user, None);
            plan.replace(&absent(UserSessions::key(self.tenant, id)), &UserSessions::default(), None);
            plan.audit(AuditDraft {
                event: AuditEvent::UserRegistered,
                actor: Actor::User(id),
                user: id,
                resource: Resource::User(id),
                reason: None,
            });
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(id);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Disables a user: all sessions and tokens end in the same commit, and no new ones are made.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn disable_user(&self, user: UserId, now: Millis) -> Result<Answer<()>, AuthError> {
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.load_user(user, now).await?;
            let Some(value) = loaded.value() else {
                return Ok(Err(RefusalReason::UserUnknown).into());
            };
            if value.state == UserState::Disabled {
                return Ok(Answer::Granted(()));
            }
            let epoch = value.epoch.saturating_add(1);
            let next = User { state: UserState::Disabled, epoch, ..value.clone() };
            let mut plan = Plan::default();
            plan.replace(&loaded, &next, None);
            plan.audit(AuditDraft {
                event: AuditEvent::UserDisabled,
                actor: By::Operator(user).actor(),
                user,
                resource: Resource::User(user),
                reason: None,
            });
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(()));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }
}

pub(super) fn absent<T>(key: Key) -> Loaded<T> {
    Loaded { key, found: None }
}

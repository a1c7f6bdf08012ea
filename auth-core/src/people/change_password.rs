use auth_credentials::opaque_token::{self, TokenHash};
use auth_credentials::password::{HashError, HashMemory, Password, PasswordHash, PasswordHasher, Verdict};

use super::reset_password::{draft, set_password};
use super::sign_in::ReadPassword;
use crate::audit::{AuditDraft, AuditEvent};
use crate::ids::SessionId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::outbox::{Prepared, post};
use crate::plan::Plan;
use crate::records::{Actor, EndReason, Loaded, Resource, Session, StoredPassword, User, UserSessions};
use crate::refusal::RefusalReason;
use crate::sessions::{SessionRows, end_family, row_end};
use crate::settings::SessionSettings;

/// The first half of a change of password: what the current one is compared with.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    pub(crate) known: ReadPassword,
}

impl PasswordChange {
    /// Compares the current password, on a thread of the caller's.
    ///
    /// # Errors
    ///
    /// [`HashError`]: nothing was compared, and the change ends here.
    pub fn verify(
        &self,
        hasher: &PasswordHasher,
        current: &Password,
        memory: &mut HashMemory,
    ) -> Result<Verdict, HashError> {
        hasher.verify(current, &self.known.hash, memory)
    }
}

/// What a change is decided from. The session was judged.
pub(crate) struct ChangeRows {
    pub session: SessionRows,
    pub user: Loaded<User>,
    pub list: Loaded<UserSessions>,
    pub password: Loaded<StoredPassword>,
}

/// Sets a new password. The session goes on under a new token; all others, and all tokens, end in the same commit.
pub(crate) fn change_password(
    tenant: Tenant,
    rows: &ChangeRows,
    known: &ReadPassword,
    (hash, token): (&PasswordHash, TokenHash<opaque_token::Session>),
    notice: Option<&Prepared>,
    settings: &SessionSettings,
    now: Millis,
) -> Result<Plan, RefusalReason> {
    let session = rows.session.session.value().ok_or(RefusalReason::Unknown)?;
    let user = rows.user.value().ok_or(RefusalReason::UserUnknown)?;
    if session.user != known.user || !known.is_still(&rows.password) {
        return Err(RefusalReason::Credentials);
    }
    let mut plan = Plan::default();
    set_password(&mut plan, (&rows.user, user), &rows.password, hash, now);
    let epoch = user.epoch.saturating_add(1);
    let next = Session { epoch, token, family: None, ..session.clone() };
    plan.replace(&rows.session.session, &next, Some(row_end(&next, settings)));
    if let Some(family) = &rows.session.family {
        end_family(&mut plan, family, EndReason::Replaced, now);
    }
    plan.replace(&rows.list, &UserSessions { sessions: vec![rows.session.id] }, None);
    plan.audit(draft(AuditEvent::PasswordChanged, known.user));
    if let Some(notice) = notice {
        post(&mut plan, tenant, notice);
    }
    Ok(plan)
}

/// Says in the log that somebody with a session did not know its user's password.
pub(crate) fn change_refused(known: &ReadPassword, session: SessionId) -> Plan {
    let mut plan = Plan::default();
    plan.audit(AuditDraft {
        event: AuditEvent::LoginFailed,
        actor: Actor::System,
        user: known.user,
        resource: Resource::Session(session),
        reason: None,
    });
    plan
}

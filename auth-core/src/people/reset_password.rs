use auth_credentials::opaque_token::{ResetPassword, TokenHash};
use auth_credentials::password::PasswordHash;

use super::sign_in::nobody;
use crate::audit::{AuditDraft, AuditEvent};
use crate::email_address::AddressHash;
use crate::ids::UserId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::outbox::{Prepared, post};
use crate::plan::Plan;
use crate::records::{Actor, Loaded, PasswordReset, Resource, StoredPassword, User};
use crate::refusal::RefusalReason;
use crate::sessions::admit;

/// What a reset makes: a token that sets a new password, and the mail that has it.
pub(crate) struct ResetMade {
    pub token: TokenHash<ResetPassword>,
    pub reset: PasswordReset,
    pub mail: Prepared,
}

/// Says in the log that a reset was asked for, and makes one when there is somebody for whom.
pub(crate) fn request_reset(
    tenant: Tenant,
    address: AddressHash,
    somebody: Option<(&Loaded<User>, &ResetMade)>,
) -> Plan {
    let mut plan = Plan::default();
    if let Some((user, made)) = somebody {
        plan.hold(user);
        let place = Loaded { key: PasswordReset::key(tenant, &made.token), found: None };
        plan.replace(&place, &made.reset, Some(made.reset.ends_at));
        post(&mut plan, tenant, &made.mail);
    }
    plan.audit(AuditDraft {
        event: AuditEvent::PasswordResetRequested,
        actor: Actor::System,
        user: somebody.map_or_else(|| nobody(address), |(_, made)| made.reset.user),
        resource: Resource::Address(address.id()),
        reason: None,
    });
    plan
}

/// What the confirmation of a reset is decided from.
pub(crate) struct ResetRows {
    pub token: Loaded<PasswordReset>,
    pub user: Loaded<User>,
    pub password: Loaded<StoredPassword>,
}

/// Sets a new password by a token: it, all other resets, all sessions and all tokens of the user end in the same commit. Second
/// factors stay as they are.
pub(crate) fn confirm_reset(
    tenant: Tenant,
    rows: &ResetRows,
    hash: &PasswordHash,
    notice: Option<&Prepared>,
    now: Millis,
) -> Result<Plan, RefusalReason> {
    let reset = rows.token.value().ok_or(RefusalReason::Unknown)?;
    if now >= reset.ends_at {
        return Err(RefusalReason::ExpiredAbsolute);
    }
    admit(rows.user.value(), reset.epoch)?;
    let mut plan = Plan::default();
    plan.remove(&rows.token);
    let user = rows.user.value().ok_or(RefusalReason::UserUnknown)?;
    set_password(&mut plan, (&rows.user, user), &rows.password, hash, now);
    plan.audit(draft(AuditEvent::PasswordResetCompleted, reset.user));
    if let Some(notice) = notice {
        post(&mut plan, tenant, notice);
    }
    Ok(plan)
}

/// A new password, and a new epoch: what was made with the old one is dead.
pub(super) fn set_password(
    plan: &mut Plan,
    (row, user): (&Loaded<User>, &User),
    password: &Loaded<StoredPassword>,
    hash: &PasswordHash,
    now: Millis,
) {
    plan.replace(row, &User { epoch: user.epoch.saturating_add(1), ..user.clone() }, None);
    let number = password.value().map_or(0, |stored| stored.number).saturating_add(1);
    plan.replace(password, &StoredPassword { number, set_at: now, hash: hash.clone() }, None);
}

pub(super) fn draft(event: AuditEvent, user: UserId) -> AuditDraft {
    AuditDraft { event, actor: Actor::User(user), user, resource: Resource::User(user), reason: None }
}

use auth_credentials::opaque_token::{self, TokenHash};

use super::end::{SessionRows, end_family};
use super::validate::row_end;
use crate::audit::{AuditDraft, AuditEvent};
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{Actor, AssuranceLevel, EndReason, Loaded, Resource, Session, SignInMethod, User};
use crate::settings::SessionSettings;

/// How a user proved who they are, as whoever checked it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication {
    /// With what.
    pub method: SignInMethod,
    /// How well.
    pub level: AssuranceLevel,
}

/// Gives a session that was judged a new token: the old one and its refresh tokens are dead. What was proved now counts,
/// not what was proved before: who wants to keep level two proves it again. The absolute time begins anew.
pub(crate) fn reauthenticate(
    rows: &SessionRows,
    session: &Session,
    user: &Loaded<User>,
    (authentication, token): (&Authentication, TokenHash<opaque_token::Session>),
    settings: &SessionSettings,
    now: Millis,
) -> Plan {
    let mut plan = Plan::default();
    let next = Session {
        method: authentication.method,
        level: authentication.level,
        authenticated_at: session.authenticated_at.max(now),
        last_seen_at: session.last_seen_at.max(now),
        ends_at: now.after(settings.timeouts(session.kind).absolute),
        token,
        family: None,
        ..session.clone()
    };
    plan.hold(user);
    plan.replace(&rows.session, &next, Some(row_end(&next, settings)));
    if let Some(family) = &rows.family {
        end_family(&mut plan, family, EndReason::Replaced, now);
    }
    plan.audit(AuditDraft {
        event: AuditEvent::StepUp,
        actor: Actor::User(session.user),
        user: session.user,
        resource: Resource::Session(rows.id),
        reason: None,
    });
    plan
}

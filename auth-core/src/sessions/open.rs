use auth_credentials::opaque_token::{self, TokenHash};

use super::end::{Ending, SessionRows, end, end_expired, sort};
use super::reauthenticate::Authentication;
use super::validate::{admit, row_end};
use crate::audit::{AuditDraft, AuditEvent};
use crate::ids::{SessionId, UserId};
use crate::key::Tenant;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{
    Actor, EndReason, Loaded, Resource, Session, SessionKind, SessionState, User, UserSessions,
};
use crate::refusal::RefusalReason;
use crate::settings::SessionSettings;

/// A sign-in that somebody has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignIn {
    /// Who.
    pub user: UserId,
    /// For what.
    pub kind: SessionKind,
    /// How it was proved.
    pub authentication: Authentication,
}

/// What opening a session is decided from.
pub(crate) struct Opening<'a> {
    pub tenant: Tenant,
    pub sign_in: &'a SignIn,
    pub id: SessionId,
    pub token: TokenHash<opaque_token::Session>,
    pub user: &'a Loaded<User>,
    pub list: &'a Loaded<UserSessions>,
    /// All that are in the list.
    pub others: &'a [SessionRows],
    pub settings: &'a SessionSettings,
    pub now: Millis,
}

/// Opens a session. Those that have expired leave the list, and as many others end as the cap asks for, those that were used
/// least recently first: all in the commit that makes the new one.
pub(crate) fn open(opening: &Opening<'_>) -> Result<Plan, RefusalReason> {
    let Opening { sign_in, id, user, list, settings, now, .. } = *opening;
    let epoch = user.value().ok_or(RefusalReason::UserUnknown)?.epoch;
    admit(user.value(), epoch)?;
    let mut plan = Plan::default();
    let evicting = Ending {
        user_id: sign_in.user,
        actor: Actor::System,
        event: AuditEvent::UserSessionRevoked,
        reason: EndReason::Evicted,
        settings,
        now,
    };
    let (mut live, expired) = sort(user, opening.others, settings, now);
    end_expired(&mut plan, &expired, &evicting);
    while live.len() >= settings.per_user_max.max(1) {
        let oldest = live.iter().enumerate().min_by_key(|(_, rows)| age_order(rows));
        let Some(place) = oldest.map(|(place, _)| place) else { break };
        end(&mut plan, live.remove(place), &evicting);
    }
    let session = Session {
        user: sign_in.user,
        state: SessionState::Live,
        kind: sign_in.kind,
        method: sign_in.authentication.method,
        level: sign_in.authentication.level,
        epoch,
        created_at: now,
        authenticated_at: now,
        last_seen_at: now,
        ends_at: now.after(settings.timeouts(sign_in.kind).absolute),
        token: opening.token,
        family: None,
    };
    let absent = Loaded { key: Session::key(opening.tenant, id), found: None };
    plan.hold(user);
    plan.replace(&absent, &session, Some(row_end(&session, settings)));
    let sessions = live.iter().map(|rows| rows.id).chain([id]).collect();
    plan.replace(list, &UserSessions { sessions }, None);
    plan.audit(AuditDraft {
        event: AuditEvent::UserLogin,
        actor: Actor::User(sign_in.user),
        user: sign_in.user,
        resource: Resource::Session(id),
        reason: None,
    });
    Ok(plan)
}

fn age_order(rows: &SessionRows) -> Option<(Millis, Millis, SessionId)> {
    rows.session.value().map(|session| (session.last_seen_at, session.created_at, rows.id))
}

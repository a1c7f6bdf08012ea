use super::row_end;
use crate::audit::{AuditDraft, AuditEvent};
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{
    Actor, EndReason, FamilyState, Loaded, Previous, RefreshFamily, Resource, Session, User, UserSessions,
};
use crate::refusal::RefusalReason;
use crate::sessions::{Ending, SessionRows, admit, end, judge, row_end as session_row_end, touched};
use crate::settings::AuthSettings;
use crate::tokens::{RefreshToken, SEALED_SUCCESSOR_BYTES, TokenHash, TokenHasher};
use auth_credentials::opaque_token::Refresh;

/// What a token is to its family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The current token: it is exchanged.
    Current,
    /// The one before, within the grace time: it yields the current one once more.
    JustExchanged { successor: [u8; SEALED_SUCCESSOR_BYTES], key_id: u32 },
    /// Exchanged before: either this one is stolen, or the one that came from it.
    Reused,
}

/// What a token of ours is to its family, after everything that could refuse it was asked.
///
/// That the current token has not been used need not be asked: had it been, it would be the previous one, and the one that is
/// previous now would be older.
pub(crate) fn place(
    family: &RefreshFamily,
    session: Option<&Session>,
    user: Option<&User>,
    (token, hasher): (&RefreshToken, &TokenHasher),
    settings: &AuthSettings,
    now: Millis,
) -> Result<Place, RefusalReason> {
    if let FamilyState::Dead { reason, .. } = family.state {
        return Err(RefusalReason::Ended(reason));
    }
    admit(user, family.epoch)?;
    if now >= family.ends_at {
        return Err(RefusalReason::ExpiredAbsolute);
    }
    judge(session.ok_or(RefusalReason::Unknown)?, user, &settings.sessions, now)?;
    if token.generation() == family.generation && token.is(&family.current, hasher) {
        return Ok(Place::Current);
    }
    if let Some(previous) = &family.previous
        && token.is(&previous.token, hasher)
        && now < previous.rotated_at.after(settings.refresh.grace)
    {
        let (successor, key_id) = (previous.successor, family.current.key_id());
        return Ok(Place::JustExchanged { successor, key_id });
    }
    Ok(Place::Reused)
}

/// Makes the successor the current token. The session was used: that is written down when it is due.
pub(crate) fn rotate(
    loaded: &Loaded<RefreshFamily>,
    session: &Loaded<Session>,
    user: &Loaded<User>,
    (successor, sealed): (TokenHash<Refresh>, [u8; SEALED_SUCCESSOR_BYTES]),
    settings: &AuthSettings,
    now: Millis,
) -> Option<Plan> {
    let (family, used) = (loaded.value()?, session.value()?);
    let mut plan = Plan::default();
    let next = RefreshFamily {
        generation: family.generation.checked_add(1)?,
        current: successor,
        previous: Some(Previous { token: family.current, rotated_at: now, successor: sealed }),
        ..family.clone()
    };
    plan.hold(user);
    plan.replace(loaded, &next, Some(row_end(&next)));
    match touched(used, &settings.sessions, now) {
        Some(touched) => {
            plan.replace(session, &touched, Some(session_row_end(&touched, &settings.sessions)));
        }
        None => plan.hold(session),
    }
    Some(plan)
}

/// Ends a family and its session because a token came twice.
pub(crate) fn reused(
    token: &RefreshToken,
    rows: &SessionRows,
    list: &Loaded<UserSessions>,
    family: &RefreshFamily,
    settings: &AuthSettings,
    now: Millis,
) -> Plan {
    let mut plan = Plan::default();
    plan.audit(AuditDraft {
        event: AuditEvent::RefreshTokenReused,
        actor: Actor::System,
        user: family.user,
        resource: Resource::RefreshToken(token.family()),
        reason: Some(EndReason::RefreshReused),
    });
    let ending = Ending {
        user_id: family.user,
        actor: Actor::System,
        event: AuditEvent::UserSessionRevoked,
        reason: EndReason::RefreshReused,
        settings: &settings.sessions,
        now,
    };
    end(&mut plan, rows, &ending);
    let listed = list.value().map(|list| list.sessions.as_slice()).unwrap_or_default();
    let left = listed.iter().copied().filter(|session| *session != rows.id).collect();
    plan.replace(list, &UserSessions { sessions: left }, None);
    plan
}

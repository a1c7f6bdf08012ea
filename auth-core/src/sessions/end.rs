use super::validate::{admit, judge, row_end};
use crate::audit::{AuditDraft, AuditEvent};
use crate::ids::{SessionId, UserId};
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{
    Actor, EndReason, FamilyState, Loaded, RefreshFamily, Resource, Session, SessionState, User, UserSessions,
};
use crate::refusal::RefusalReason;
use crate::settings::SessionSettings;

/// A session with its refresh tokens, as far as there are rows.
pub(crate) struct SessionRows {
    pub id: SessionId,
    pub session: Loaded<Session>,
    pub family: Option<Loaded<RefreshFamily>>,
}

/// Who ends sessions of a user, and what they are told the reason is.
#[derive(Clone, Copy)]
pub(crate) struct Ending<'a> {
    pub user_id: UserId,
    pub actor: Actor,
    pub event: AuditEvent,
    pub reason: EndReason,
    pub settings: &'a SessionSettings,
    pub now: Millis,
}

impl Ending<'_> {
    fn draft(&self, resource: Resource) -> AuditDraft {
        let Self { event, actor, user_id, reason, .. } = *self;
        AuditDraft { event, actor, user: user_id, resource, reason: Some(reason) }
    }
}

/// Ends a session and its refresh tokens, if they live, and says so in the log. The user's list of sessions is the caller's.
pub(crate) fn end(plan: &mut Plan, rows: &SessionRows, ending: &Ending<'_>) {
    end_rows(plan, rows, ending);
    plan.audit(ending.draft(Resource::Session(rows.id)));
}

/// The same without the log.
pub(crate) fn end_rows(plan: &mut Plan, rows: &SessionRows, ending: &Ending<'_>) {
    let Ending { reason, now, settings, .. } = *ending;
    if let Some(session) = rows.session.value().filter(|session| session.state == SessionState::Live) {
        let ended = Session { state: SessionState::Ended { at: now, reason }, ..session.clone() };
        plan.replace(&rows.session, &ended, Some(row_end(&ended, settings)));
    }
    if let Some(loaded) = &rows.family {
        end_family(plan, loaded, reason, now);
    }
}

/// Ends refresh tokens, if they live. The row stays until their own end: whatever comes of them is refused knowingly.
pub(crate) fn end_family(plan: &mut Plan, loaded: &Loaded<RefreshFamily>, reason: EndReason, now: Millis) {
    let Some(family) = loaded.value().filter(|family| family.state == FamilyState::Live) else { return };
    // The sealed successor is of no use to anybody any more.
    let dead = RefreshFamily { state: FamilyState::Dead { at: now, reason }, ..family.clone() };
    plan.replace(loaded, &dead, Some(crate::refresh::row_end(&dead)));
}

/// Ends one session of a user. `None`: it has been ended before.
pub(crate) fn end_one(list: &Loaded<UserSessions>, rows: &SessionRows, ending: &Ending<'_>) -> Option<Plan> {
    let sessions = &list.value()?.sessions;
    let lives = rows
        .session
        .value()
        .is_some_and(|session| session.state == SessionState::Live && session.user == ending.user_id);
    if !lives || !sessions.contains(&rows.id) {
        return None;
    }
    let mut plan = Plan::default();
    end(&mut plan, rows, ending);
    let left = sessions.iter().copied().filter(|session| *session != rows.id).collect();
    plan.replace(list, &UserSessions { sessions: left }, None);
    Some(plan)
}

/// Ends all sessions of a user but one, which has to live. How many it ended.
pub(crate) fn end_others(
    kept: SessionId,
    user: &Loaded<User>,
    list: &Loaded<UserSessions>,
    all: &[SessionRows],
    ending: &Ending<'_>,
) -> Result<(Plan, usize), RefusalReason> {
    let rows = all.iter().find(|rows| rows.id == kept).ok_or(RefusalReason::Unknown)?;
    let session = rows.session.value().ok_or(RefusalReason::Unknown)?;
    judge(session, user.value(), ending.settings, ending.now)?;
    let mut plan = Plan::default();
    let (live, expired) = sort(user, all, ending.settings, ending.now);
    end_expired(&mut plan, &expired, ending);
    let others = live.iter().filter(|rows| rows.id != kept);
    let ended = others.clone().count();
    others.for_each(|rows| end(&mut plan, rows, ending));
    plan.hold(user);
    plan.hold(&rows.session);
    plan.replace(list, &UserSessions { sessions: vec![kept] }, None);
    Ok((plan, ended))
}

/// Ends whatever a user has, by one number.
pub(crate) fn end_all(user: &Loaded<User>, ending: &Ending<'_>) -> Result<(Plan, User), RefusalReason> {
    let value = user.value().ok_or(RefusalReason::UserUnknown)?;
    let next = User { epoch: value.epoch.saturating_add(1), ..value.clone() };
    let mut plan = Plan::default();
    plan.replace(user, &next, None);
    plan.audit(ending.draft(Resource::User(ending.user_id)));
    Ok((plan, next))
}

/// The listed sessions that live, and those that time has ended, with the reason if it is still known. Those of another epoch
/// are neither: their end is in the log already.
pub(super) fn sort<'r>(
    user: &Loaded<User>,
    all: &'r [SessionRows],
    settings: &SessionSettings,
    now: Millis,
) -> (Vec<&'r SessionRows>, Vec<(&'r SessionRows, Option<EndReason>)>) {
    let (mut live, mut expired) = (Vec::new(), Vec::new());
    for rows in all {
        let Some(session) = rows.session.value() else {
            // Rows go when they have been expired for long.
            expired.push((rows, None));
            continue;
        };
        if session.state != SessionState::Live || admit(user.value(), session.epoch).is_err() {
            continue;
        }
        match super::validate::expiry(session, settings, now) {
            None => live.push(rows),
            reason => expired.push((rows, reason)),
        }
    }
    (live, expired)
}

/// Makes the end of expired sessions final, and says so in the log: without the write a server whose clock is behind could still
/// touch one that is not in the list any more.
pub(super) fn end_expired(
    plan: &mut Plan,
    expired: &[(&SessionRows, Option<EndReason>)],
    ending: &Ending<'_>,
) {
    for (rows, reason) in expired {
        let known = reason.unwrap_or(EndReason::ExpiredIdle);
        let by_time =
            Ending { actor: Actor::System, event: AuditEvent::UserSessionExpired, reason: known, ..*ending };
        end_rows(plan, rows, &by_time);
        plan.audit(AuditDraft { reason: *reason, ..by_time.draft(Resource::Session(rows.id)) });
    }
}

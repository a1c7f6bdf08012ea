use std::time::Duration;

use super::live::is_touch_due;
use crate::millis::Millis;
use crate::records::{EndReason, Loaded, Session, SessionState, User, UserState};
use crate::refusal::RefusalReason;
use crate::settings::SessionSettings;
use crate::tokens::{SessionToken, TokenHasher};

/// How long a row stays behind the end of its session, so that the log can say why somebody was not let in.
const KEPT_BEHIND_THE_END: Duration = Duration::from_secs(86_400);

/// Whether the token is that of the session whose id it has.
pub(crate) fn identify<'s>(
    token: &SessionToken,
    session: &'s Loaded<Session>,
    hasher: &TokenHasher,
) -> Result<&'s Session, RefusalReason> {
    let session = session.value().ok_or(RefusalReason::Unknown)?;
    if token.is(&session.token, hasher) { Ok(session) } else { Err(RefusalReason::Unknown) }
}

/// Whether a session lets its holder in.
pub(crate) fn judge(
    session: &Session,
    user: Option<&User>,
    settings: &SessionSettings,
    now: Millis,
) -> Result<(), RefusalReason> {
    if let SessionState::Ended { reason, .. } = session.state {
        return Err(RefusalReason::Ended(reason));
    }
    admit(user, session.epoch)?;
    match expiry(session, settings, now) {
        Some(EndReason::ExpiredIdle) => Err(RefusalReason::ExpiredIdle),
        Some(_) => Err(RefusalReason::ExpiredAbsolute),
        None => Ok(()),
    }
}

/// Whether the user's row lets in what was made in this epoch. Another one is refused also when it is ahead: then the row was
/// restored from a backup.
pub(crate) fn admit(user: Option<&User>, epoch: u64) -> Result<(), RefusalReason> {
    let user = user.ok_or(RefusalReason::UserUnknown)?;
    if user.state != UserState::Active {
        return Err(RefusalReason::UserDisabled);
    }
    if user.epoch == epoch { Ok(()) } else { Err(RefusalReason::Epoch) }
}

/// Why time has ended a session, if it has.
pub(super) fn expiry(session: &Session, settings: &SessionSettings, now: Millis) -> Option<EndReason> {
    if now >= session.ends_at {
        return Some(EndReason::ExpiredAbsolute);
    }
    (now >= idle_end(session, settings)).then_some(EndReason::ExpiredIdle)
}

/// Until when the row of a session is kept.
pub(crate) fn row_end(session: &Session, settings: &SessionSettings) -> Millis {
    let end = match session.state {
        SessionState::Live => idle_end(session, settings).min(session.ends_at),
        SessionState::Ended { at, .. } => at,
    };
    end.after(KEPT_BEHIND_THE_END)
}

/// The session as used now, when that is due. Clocks that go back do not make it older.
pub(crate) fn touched(session: &Session, settings: &SessionSettings, now: Millis) -> Option<Session> {
    is_touch_due(session, settings, now)
        .then(|| Session { last_seen_at: session.last_seen_at.max(now), ..session.clone() })
}

fn idle_end(session: &Session, settings: &SessionSettings) -> Millis {
    session.last_seen_at.after(settings.timeouts(session.kind).idle)
}

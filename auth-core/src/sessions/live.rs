use std::fmt;
use std::time::Duration;

use super::StepUpNeeded;
use crate::ids::{SessionId, UserId};
use crate::millis::Millis;
use crate::ports::Version;
use crate::records::{AssuranceLevel, Loaded, Session, SessionKind, SignInMethod};
use crate::settings::SessionSettings;

/// A session that was found valid: from where a server takes who is asking. Only a check makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct LiveSession {
    id: SessionId,
    pub(crate) record: Session,
    pub(crate) version: Version,
    level: AssuranceLevel,
    touch_due: bool,
}

impl LiveSession {
    /// Of a row that was judged at this time.
    pub(crate) fn of(
        id: SessionId,
        loaded: &Loaded<Session>,
        settings: &SessionSettings,
        now: Millis,
    ) -> Option<Self> {
        let (record, version) = loaded.found.clone()?;
        let touch_due = is_touch_due(&record, settings, now);
        Some(Self { id, level: level_at(&record, settings, now), record, version, touch_due })
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        self.record.user
    }

    /// For what.
    pub fn kind(&self) -> SessionKind {
        self.record.kind
    }

    /// How the user last proved who they are.
    pub fn method(&self) -> SignInMethod {
        self.record.method
    }

    /// How well it is proved now. A remembered session has level one when the time without use of a browser has passed since
    /// then, whether or not it was used.
    pub fn level(&self) -> AssuranceLevel {
        self.level
    }

    /// The user's epoch: tokens that are made for this session carry it.
    pub fn epoch(&self) -> u64 {
        self.record.epoch
    }

    /// Since when it exists.
    pub fn created_at(&self) -> Millis {
        self.record.created_at
    }

    /// When the user last proved who they are.
    pub fn authenticated_at(&self) -> Millis {
        self.record.authenticated_at
    }

    /// When it was last used, within a tenth of its idle time.
    pub fn last_seen_at(&self) -> Millis {
        self.record.last_seen_at
    }

    /// When it ends, however much it is used.
    pub fn ends_at(&self) -> Millis {
        self.record.ends_at
    }

    /// Whether its use should be written down: at most once per tenth of its idle time.
    pub fn is_touch_due(&self) -> bool {
        self.touch_due
    }

    /// Whether it is good enough for a sensitive operation.
    ///
    /// # Errors
    ///
    /// [`StepUpNeeded`]: ask the user to prove anew who they are.
    pub fn require(&self, level: AssuranceLevel, age_max: Duration, now: Millis) -> Result<(), StepUpNeeded> {
        let is_recent = now < self.record.authenticated_at.after(age_max);
        if self.level >= level && is_recent { Ok(()) } else { Err(StepUpNeeded { level, age_max }) }
    }
}

/// Nothing of its token.
impl fmt::Debug for LiveSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} of {}, {:?}, level {:?}",
            self.id, self.record.user, self.record.kind, self.level
        )
    }
}

pub(super) fn is_touch_due(session: &Session, settings: &SessionSettings, now: Millis) -> bool {
    now >= session.last_seen_at.after(settings.timeouts(session.kind).idle / 10)
}

fn level_at(session: &Session, settings: &SessionSettings, now: Millis) -> AssuranceLevel {
    let is_recent = now < session.authenticated_at.after(settings.web.idle);
    match session.kind {
        SessionKind::RememberedWeb if !is_recent => AssuranceLevel::One,
        _ => session.level,
    }
}

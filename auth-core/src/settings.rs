//! What an operator decides about sessions and refresh tokens.

use std::time::Duration;

use crate::records::{SESSIONS_PER_USER_LIMIT, SessionKind};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// When a session ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Without use.
    pub idle: Duration,
    /// Since the user last proved who they are, however much it is used.
    pub absolute: Duration,
}

/// Settings of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSettings {
    /// Browsers: 30 minutes, 12 hours (NIST SP 800-63B-4, level two).
    pub web: Timeouts,
    /// Browsers that the user asked to remember: 30 days (level one; without use as well, for it is what was asked for).
    pub remembered_web: Timeouts,
    /// The command line: 7 days, 30 days.
    pub cli: Timeouts,
    /// Programs: 30 days, 90 days.
    pub sdk: Timeouts,
    /// Sessions of a user, 1 to [`SESSIONS_PER_USER_LIMIT`]: 10. A newer one takes the place of the one that was used
    /// least recently.
    pub per_user_max: usize,
}

impl SessionSettings {
    /// Of a kind of session.
    pub fn timeouts(&self, kind: SessionKind) -> Timeouts {
        match kind {
            SessionKind::Web => self.web,
            SessionKind::RememberedWeb => self.remembered_web,
            SessionKind::Cli => self.cli,
            SessionKind::Sdk => self.sdk,
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            web: Timeouts { idle: MINUTE * 30, absolute: HOUR * 12 },
            remembered_web: Timeouts { idle: DAY * 30, absolute: DAY * 30 },
            cli: Timeouts { idle: DAY * 7, absolute: DAY * 30 },
            sdk: Timeouts { idle: DAY * 30, absolute: DAY * 90 },
            per_user_max: 10,
        }
    }
}

/// Settings of refresh tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshSettings {
    /// How long a family lives, however much it is used: 30 days.
    pub absolute: Duration,
    /// How long the token that was exchanged last yields the same successor again: 10 seconds. Within it a thief is not
    /// told from a client whose reply was lost; with 0 every token works once, and parallel requests end the session.
    pub grace: Duration,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self { absolute: DAY * 30, grace: Duration::from_secs(10) }
    }
}

/// Settings of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// Of sessions.
    pub sessions: SessionSettings,
    /// Of refresh tokens.
    pub refresh: RefreshSettings,
}

/// A setting contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Nobody could use such a session, or idling would outlast it.
    #[error("{kind:?} sessions: the idle time has to be above zero and at most the absolute one")]
    Timeouts {
        /// Of which kind.
        kind: SessionKind,
    },
    /// Out of range.
    #[error("a user may have 1 to {SESSIONS_PER_USER_LIMIT} sessions, not {per_user_max}")]
    SessionsPerUser {
        /// What was asked for.
        per_user_max: usize,
    },
    /// Refresh tokens that nobody could use, or whose theft would never be noticed.
    #[error("refresh tokens: the absolute time has to be above zero, and the grace time below a tenth of it")]
    Refresh,
}

impl AuthSettings {
    /// Refuses settings that contradict themselves.
    ///
    /// # Errors
    ///
    /// [`SettingsError`].
    pub fn validate(&self) -> Result<(), SettingsError> {
        for kind in SessionKind::ALL {
            let timeouts = self.sessions.timeouts(*kind);
            if timeouts.idle.is_zero() || timeouts.idle > timeouts.absolute {
                return Err(SettingsError::Timeouts { kind: *kind });
            }
        }
        let per_user_max = self.sessions.per_user_max;
        if per_user_max == 0 || per_user_max > SESSIONS_PER_USER_LIMIT {
            return Err(SettingsError::SessionsPerUser { per_user_max });
        }
        if self.refresh.absolute.is_zero() || self.refresh.grace >= self.refresh.absolute / 10 {
            return Err(SettingsError::Refresh);
        }
        Ok(())
    }
}

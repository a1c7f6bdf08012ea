//! What an operator decides about people, their mails, sessions and refresh tokens.

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

/// Settings of people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeopleSettings {
    /// Whether somebody may sign in with an address that they have not verified: not. Where it is on, of several who claimed an
    /// address it is whoever did last, until one verifies it.
    pub sign_in_before_verification: bool,
    /// How long the link in a mail verifies an address: 24 hours.
    pub verification_lifetime: Duration,
    /// How long the link in a mail sets a new password: 30 minutes.
    pub reset_lifetime: Duration,
}

impl Default for PeopleSettings {
    fn default() -> Self {
        Self { sign_in_before_verification: false, verification_lifetime: DAY, reset_lifetime: MINUTE * 30 }
    }
}

/// Settings of mails that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxSettings {
    /// How often a mail is tried: 8 times, 1 to 100. Then it is given up.
    pub attempts_max: u8,
    /// How long whoever claimed a mail has for it: 2 minutes. Then somebody else may claim it, and it may be sent twice.
    pub claim: Duration,
    /// How long after the first failure it is tried again: 1 minute. Twice as long after each one more.
    pub retry_first: Duration,
    /// At most: 1 hour.
    pub retry_max: Duration,
    /// How long a mail without a token is of use: 24 hours.
    pub notice_lifetime: Duration,
    /// How long it is kept why a mail was given up: 30 days.
    pub dead_kept: Duration,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            attempts_max: 8,
            claim: MINUTE * 2,
            retry_first: MINUTE,
            retry_max: HOUR,
            notice_lifetime: DAY,
            dead_kept: DAY * 30,
        }
    }
}

/// Settings of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthSettings {
    /// Of sessions.
    pub sessions: SessionSettings,
    /// Of refresh tokens.
    pub refresh: RefreshSettings,
    /// Of people.
    pub people: PeopleSettings,
    /// Of mails that wait.
    pub outbox: OutboxSettings,
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
    /// Links that nobody could follow.
    #[error("links in mails have to live for some time")]
    Links,
    /// Mails that nobody could send.
    #[error("mails: 1 to 100 attempts, all times above zero, and the first retry not behind the last")]
    Outbox,
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
        if self.people.verification_lifetime.is_zero() || self.people.reset_lifetime.is_zero() {
            return Err(SettingsError::Links);
        }
        let outbox = &self.outbox;
        let times = [outbox.claim, outbox.retry_first, outbox.notice_lifetime, outbox.dead_kept];
        if !(1..=100).contains(&outbox.attempts_max)
            || times.iter().any(Duration::is_zero)
            || outbox.retry_first > outbox.retry_max
        {
            return Err(SettingsError::Outbox);
        }
        Ok(())
    }
}

use crate::records::stored_enum;

stored_enum! {
    /// What can be in the log. Each of them has an emitter; a test says so.
    AuditEvent: u16, "event" {
        /// A user was made.
        UserRegistered = 1,
        /// An operator disabled a user.
        UserDisabled = 2,
        /// A session was opened.
        UserLogin = 3,
        /// A user signed out.
        UserLogout = 4,
        /// A session, or all of a user, was ended by somebody or by a rule.
        UserSessionRevoked = 5,
        /// A session had expired when somebody looked.
        UserSessionExpired = 6,
        /// A user proved anew who they are, within a session.
        StepUp = 7,
        /// A refresh token was revoked.
        RefreshTokenRevoked = 8,
        /// A refresh token came that had been exchanged before: it may have been stolen.
        RefreshTokenReused = 9,
        /// Somebody tried to register with an address that is a user's.
        RegistrationRepeated = 10,
        /// A user showed that they read the mail of an address.
        UserEmailVerified = 11,
        /// A password was not the one, or whoever knew it may not sign in.
        LoginFailed = 12,
        /// Somebody asked for a new password.
        PasswordResetRequested = 13,
        /// A new password was set by a token that was mailed.
        PasswordResetCompleted = 14,
        /// A user set a new password and knew the one before.
        PasswordChanged = 15,
    }
}

/// How much somebody has to look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Every day.
    Info,
    /// Not often.
    Warning,
    /// Somebody may be inside who should not be.
    Critical,
}

impl AuditEvent {
    /// The name that logs and filters know.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UserRegistered => "user_registered",
            Self::UserDisabled => "user_disabled",
            Self::UserLogin => "user_login",
            Self::UserLogout => "user_logout",
            Self::UserSessionRevoked => "user_session_revoked",
            Self::UserSessionExpired => "user_session_expired",
            Self::StepUp => "step_up",
            Self::RefreshTokenRevoked => "refresh_token_revoked",
            Self::RefreshTokenReused => "refresh_token_reused",
            Self::RegistrationRepeated => "registration_repeated",
            Self::UserEmailVerified => "user_email_verified",
            Self::LoginFailed => "login_failed",
            Self::PasswordResetRequested => "password_reset_requested",
            Self::PasswordResetCompleted => "password_reset_completed",
            Self::PasswordChanged => "password_changed",
        }
    }

    /// How much somebody has to look at it.
    pub const fn severity(self) -> Severity {
        match self {
            Self::RefreshTokenReused => Severity::Critical,
            Self::UserDisabled
            | Self::UserSessionRevoked
            | Self::RefreshTokenRevoked
            | Self::RegistrationRepeated
            | Self::LoginFailed
            | Self::PasswordResetRequested
            | Self::PasswordResetCompleted
            | Self::PasswordChanged => Severity::Warning,
            Self::UserRegistered
            | Self::UserLogin
            | Self::UserLogout
            | Self::UserSessionExpired
            | Self::StepUp
            | Self::UserEmailVerified => Severity::Info,
        }
    }
}

use auth_credentials::opaque_token::{self, TokenHash};

use super::layout::{Reader, RecordError, Writer, stored_enum};
use super::{Stored, tables};
use crate::ids::{FamilyId, SessionId, UserId};
use crate::key::{Key, Table, Tenant};
use crate::millis::Millis;

stored_enum! {
    /// For what a session is; its timeouts follow from it.
    SessionKind: u8, "session kind" {
        /// A browser.
        Web = 0,
        /// A browser that the user asked to remember: long, at level one.
        RememberedWeb = 1,
        /// The command line.
        Cli = 2,
        /// A program.
        Sdk = 3,
    }
}

stored_enum! {
    /// With what the user proved who they are.
    SignInMethod: u8, "method" {
        /// A password.
        Password = 0,
        /// A passkey.
        Passkey = 1,
        /// A password and a code of a time-based generator.
        PasswordAndTotp = 2,
        /// A password and a recovery code.
        PasswordAndRecoveryCode = 3,
        /// A code that another session of the user authorized.
        AuthorizationCode = 4,
    }
}

stored_enum! {
    /// How well it is proved (NIST SP 800-63B).
    AssuranceLevel: u8, "level" {
        /// One factor.
        One = 1,
        /// Two factors.
        Two = 2,
        /// Two, one of them in hardware that resists phishing.
        Three = 3,
    }
}

stored_enum! {
    /// Why a session or a family of refresh tokens was ended.
    EndReason: u8, "end reason" {
        /// The user signed out.
        SignedOut = 1,
        /// The user ended it from another session, or an operator did.
        Revoked = 2,
        /// A newer session took its place.
        Evicted = 3,
        /// Nobody used it for too long.
        ExpiredIdle = 4,
        /// It was too old.
        ExpiredAbsolute = 5,
        /// A refresh token came that had been exchanged before.
        RefreshReused = 6,
        /// Its refresh token was revoked.
        RefreshRevoked = 7,
        /// The user signed in anew within the session; of refresh tokens alone.
        Replaced = 8,
    }
}

/// Whether a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// As far as this row knows: time and the user's row decide as well.
    Live,
    /// It never lives again.
    Ended {
        /// When.
        at: Millis,
        /// Why.
        reason: EndReason,
    },
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user: UserId,
    /// Whether it lives.
    pub state: SessionState,
    /// For what.
    pub kind: SessionKind,
    /// How the user last proved who they are.
    pub method: SignInMethod,
    /// How well.
    pub level: AssuranceLevel,
    /// The user's epoch at that time.
    pub epoch: u64,
    /// Since when it exists.
    pub created_at: Millis,
    /// When the user last proved who they are.
    pub authenticated_at: Millis,
    /// When it was last used, within a tenth of its idle time.
    pub last_seen_at: Millis,
    /// When it ends, however much it is used.
    pub ends_at: Millis,
    /// Of its token.
    pub token: TokenHash<opaque_token::Session>,
    /// Its refresh tokens, if it has some.
    pub family: Option<FamilyId>,
}

impl Session {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, session: SessionId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(session.to_bytes())
    }
}

impl Stored for Session {
    const TABLE: Table = tables::SESSION;

    fn encode(&self) -> Vec<u8> {
        let writer = Writer::new(Self::VERSION).bytes(&self.user.to_bytes());
        let writer = match self.state {
            SessionState::Live => writer.u8(0),
            SessionState::Ended { at, reason } => writer.u8(reason.number()).millis(at),
        };
        writer
            .u8(self.kind.number())
            .u8(self.method.number())
            .u8(self.level.number())
            .u64(self.epoch)
            .millis(self.created_at)
            .millis(self.authenticated_at)
            .millis(self.last_seen_at)
            .millis(self.ends_at)
            .hash(&self.token)
            .optional_id(self.family.map(FamilyId::to_bytes))
            .finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let user = UserId::from_bytes(reader.array()?);
        let state = match reader.u8()? {
            0 => SessionState::Live,
            reason => {
                let reason = EndReason::from_number(reason)?;
                SessionState::Ended { at: reader.millis()?, reason }
            }
        };
        let session = Self {
            user,
            state,
            kind: SessionKind::from_number(reader.u8()?)?,
            method: SignInMethod::from_number(reader.u8()?)?,
            level: AssuranceLevel::from_number(reader.u8()?)?,
            epoch: reader.u64()?,
            created_at: reader.millis()?,
            authenticated_at: reader.millis()?,
            last_seen_at: reader.millis()?,
            ends_at: reader.millis()?,
            token: reader.hash()?,
            family: reader.optional_id("family")?.map(FamilyId::from_bytes),
        };
        reader.finish()?;
        Ok(session)
    }
}

use super::layout::{Reader, RecordError, Writer};
use super::{Stored, tables};
use crate::ids::{SessionId, UserId};
use crate::key::{Key, Table, Tenant};

/// Sessions of one user, whatever the settings say: what ends them all has to fit into one commit.
pub const SESSIONS_PER_USER_LIMIT: usize = 32;

/// Which sessions a user has. Whoever opens or ends one writes this row, so that the cap holds in every race.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserSessions {
    /// From the first opened to the last; each once.
    pub sessions: Vec<SessionId>,
}

impl UserSessions {
    const VERSION: u8 = 1;

    /// Where it is.
    pub fn key(tenant: Tenant, user: UserId) -> Key {
        Key::new(Self::TABLE, tenant).bytes(user.to_bytes())
    }
}

impl Stored for UserSessions {
    const TABLE: Table = tables::USER_SESSIONS;

    fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.sessions.len()).unwrap_or(u8::MAX);
        let writer = Writer::new(Self::VERSION).u8(count);
        self.sessions.iter().fold(writer, |writer, session| writer.bytes(&session.to_bytes())).finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes, Self::VERSION)?;
        let count = usize::from(reader.u8()?);
        if count > SESSIONS_PER_USER_LIMIT {
            return Err(RecordError::Field { field: "sessions" });
        }
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            let session = SessionId::from_bytes(reader.array()?);
            if sessions.contains(&session) {
                return Err(RecordError::Field { field: "sessions" });
            }
            sessions.push(session);
        }
        reader.finish()?;
        Ok(Self { sessions })
    }
}

use super::commit::Committed;
use super::sessions::Ended;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::audit::{AuditDraft, AuditEvent};
use crate::ids::{FamilyId, SessionId};
use crate::millis::Millis;
use crate::ports::AuthStore;
use crate::records::{Actor, EndReason, Loaded, RefreshFamily, Resource, Session, User};
use crate::refresh::{Place, begin, place, reused, rotate};
use crate::refusal::{Answer, RefusalReason};
use crate::sessions::{Ending, LiveSession, SessionRows, end_one, identify, judge};
use crate::tokens::{RefreshToken, SessionToken, TokenText};

/// A refresh token, and for whom access tokens may be made with it.
#[derive(Debug)]
pub struct Refreshed {
    /// The token: a new one, or once more the one that another request got for the same token.
    pub token: TokenText,
    /// Of which family.
    pub family: FamilyId,
    /// The session. Access tokens carry its id and epoch.
    pub session: LiveSession,
}

/// The rows that an exchange is decided from.
struct Rows {
    family: Loaded<RefreshFamily>,
    session: Loaded<Session>,
    user: Loaded<User>,
}

impl<S: AuthStore> Auth<S> {
    /// Gives a session its first refresh token. Those that it had before are dead.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn issue_refresh(&self, token: &str, now: Millis) -> Result<Answer<Refreshed>, AuthError> {
        let Some(of_session) = SessionToken::parse(token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        let id = of_session.session();
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.load_session(id, now).await?;
            let session = match identify(&of_session, &loaded, &self.hasher) {
                Ok(session) => session.clone(),
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            let user = self.load_user(session.user, now).await?;
            if let Err(reason) = judge(&session, user.value(), &self.settings.sessions, now) {
                return Ok(Answer::Refused(reason.into()));
            }
            let rows = self.with_family(id, loaded, now).await?;
            let family = FamilyId::from_bytes(self.fresh.array());
            let token = RefreshToken::mint(&self.hasher, family, 1, &*self.fresh);
            let hash = token.hash(&self.hasher);
            let plan = begin(self.tenant, &rows, &session, &user, (&token, hash), &self.settings, now);
            if let Committed::Applied = self.commit(plan, now).await? {
                return self.refreshed(&token, &rows.session, now).map(Answer::Granted);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Exchanges a refresh token for its successor. The same token yields the same successor within the grace time, as long as
    /// that was not used itself; anything older, or later, ends the family and its session.
    ///
    /// # Errors
    ///
    /// [`AuthError`]. Send the same token again: it yields what the lost reply had.
    pub async fn refresh(&self, token: &str, now: Millis) -> Result<Answer<Refreshed>, AuthError> {
        let Some(token) = RefreshToken::parse(&self.hasher, token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        for _ in 0..ATTEMPTS_MAX {
            let Some(rows) = self.load_exchange(&token, now).await? else {
                return Ok(Err(RefusalReason::Unknown).into());
            };
            let Some(family) = rows.family.value() else {
                return Ok(Err(RefusalReason::Unknown).into());
            };
            let presented = (&token, &self.hasher);
            let placed =
                place(family, rows.session.value(), rows.user.value(), presented, &self.settings, now);
            match placed {
                Err(reason) => return Ok(Answer::Refused(reason.into())),
                Ok(Place::JustExchanged { successor, key_id }) => {
                    let again = token.open(self.tenant, &successor, key_id).ok_or(AuthError::Token)?;
                    return self.refreshed(&again, &rows.session, now).map(Answer::Granted);
                }
                Ok(Place::Current) => {
                    if let Some(refreshed) = self.exchange(&token, &rows, now).await? {
                        return Ok(Answer::Granted(refreshed));
                    }
                }
                Ok(Place::Reused) => {
                    if self.end_reused(&token, &rows, family, now).await? {
                        return Ok(Err(RefusalReason::Reused).into());
                    }
                }
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Ends a family of refresh tokens and its session. Any token of the family does, also an old one; one that is unknown is no
    /// error (RFC 7009, section 2.2).
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn revoke_refresh(&self, token: &str, now: Millis) -> Result<Ended, AuthError> {
        let Some(token) = RefreshToken::parse(&self.hasher, token) else { return Ok(Ended::Before) };
        for _ in 0..ATTEMPTS_MAX {
            let loaded: Loaded<RefreshFamily> =
                self.load(RefreshFamily::key(self.tenant, token.family()), now).await?;
            let Some(family) = loaded.value() else { return Ok(Ended::Before) };
            let (id, user) = (family.session, family.user);
            let session = self.load_session(id, now).await?;
            if session.value().and_then(|session| session.family) != Some(token.family()) {
                return Ok(Ended::Before);
            }
            let list = self.load_list(user, now).await?;
            let rows = self.with_family(id, session, now).await?;
            let ending = Ending {
                user_id: user,
                actor: Actor::User(user),
                event: AuditEvent::UserSessionRevoked,
                reason: EndReason::RefreshRevoked,
                settings: &self.settings.sessions,
                now,
            };
            let Some(mut plan) = end_one(&list, &rows, &ending) else { return Ok(Ended::Before) };
            plan.audit(AuditDraft {
                event: AuditEvent::RefreshTokenRevoked,
                actor: Actor::User(user),
                user,
                resource: Resource::RefreshToken(token.family()),
                reason: Some(EndReason::RefreshRevoked),
            });
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Ended::Now);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// The family first, then session and user. What is only read was true when the family was: no session and no epoch comes back.
    async fn load_exchange(&self, token: &RefreshToken, now: Millis) -> Result<Option<Rows>, AuthError> {
        let family: Loaded<RefreshFamily> =
            self.load(RefreshFamily::key(self.tenant, token.family()), now).await?;
        let Some(value) = family.value() else { return Ok(None) };
        let keys = (Session::key(self.tenant, value.session), User::key(self.tenant, value.user));
        let (session, user) = self.load_both(keys, now).await?;
        Ok(Some(Rows { family, session, user }))
    }

    /// `None`: somebody else was first.
    async fn exchange(
        &self,
        token: &RefreshToken,
        rows: &Rows,
        now: Millis,
    ) -> Result<Option<Refreshed>, AuthError> {
        let generation = token.generation().checked_add(1).ok_or(AuthError::Token)?;
        let successor = RefreshToken::mint(&self.hasher, token.family(), generation, &*self.fresh);
        let hash = successor.hash(&self.hasher);
        let sealed = token.seal(self.tenant, &successor, &*self.fresh).ok_or(AuthError::Token)?;
        let plan = rotate(&rows.family, &rows.session, &rows.user, (hash, sealed), &self.settings, now)
            .ok_or(AuthError::Token)?;
        match self.commit(plan, now).await? {
            Committed::Applied => self.refreshed(&successor, &rows.session, now).map(Some),
            Committed::Conflict => Ok(None),
        }
    }

    /// Whether it is done; else somebody else was first.
    async fn end_reused(
        &self,
        token: &RefreshToken,
        rows: &Rows,
        family: &RefreshFamily,
        now: Millis,
    ) -> Result<bool, AuthError> {
        let list = self.load_list(family.user, now).await?;
        // The rows that were judged, not newer ones: the commit asks that they are still so.
        let rows = SessionRows {
            id: family.session,
            session: rows.session.clone(),
            family: Some(rows.family.clone()),
        };
        let plan = reused(token, &rows, &list, family, &self.settings, now);
        Ok(matches!(self.commit(plan, now).await?, Committed::Applied))
    }

    fn refreshed(
        &self,
        token: &RefreshToken,
        session: &Loaded<Session>,
        now: Millis,
    ) -> Result<Refreshed, AuthError> {
        let id = session.key.parts().next().and_then(|id| <[u8; 16]>::try_from(id).ok());
        let id = SessionId::from_bytes(id.ok_or(AuthError::Token)?);
        let session = LiveSession::of(id, session, &self.settings.sessions, now).ok_or(AuthError::Token)?;
        let text = token.text(&self.hasher).ok_or(AuthError::Token)?;
        Ok(Refreshed { token: text, family: token.family(), session })
    }
}

use super::commit::Committed;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::audit::AuditEvent;
use crate::ids::{SessionId, UserId};
use crate::millis::Millis;
use crate::plan::Plan;
use crate::ports::AuthStore;
use crate::records::{Actor, EndReason, Loaded, Session};
use crate::refusal::{Answer, RefusalReason};
use crate::sessions::{
    Authentication, Ending, LiveSession, Opening, SignIn, end_all, end_one, end_others, identify, judge,
    open, reauthenticate, row_end, touched,
};
use crate::tokens::{SessionToken, TokenText};

/// Who asks that sessions be ended. A user is only ever named by a session that was checked.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// The user of this session, for their own.
    Session(&'a LiveSession),
    /// Whoever runs the server, for this user's.
    Operator(UserId),
}

impl By<'_> {
    /// Whose sessions it is about.
    pub fn user(&self) -> UserId {
        match self {
            Self::Session(session) => session.user(),
            Self::Operator(user) => *user,
        }
    }

    pub(super) fn actor(&self) -> Actor {
        match self {
            Self::Session(session) => Actor::User(session.user()),
            Self::Operator(_) => Actor::Operator,
        }
    }
}

/// A session and its new token, which is shown this once.
#[derive(Debug)]
pub struct OpenedSession {
    /// Its id.
    pub session: SessionId,
    /// Its token.
    pub token: TokenText,
}

/// Whether a session's use was written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It was.
    Written,
    /// It was not long enough ago.
    NotDue,
    /// The session has changed since it was checked: ended, or touched by another request. Nothing was written.
    Lost,
}

/// Whether something was ended by this call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Now.
    Now,
    /// It had been before, or never was.
    Before,
}

impl<S: AuthStore> Auth<S> {
    /// Opens a session for a sign-in that the caller has checked. When the user has as many as they may, those that were used
    /// least recently end in the same commit.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn open_session(
        &self,
        sign_in: &SignIn,
        now: Millis,
    ) -> Result<Answer<OpenedSession>, AuthError> {
        for _ in 0..ATTEMPTS_MAX {
            let (plan, opened) = match self.plan_session(sign_in, now).await? {
                Ok(planned) => planned,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(opened));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// What opens a session for a sign-in, and the session as it will be.
    pub(super) async fn plan_session(
        &self,
        sign_in: &SignIn,
        now: Millis,
    ) -> Result<Result<(Plan, OpenedSession), RefusalReason>, AuthError> {
        let (user, list) = self.load_person(sign_in.user, now).await?;
        let listed = list.value().map(|list| list.sessions.clone()).unwrap_or_default();
        let others = self.load_rows(&listed, now).await?;
        let id = SessionId::from_bytes(self.fresh.array());
        let token = SessionToken::mint(id, &*self.fresh);
        let opening = Opening {
            tenant: self.tenant,
            sign_in,
            id,
            token: token.hash(&self.hasher),
            user: &user,
            list: &list,
            others: &others,
            settings: &self.settings.sessions,
            now,
        };
        Ok(open(&opening).map(|plan| (plan, OpenedSession { session: id, token: token.text() })))
    }

    /// Whether a token lets its holder in: two point reads, no write.
    ///
    /// The session is read first and the user behind it. So what is granted was true when the session was read: an epoch never
    /// comes back, and disabling a user makes a new one.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn validate_session(&self, token: &str, now: Millis) -> Result<Answer<LiveSession>, AuthError> {
        let Some(token) = SessionToken::parse(token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        let loaded = self.load_session(token.session(), now).await?;
        let session = match identify(&token, &loaded, &self.hasher) {
            Ok(session) => session,
            Err(reason) => return Ok(Answer::Refused(reason.into())),
        };
        let user = self.load_user(session.user, now).await?;
        let settings = &self.settings.sessions;
        let judged = judge(session, user.value(), settings, now).and_then(|()| {
            LiveSession::of(token.session(), &loaded, settings, now).ok_or(RefusalReason::Unknown)
        });
        Ok(judged.into())
    }

    /// Writes down that a session is used, when that is due. It is lossy: a session that has changed meanwhile stays as it is,
    /// so one that was ended is never brought back.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn touch_session(&self, live: &LiveSession, now: Millis) -> Result<Touch, AuthError> {
        let settings = &self.settings.sessions;
        let Some(next) = touched(&live.record, settings, now) else { return Ok(Touch::NotDue) };
        let key = Session::key(self.tenant, live.id());
        let loaded = Loaded { key, found: Some((live.record.clone(), live.version)) };
        let mut plan = Plan::default();
        plan.replace(&loaded, &next, Some(row_end(&next, settings)));
        match self.commit(plan, now).await? {
            Committed::Applied => Ok(Touch::Written),
            Committed::Conflict => Ok(Touch::Lost),
        }
    }

    /// The live sessions of a user, from the first opened to the last.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn list_sessions(&self, user: UserId, now: Millis) -> Result<Vec<LiveSession>, AuthError> {
        let (user, list) = self.load_person(user, now).await?;
        let listed = list.value().map(|list| list.sessions.clone()).unwrap_or_default();
        let keys = listed.iter().map(|id| Session::key(self.tenant, *id)).collect();
        let settings = &self.settings.sessions;
        let sessions = listed.iter().zip(self.load_all::<Session>(keys, now).await?);
        let live = sessions.filter_map(|(id, loaded)| {
            judge(loaded.value()?, user.value(), settings, now).ok()?;
            LiveSession::of(*id, &loaded, settings, now)
        });
        Ok(live.collect())
    }

    /// Gives a session a new token for a sign-in within it that the caller has checked, also a step-up. The old token and the
    /// session's refresh tokens are dead from the same commit on.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn reauthenticate(
        &self,
        token: &str,
        authentication: &Authentication,
        now: Millis,
    ) -> Result<Answer<OpenedSession>, AuthError> {
        let Some(old) = SessionToken::parse(token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.load_session(old.session(), now).await?;
            let session = match identify(&old, &loaded, &self.hasher) {
                Ok(session) => session.clone(),
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            let user = self.load_user(session.user, now).await?;
            let settings = &self.settings.sessions;
            if let Err(reason) = judge(&session, user.value(), settings, now) {
                return Ok(Answer::Refused(reason.into()));
            }
            let rows = self.with_family(old.session(), loaded, now).await?;
            let token = SessionToken::mint(rows.id, &*self.fresh);
            let hash = token.hash(&self.hasher);
            let plan = reauthenticate(&rows, &session, &user, (authentication, hash), settings, now);
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(OpenedSession { session: rows.id, token: token.text() }));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Ends the session of a token. It is no error when there is none: who signs out is signed out.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn sign_out(&self, token: &str, now: Millis) -> Result<Ended, AuthError> {
        let Some(token) = SessionToken::parse(token) else { return Ok(Ended::Before) };
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.load_session(token.session(), now).await?;
            // Each time: a token that was replaced meanwhile ends nothing.
            let Ok(session) = identify(&token, &loaded, &self.hasher) else { return Ok(Ended::Before) };
            let ending = Ending {
                user_id: session.user,
                actor: Actor::User(session.user),
                event: AuditEvent::UserLogout,
                reason: EndReason::SignedOut,
                settings: &self.settings.sessions,
                now,
            };
            if let Some(ended) = self.try_end(token.session(), loaded, &ending).await? {
                return Ok(ended);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Ends one session.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn revoke_session(
        &self,
        by: By<'_>,
        session: SessionId,
        now: Millis,
    ) -> Result<Ended, AuthError> {
        let ending = self.revoking(by, now);
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.load_session(session, now).await?;
            if let Some(ended) = self.try_end(session, loaded, &ending).await? {
                return Ok(ended);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// `None`: somebody else was first.
    async fn try_end(
        &self,
        id: SessionId,
        session: Loaded<Session>,
        ending: &Ending<'_>,
    ) -> Result<Option<Ended>, AuthError> {
        let list = self.load_list(ending.user_id, ending.now).await?;
        let rows = self.with_family(id, session, ending.now).await?;
        let Some(plan) = end_one(&list, &rows, ending) else { return Ok(Some(Ended::Before)) };
        match self.commit(plan, ending.now).await? {
            Committed::Applied => Ok(Some(Ended::Now)),
            Committed::Conflict => Ok(None),
        }
    }

    /// Ends all sessions of a user but this one. How many there were.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn revoke_other_sessions(
        &self,
        kept: &LiveSession,
        now: Millis,
    ) -> Result<Answer<usize>, AuthError> {
        let ending = self.revoking(By::Session(kept), now);
        for _ in 0..ATTEMPTS_MAX {
            let (user, list) = self.load_person(kept.user(), now).await?;
            let listed = list.value().map(|list| list.sessions.clone()).unwrap_or_default();
            let all = self.load_rows(&listed, now).await?;
            let (plan, ended) = match end_others(kept.id(), &user, &list, &all, &ending) {
                Ok(decided) => decided,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(ended));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Ends all sessions and tokens of a user, however many, by one number. The epoch from which on new ones are.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn revoke_all_sessions(&self, by: By<'_>, now: Millis) -> Result<Answer<u64>, AuthError> {
        let ending = self.revoking(by, now);
        for _ in 0..ATTEMPTS_MAX {
            let user = self.load_user(ending.user_id, now).await?;
            let (plan, next) = match end_all(&user, &ending) {
                Ok(decided) => decided,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(next.epoch));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    fn revoking(&self, by: By<'_>, now: Millis) -> Ending<'_> {
        Ending {
            user_id: by.user(),
            actor: by.actor(),
            event: AuditEvent::UserSessionRevoked,
            reason: EndReason::Revoked,
            settings: &self.settings.sessions,
            now,
        }
    }
}

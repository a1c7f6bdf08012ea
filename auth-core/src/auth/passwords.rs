use auth_credentials::opaque_token::{OpaqueToken, ResetPassword};
use auth_credentials::password::PasswordHash;

use super::commit::Committed;
use super::sessions::OpenedSession;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::email_address::EmailAddress;
use crate::ids::UserId;
use crate::key::Key;
use crate::millis::Millis;
use crate::outbox::{Draft, Prepared};
use crate::people::{
    ChangeRows, PasswordChange, PasswordOutcome, ReadPassword, ResetMade, ResetRows, SignInChallenge,
    admit_password, change_password, change_refused, confirm_reset, depend_on_password, nobody,
    request_reset, sign_in_failed,
};
use crate::ports::AuthStore;
use crate::records::{
    AssuranceLevel, Loaded, MailKind, PasswordReset, SessionKind, SignInMethod, StoredPassword, User,
    UserEmails, UserKey, UserState,
};
use crate::refusal::{Answer, RefusalReason};
use crate::sessions::{Authentication, SignIn, identify, judge};
use crate::tokens::SessionToken;

impl<S: AuthStore> Auth<S> {
    /// Begins a sign-in: what the password has to be compared with. It takes two reads, whether or not the address is known.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn begin_sign_in(
        &self,
        address: &EmailAddress,
        now: Millis,
    ) -> Result<SignInChallenge, AuthError> {
        let address = self.addresses.hash(address);
        let claim = self.load_claim(address, now).await?;
        let user = claim.value().map_or_else(|| nobody(address), |claim| claim.user);
        let password = self.load_password(user, now).await?;
        Ok(SignInChallenge { address, known: ReadPassword::of(user, &password) })
    }

    /// Ends a sign-in: opens a session at level one, or says in the log that it failed. A password that was changed since
    /// it was read opens nothing.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn finish_sign_in(
        &self,
        challenge: &SignInChallenge,
        outcome: &PasswordOutcome,
        kind: SessionKind,
        now: Millis,
    ) -> Result<Answer<OpenedSession>, AuthError> {
        let (Some(known), PasswordOutcome::Match { rehashed }) = (&challenge.known, outcome) else {
            return self.fail_sign_in(challenge, RefusalReason::Credentials, now).await;
        };
        let authentication = Authentication { method: SignInMethod::Password, level: AssuranceLevel::One };
        let sign_in = SignIn { user: known.user, kind, authentication };
        for _ in 0..ATTEMPTS_MAX {
            let claim = self.load_claim(challenge.address, now).await?;
            let password = self.load_password(known.user, now).await?;
            let admitted = admit_password(known, &claim, &password, &self.settings.people);
            let opened = match admitted {
                Ok(()) => self.plan_session(&sign_in, now).await?,
                Err(reason) => Err(reason),
            };
            let (mut plan, opened) = match opened {
                Ok(opened) => opened,
                Err(reason) => return self.fail_sign_in(challenge, reason, now).await,
            };
            depend_on_password(&mut plan, known, &claim, &password, rehashed.as_ref());
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(opened));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Asks for a new password: a mail with a token to the user who has verified this address. Whether there is one is not told:
    /// show whoever asks the same, and before this is done, for the time that it takes could tell.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn request_password_reset(&self, address: &EmailAddress, now: Millis) -> Result<(), AuthError> {
        let hash = self.addresses.hash(address);
        for _ in 0..ATTEMPTS_MAX {
            let claim = self.load_claim(hash, now).await?;
            let owner = claim.value().filter(|claim| claim.is_verified).map(|claim| claim.user);
            let user = self.load_user(owner.unwrap_or(nobody(hash)), now).await?;
            let active = user.value().filter(|user| user.state == UserState::Active);
            let made = match (owner, active) {
                (Some(owner), Some(user)) => Some(self.make_reset(owner, user, address, now).await?),
                _ => None,
            };
            let mut plan = request_reset(self.tenant, hash, made.as_ref().map(|made| (&user, made)));
            plan.hold(&claim);
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(());
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Sets a new password by the token of a mail, once. All sessions and tokens of the user end with it. Whose it is.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn confirm_password_reset(
        &self,
        token: &str,
        password: &PasswordHash,
        now: Millis,
    ) -> Result<Answer<UserId>, AuthError> {
        let Ok(token) = OpaqueToken::<ResetPassword>::parse(token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        for _ in 0..ATTEMPTS_MAX {
            let keys: Vec<Key> =
                self.hasher.hashes(&token).map(|hash| PasswordReset::key(self.tenant, &hash)).collect();
            let Some((token, reset)) = self.load_token::<PasswordReset>(keys, now).await? else {
                return Ok(Err(RefusalReason::Unknown).into());
            };
            let keys = (User::key(self.tenant, reset.user), StoredPassword::key(self.tenant, reset.user));
            let (user, stored) = self.load_both(keys, now).await?;
            let rows = ResetRows { token, user, password: stored };
            let notice = self.prepare_notice(reset.user, now).await?;
            let plan = match confirm_reset(self.tenant, &rows, password, notice.as_ref(), now) {
                Ok(plan) => plan,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(reset.user));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Begins a change of password within a session: what the current one has to be compared with.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn begin_password_change(
        &self,
        token: &str,
        now: Millis,
    ) -> Result<Answer<PasswordChange>, AuthError> {
        let live = match self.validate_session(token, now).await? {
            Answer::Granted(live) => live,
            Answer::Refused(refusal) => return Ok(Answer::Refused(refusal)),
        };
        let password = self.load_password(live.user(), now).await?;
        let known = ReadPassword::of(live.user(), &password);
        Ok(known.map(|known| PasswordChange { known }).ok_or(RefusalReason::Credentials).into())
    }

    /// Ends a change of password. The session goes on under a new token; all others end in the same commit.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn finish_password_change(
        &self,
        token: &str,
        change: &PasswordChange,
        outcome: &PasswordOutcome,
        password: &PasswordHash,
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
            let (user, list) = self.load_person(session.user, now).await?;
            if let Err(reason) = judge(&session, user.value(), &self.settings.sessions, now) {
                return Ok(Answer::Refused(reason.into()));
            }
            if matches!(outcome, PasswordOutcome::Mismatch) {
                if let Committed::Conflict =
                    self.commit(change_refused(&change.known, old.session()), now).await?
                {
                    continue;
                }
                return Ok(Err(RefusalReason::Credentials).into());
            }
            let stored = self.load_password(session.user, now).await?;
            let rows = self.with_family(old.session(), loaded, now).await?;
            let rows = ChangeRows { session: rows, user, list, password: stored };
            let notice = self.prepare_notice(session.user, now).await?;
            let token = SessionToken::mint(old.session(), &*self.fresh);
            let new = (password, token.hash(&self.hasher));
            let settings = &self.settings.sessions;
            let plan =
                change_password(self.tenant, &rows, &change.known, new, notice.as_ref(), settings, now);
            let plan = match plan {
                Ok(plan) => plan,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(OpenedSession { session: old.session(), token: token.text() }));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    async fn fail_sign_in<T>(
        &self,
        challenge: &SignInChallenge,
        reason: RefusalReason,
        now: Millis,
    ) -> Result<Answer<T>, AuthError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Committed::Applied = self.commit(sign_in_failed(challenge), now).await? {
                return Ok(Answer::Refused(reason.into()));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    async fn make_reset(
        &self,
        owner: UserId,
        user: &User,
        address: &EmailAddress,
        now: Millis,
    ) -> Result<ResetMade, AuthError> {
        let key = self.load(UserKey::key(self.tenant, owner), now).await?;
        let key = self.personal_key(owner, &key)?.ok_or(AuthError::Sealed)?;
        let token = OpaqueToken::<ResetPassword>::from_random(self.fresh.array());
        let ends_at = now.after(self.settings.people.reset_lifetime);
        let kind = MailKind::ResetPassword;
        let draft = Draft { user: owner, kind, to: address, token: Some(token.to_text()), ends_at };
        let mail = self.prepare(&key, draft, now).ok_or(AuthError::Sealed)?;
        let reset = PasswordReset { user: owner, epoch: user.epoch, ends_at };
        Ok(ResetMade { token: self.hasher.hash(&token), reset, mail })
    }

    /// The mail that says that the password was changed; `None` for a user without an address.
    async fn prepare_notice(&self, user: UserId, now: Millis) -> Result<Option<Prepared>, AuthError> {
        let keys = (UserKey::key(self.tenant, user), UserEmails::key(self.tenant, user));
        let (key, emails) = self.load_both(keys, now).await?;
        let (Some(key), Some(emails)) = (self.personal_key(user, &key)?, emails.value()) else {
            return Ok(None);
        };
        let list = key.open_emails(emails).ok_or(AuthError::Sealed)?;
        let Some(primary) = list.primary() else { return Ok(None) };
        let ends_at = now.after(self.settings.outbox.notice_lifetime);
        let kind = MailKind::PasswordChanged;
        let draft = Draft { user, kind, to: &primary.address, token: None, ends_at };
        self.prepare(&key, draft, now).ok_or(AuthError::Sealed).map(Some)
    }

    async fn load_password(&self, user: UserId, now: Millis) -> Result<Loaded<StoredPassword>, AuthError> {
        self.load(StoredPassword::key(self.tenant, user), now).await
    }
}

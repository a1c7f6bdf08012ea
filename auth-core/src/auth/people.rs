use auth_credentials::opaque_token::{OpaqueToken, VerifyEmail};

use super::commit::Committed;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::email_address::AddressHash;
use crate::ids::{MailId, UserId};
use crate::key::Key;
use crate::millis::Millis;
use crate::outbox::{Draft, Prepared};
use crate::people::{Newcomer, Registration, VerificationRows, register, tell_owner, verified, verify};
use crate::personal::PersonalKey;
use crate::plan::Plan;
use crate::ports::AuthStore;
use crate::records::{
    AddressClaim, Email, EmailList, EmailVerification, Loaded, MailContent, MailKind, OutboxMail, Stored,
    User, UserEmails, UserKey,
};
use crate::refusal::{Answer, RefusalReason};

impl<S: AuthStore> Auth<S> {
    /// Registers somebody with an address and a password: a user, and a mail with a token that verifies the address. When the
    /// address is a user's already, they get a mail that says so instead. Which of both happened is not told: show whoever
    /// asks the same, and before this is done, for the time that it takes could tell.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn register(&self, registration: &Registration, now: Millis) -> Result<(), AuthError> {
        let address = self.addresses.hash(&registration.address);
        for _ in 0..ATTEMPTS_MAX {
            let claim = self.load_claim(address, now).await?;
            let owner = claim.value().filter(|claim| claim.is_verified).map(|claim| claim.user);
            let plan = match owner {
                Some(owner) => self.told_owner(&claim, owner, registration, now).await?,
                None => self.newcomer(&claim, registration, now).ok_or(AuthError::Sealed)?,
            };
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(());
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Verifies an address by the token of a mail: once, and only as long as nobody else has verified it. Whose it is.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn verify_email(&self, token: &str, now: Millis) -> Result<Answer<UserId>, AuthError> {
        let Ok(token) = OpaqueToken::<VerifyEmail>::parse(token) else {
            return Ok(Err(RefusalReason::Malformed).into());
        };
        for _ in 0..ATTEMPTS_MAX {
            let keys = self.hasher.hashes(&token).map(|hash| EmailVerification::key(self.tenant, &hash));
            let Some((token, found)) = self.load_token::<EmailVerification>(keys.collect(), now).await?
            else {
                return Ok(Err(RefusalReason::Unknown).into());
            };
            let (user, address) = (found.user, found.address);
            let (rows, key) = self.load_verification(token, user, address, now).await?;
            let (Some(key), Some(emails)) = (key, rows.emails.value()) else {
                return Ok(Err(RefusalReason::UserUnknown).into());
            };
            let list = key.open_emails(emails).ok_or(AuthError::Sealed)?;
            let hash = |email: &Email| self.addresses.hash(&email.address);
            let list = match verified(&rows, &list, hash, now) {
                Ok(list) => list,
                Err(reason) => return Ok(Answer::Refused(reason.into())),
            };
            let emails = key.seal_emails(&list, &*self.fresh).ok_or(AuthError::Sealed)?;
            let plan = verify(&rows, user, address, &emails);
            if let Committed::Applied = self.commit(plan, now).await? {
                return Ok(Answer::Granted(user));
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// The addresses of a user, the primary one first; none of a user who is not there or has none.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn list_emails(&self, user: UserId, now: Millis) -> Result<Vec<Email>, AuthError> {
        let keys = (UserKey::key(self.tenant, user), UserEmails::key(self.tenant, user));
        let (key, emails) = self.load_both(keys, now).await?;
        let Some(emails) = emails.value() else { return Ok(Vec::new()) };
        let key = self.personal_key(user, &key)?.ok_or(AuthError::Sealed)?;
        Ok(key.open_emails(emails).ok_or(AuthError::Sealed)?.emails)
    }

    async fn told_owner(
        &self,
        claim: &Loaded<AddressClaim>,
        owner: UserId,
        registration: &Registration,
        now: Millis,
    ) -> Result<Plan, AuthError> {
        let key = self.load(UserKey::key(self.tenant, owner), now).await?;
        let key = self.personal_key(owner, &key)?.ok_or(AuthError::Sealed)?;
        let draft = Draft {
            user: owner,
            kind: MailKind::AlreadyRegistered,
            to: &registration.address,
            token: None,
            ends_at: now.after(self.settings.outbox.notice_lifetime),
        };
        let mail = self.prepare(&key, draft, now).ok_or(AuthError::Sealed)?;
        let address = self.addresses.hash(&registration.address);
        Ok(tell_owner(self.tenant, claim, owner, address, &mail))
    }

    fn newcomer(
        &self,
        claim: &Loaded<AddressClaim>,
        registration: &Registration,
        now: Millis,
    ) -> Option<Plan> {
        let user = UserId::from_bytes(self.fresh.array());
        let key = PersonalKey::mint(self.tenant, user, &*self.fresh);
        let email = Email { address: registration.address.clone(), added_at: now, verified_at: None };
        let token = OpaqueToken::<VerifyEmail>::from_random(self.fresh.array());
        let ends_at = now.after(self.settings.people.verification_lifetime);
        let draft = Draft {
            user,
            kind: MailKind::VerifyEmail,
            to: &registration.address,
            token: Some(token.to_text()),
            ends_at,
        };
        let newcomer = Newcomer {
            user,
            key: key.wrap(&self.at_rest, &*self.fresh)?,
            emails: key.seal_emails(&EmailList { emails: vec![email] }, &*self.fresh)?,
            password: &registration.password,
            token: self.hasher.hash(&token),
            verification: EmailVerification {
                user,
                address: self.addresses.hash(&registration.address),
                ends_at,
            },
            mail: self.prepare(&key, draft, now)?,
        };
        Some(register(self.tenant, claim, &newcomer, now))
    }

    /// Seals a mail.
    pub(super) fn prepare(&self, key: &PersonalKey, draft: Draft<'_>, now: Millis) -> Option<Prepared> {
        let id = MailId::from_bytes(self.fresh.array());
        let Draft { user, kind, to, token, ends_at } = draft;
        let content = MailContent { to: to.clone(), token };
        let sealed = key.seal_mail(id, &content, &*self.fresh)?;
        Some(Prepared { id, mail: OutboxMail { user, kind, made_at: now, ends_at, attempts: 0, sealed } })
    }

    /// The key of a user's personal fields; `None` when there is none.
    pub(super) fn personal_key(
        &self,
        user: UserId,
        stored: &Loaded<UserKey>,
    ) -> Result<Option<PersonalKey>, AuthError> {
        let Some(stored) = stored.value() else { return Ok(None) };
        PersonalKey::unwrap(self.tenant, user, stored, &self.at_rest).ok_or(AuthError::Sealed).map(Some)
    }

    /// The record of a token, whichever of the known keys it was hashed under.
    pub(super) async fn load_token<T: Stored + Copy>(
        &self,
        keys: Vec<Key>,
        now: Millis,
    ) -> Result<Option<(Loaded<T>, T)>, AuthError> {
        let loaded = self.load_all::<T>(keys, now).await?;
        Ok(loaded.into_iter().find_map(|loaded| loaded.value().copied().map(|value| (loaded, value))))
    }

    /// The token's row was read before: the commit asks that it is still there.
    async fn load_verification(
        &self,
        token: Loaded<EmailVerification>,
        user: UserId,
        address: AddressHash,
        now: Millis,
    ) -> Result<(VerificationRows, Option<PersonalKey>), AuthError> {
        let claim = self.load_claim(address, now).await?;
        let keys = (User::key(self.tenant, user), UserEmails::key(self.tenant, user));
        let (loaded_user, emails) = self.load_both(keys, now).await?;
        let key = self.load(UserKey::key(self.tenant, user), now).await?;
        let key = self.personal_key(user, &key)?;
        Ok((VerificationRows { token, user: loaded_user, emails, claim }, key))
    }

    /// Where an address is claimed.
    pub(super) async fn load_claim(
        &self,
        address: AddressHash,
        now: Millis,
    ) -> Result<Loaded<AddressClaim>, AuthError> {
        self.load(AddressClaim::key(self.tenant, address), now).await
    }
}

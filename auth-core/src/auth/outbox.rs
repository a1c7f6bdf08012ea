use std::fmt;

use zeroize::Zeroizing;

use super::commit::Committed;
use super::sessions::Ended;
use super::{ATTEMPTS_MAX, Auth, AuthError};
use crate::email_address::EmailAddress;
use crate::ids::MailId;
use crate::key::{Key, KeyRange};
use crate::millis::Millis;
use crate::outbox::{MailFailure, MailFate, bury, claim, failed};
use crate::ports::{AuthStore, ReadSet, Row};
use crate::records::{DeathReason, Loaded, MailContent, MailKind, OutboxMail, Stored, UserKey};

/// Mails that are looked at for one claim: so many that cannot be read are passed over.
const LOOKED_AT_MAX: usize = 64;

/// A mail for whoever claimed it to send.
pub struct ClaimedMail {
    id: MailId,
    key: Key,
    mail: OutboxMail,
    content: MailContent,
}

impl ClaimedMail {
    /// Its id: the same at each attempt, so that a receiver can tell one that comes twice.
    pub fn id(&self) -> MailId {
        self.id
    }

    /// What it says.
    pub fn kind(&self) -> MailKind {
        self.mail.kind
    }

    /// The how manieth attempt this is: 1, 2, 3 …
    pub fn attempt(&self) -> u8 {
        self.mail.attempts
    }

    /// To which address.
    pub fn to(&self) -> &EmailAddress {
        &self.content.to
    }

    /// The token of its link, if it has one: a secret.
    pub fn token(&self) -> Option<&str> {
        self.content.token.as_ref().map(|token: &Zeroizing<String>| token.as_str())
    }
}

/// Neither address nor token.
impl fmt::Debug for ClaimedMail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}, {:?}, attempt {}", self.id, self.mail.user, self.kind(), self.attempt())
    }
}

impl<S: AuthStore> Auth<S> {
    /// A mail that is due, for the caller to send; `None` when there is none. Say what became of it with
    /// [`mail_sent`](Self::mail_sent) or [`mail_failed`](Self::mail_failed); else it is due again when the claim ends. So a mail is sent at
    /// least once, and seldom twice. Those that cannot be sent any more are given up on the way.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn claim_mail(&self, now: Millis) -> Result<Option<ClaimedMail>, AuthError> {
        for _ in 0..ATTEMPTS_MAX {
            let all = Key::new(OutboxMail::TABLE, self.tenant);
            let due = KeyRange::under(&all).until(&all.clone().number(now.0.saturating_add(1)));
            let snapshot = self.store.read(&ReadSet::default().range(due, LOOKED_AT_MAX), now).await?;
            let rows = snapshot.pages.into_iter().next().map(|page| page.rows).unwrap_or_default();
            if rows.is_empty() {
                return Ok(None);
            }
            let mut unreadable = None;
            for row in rows {
                match self.try_claim(row, now).await {
                    Ok(Some(claimed)) => return Ok(Some(claimed)),
                    Ok(None) => {}
                    // One that cannot be read holds up no other: it stays until its time is over.
                    Err(error @ (AuthError::Damaged { .. } | AuthError::Sealed)) => unreadable = Some(error),
                    Err(error) => return Err(error),
                }
            }
            if let Some(error) = unreadable {
                return Err(error);
            }
        }
        Err(AuthError::Busy { attempts: ATTEMPTS_MAX })
    }

    /// Ends a mail that was sent. [`Ended::Before`]: the claim had ended, and it may have been sent twice.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn mail_sent(&self, claimed: &ClaimedMail, now: Millis) -> Result<Ended, AuthError> {
        let row: Loaded<OutboxMail> = self.load(claimed.key.clone(), now).await?;
        if row.value() != Some(&claimed.mail) {
            return Ok(Ended::Before);
        }
        let mut plan = crate::plan::Plan::default();
        plan.remove(&row);
        match self.commit(plan, now).await? {
            Committed::Applied => Ok(Ended::Now),
            Committed::Conflict => Ok(Ended::Before),
        }
    }

    /// Says that a mail could not be sent: it is tried again later, or given up.
    ///
    /// # Errors
    ///
    /// [`AuthError`].
    pub async fn mail_failed(
        &self,
        claimed: &ClaimedMail,
        failure: MailFailure,
        now: Millis,
    ) -> Result<MailFate, AuthError> {
        let row: Loaded<OutboxMail> = self.load(claimed.key.clone(), now).await?;
        if row.value() != Some(&claimed.mail) {
            return Ok(MailFate::Lost);
        }
        let settings = &self.settings.outbox;
        let (plan, fate) = failed(self.tenant, (claimed.id, &row), &claimed.mail, failure, settings, now);
        match self.commit(plan, now).await? {
            Committed::Applied => Ok(fate),
            Committed::Conflict => Ok(MailFate::Lost),
        }
    }

    /// `None`: somebody else has it, or it was given up.
    async fn try_claim(&self, row: Row, now: Millis) -> Result<Option<ClaimedMail>, AuthError> {
        let damaged = |source| AuthError::Damaged { table: OutboxMail::TABLE, source };
        let mail = OutboxMail::decode(&row.record.value).map_err(damaged)?;
        let id = OutboxMail::id(&row.key).ok_or(AuthError::Sealed)?;
        let row = Loaded { key: row.key, found: Some((mail.clone(), row.record.version)) };
        let settings = &self.settings.outbox;
        let stored = self.load(UserKey::key(self.tenant, mail.user), now).await?;
        let decided = match claim(self.tenant, (id, &row), &mail, settings, now) {
            Err(reason) => Err(reason),
            Ok(claimed) => match self.personal_key(mail.user, &stored)? {
                // The user is gone, and what the mail says with them.
                None => Err(DeathReason::Unreadable),
                Some(key) => Ok((key.open_mail(id, &mail.sealed).ok_or(AuthError::Sealed)?, claimed)),
            },
        };
        match decided {
            Err(reason) => {
                let plan = bury(self.tenant, (id, &row), &mail, reason, settings, now);
                self.commit(plan, now).await?;
                Ok(None)
            }
            Ok((content, (plan, place, mail))) => match self.commit(plan, now).await? {
                Committed::Applied => Ok(Some(ClaimedMail { id, key: place.key, mail, content })),
                Committed::Conflict => Ok(None),
            },
        }
    }
}

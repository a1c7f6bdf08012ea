//! The key of a user's personal fields, and what is sealed under it.

use auth_credentials::envelope::{DataKey, KeyEncryptionKeys, Row};

use crate::fresh::FreshBytes;
use crate::ids::{MailId, UserId};
use crate::key::Tenant;
use crate::records::{EmailList, MailContent, UserEmails, UserKey};

/// A user's key. `None` of its methods: it is another one, or the row was changed.
pub(crate) struct PersonalKey {
    tenant: [u8; 8],
    user: [u8; 16],
    key: DataKey,
}

impl PersonalKey {
    pub(crate) fn mint(tenant: Tenant, user: UserId, fresh: &dyn FreshBytes) -> Self {
        Self {
            tenant: tenant.0.to_be_bytes(),
            user: user.to_bytes(),
            key: DataKey::from_random(fresh.array()),
        }
    }

    pub(crate) fn unwrap(
        tenant: Tenant,
        user: UserId,
        stored: &UserKey,
        at_rest: &KeyEncryptionKeys,
    ) -> Option<Self> {
        let (tenant, user) = (tenant.0.to_be_bytes(), user.to_bytes());
        let row = Row { tenant: &tenant, kind: "user_key", id: &user };
        let key = DataKey::unwrap(at_rest, &row, &stored.sealed).ok()?;
        Some(Self { tenant, user, key })
    }

    pub(crate) fn wrap(&self, at_rest: &KeyEncryptionKeys, fresh: &dyn FreshBytes) -> Option<UserKey> {
        let sealed = self.key.wrap(at_rest, &self.row("user_key", &self.user), fresh.array()).ok()?;
        Some(UserKey { sealed })
    }

    pub(crate) fn seal_emails(&self, emails: &EmailList, fresh: &dyn FreshBytes) -> Option<UserEmails> {
        let row = self.row("user_emails", &self.user);
        let sealed = self.key.seal(&row, &emails.encode(), fresh.array()).ok()?;
        Some(UserEmails { sealed })
    }

    pub(crate) fn open_emails(&self, emails: &UserEmails) -> Option<EmailList> {
        let opened = self.key.open(&self.row("user_emails", &self.user), &emails.sealed).ok()?;
        EmailList::decode(&opened).ok()
    }

    pub(crate) fn seal_mail(
        &self,
        mail: MailId,
        content: &MailContent,
        fresh: &dyn FreshBytes,
    ) -> Option<Vec<u8>> {
        let id = mail.to_bytes();
        self.key.seal(&self.row("outbox_mail", &id), &content.encode(), fresh.array()).ok()
    }

    pub(crate) fn open_mail(&self, mail: MailId, sealed: &[u8]) -> Option<MailContent> {
        let id = mail.to_bytes();
        let opened = self.key.open(&self.row("outbox_mail", &id), sealed).ok()?;
        MailContent::decode(&opened).ok()
    }

    fn row<'a>(&'a self, kind: &'static str, id: &'a [u8]) -> Row<'a> {
        Row { tenant: &self.tenant, kind, id }
    }
}

use zeroize::Zeroizing;

use crate::email_address::EmailAddress;
use crate::ids::{MailId, UserId};
use crate::key::Tenant;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{Loaded, MailKind, OutboxMail};

/// A mail before it is sealed.
pub(crate) struct Draft<'a> {
    pub user: UserId,
    pub kind: MailKind,
    pub to: &'a EmailAddress,
    pub token: Option<Zeroizing<String>>,
    pub ends_at: Millis,
}

/// A mail as it is stored.
pub(crate) struct Prepared {
    pub id: MailId,
    pub mail: OutboxMail,
}

/// Puts a mail into the outbox, to be sent at once.
pub(crate) fn post(plan: &mut Plan, tenant: Tenant, prepared: &Prepared) {
    let key = OutboxMail::key(tenant, prepared.mail.made_at, prepared.id);
    plan.replace(&Loaded { key, found: None }, &prepared.mail, None);
}

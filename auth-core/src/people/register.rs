use auth_credentials::opaque_token::{TokenHash, VerifyEmail};
use auth_credentials::password::PasswordHash;

use crate::audit::{AuditDraft, AuditEvent};
use crate::email_address::{AddressHash, EmailAddress};
use crate::ids::UserId;
use crate::key::Tenant;
use crate::millis::Millis;
use crate::outbox::{Prepared, post};
use crate::plan::Plan;
use crate::records::{
    Actor, AddressClaim, EmailVerification, Loaded, Resource, Stored, StoredPassword, User, UserEmails,
    UserKey, UserSessions, UserState,
};

/// What somebody registers with. The password was hashed before anybody looked whether the address is known: so the work is the same.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The address.
    pub address: EmailAddress,
    /// What is stored of the password, which the caller's policy has accepted.
    pub password: PasswordHash,
}

/// All that a registration makes.
pub(crate) struct Newcomer<'a> {
    pub user: UserId,
    pub key: UserKey,
    pub emails: UserEmails,
    pub password: &'a PasswordHash,
    pub token: TokenHash<VerifyEmail>,
    pub verification: EmailVerification,
    pub mail: Prepared,
}

/// Makes a user whose address nobody has verified: also not this one, yet.
pub(crate) fn register(
    tenant: Tenant,
    claim: &Loaded<AddressClaim>,
    newcomer: &Newcomer<'_>,
    now: Millis,
) -> Plan {
    let id = newcomer.user;
    let mut plan = Plan::default();
    let user = User { state: UserState::Active, epoch: 1, created_at: now };
    let password = StoredPassword { number: 1, set_at: now, hash: newcomer.password.clone() };
    let verification = &newcomer.verification;
    make(&mut plan, User::key(tenant, id), &user, None);
    make(&mut plan, UserSessions::key(tenant, id), &UserSessions::default(), None);
    make(&mut plan, UserKey::key(tenant, id), &newcomer.key, None);
    make(&mut plan, UserEmails::key(tenant, id), &newcomer.emails, None);
    make(&mut plan, StoredPassword::key(tenant, id), &password, None);
    let token = EmailVerification::key(tenant, &newcomer.token);
    make(&mut plan, token, verification, Some(verification.ends_at));
    plan.replace(claim, &AddressClaim { user: id, is_verified: false }, None);
    post(&mut plan, tenant, &newcomer.mail);
    plan.audit(AuditDraft {
        event: AuditEvent::UserRegistered,
        actor: Actor::User(id),
        user: id,
        resource: Resource::User(id),
        reason: None,
    });
    plan
}

/// Tells the owner of an address that somebody tried to register with it. Whoever did is told nothing.
pub(crate) fn tell_owner(
    tenant: Tenant,
    claim: &Loaded<AddressClaim>,
    owner: UserId,
    address: AddressHash,
    mail: &Prepared,
) -> Plan {
    let mut plan = Plan::default();
    plan.hold(claim);
    post(&mut plan, tenant, mail);
    plan.audit(AuditDraft {
        event: AuditEvent::RegistrationRepeated,
        actor: Actor::System,
        user: owner,
        resource: Resource::Address(address.id()),
        reason: None,
    });
    plan
}

fn make<T: Stored>(plan: &mut Plan, key: crate::key::Key, value: &T, expires_at: Option<Millis>) {
    plan.replace(&Loaded { key, found: None }, value, expires_at);
}

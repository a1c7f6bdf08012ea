use crate::audit::{AuditDraft, AuditEvent};
use crate::email_address::AddressHash;
use crate::ids::UserId;
use crate::millis::Millis;
use crate::plan::Plan;
use crate::records::{
    Actor, AddressClaim, Email, EmailList, EmailVerification, Loaded, Resource, User, UserEmails, UserState,
};
use crate::refusal::RefusalReason;

/// What a verification is decided from.
pub(crate) struct VerificationRows {
    pub token: Loaded<EmailVerification>,
    pub user: Loaded<User>,
    pub emails: Loaded<UserEmails>,
    pub claim: Loaded<AddressClaim>,
}

/// The user's addresses with this one verified; it becomes the primary one unless another verified one is.
///
/// An address that somebody else has verified meanwhile stays theirs, whoever registered first.
pub(crate) fn verified(
    rows: &VerificationRows,
    list: &EmailList,
    hash: impl Fn(&Email) -> AddressHash,
    now: Millis,
) -> Result<EmailList, RefusalReason> {
    let token = rows.token.value().ok_or(RefusalReason::Unknown)?;
    if now >= token.ends_at {
        return Err(RefusalReason::ExpiredAbsolute);
    }
    let user = rows.user.value().ok_or(RefusalReason::UserUnknown)?;
    if user.state != UserState::Active {
        return Err(RefusalReason::UserDisabled);
    }
    if rows.claim.value().is_some_and(|claim| claim.is_verified) {
        return Err(RefusalReason::Unverified);
    }
    let mut emails = list.emails.clone();
    let place = emails.iter().position(|email| hash(email) == token.address).ok_or(RefusalReason::Unknown)?;
    let mut email = emails.remove(place);
    email.verified_at = Some(now);
    let has_primary = emails.first().is_some_and(|email| email.verified_at.is_some());
    let place = if has_primary { place } else { 0 };
    emails.insert(place.min(emails.len()), email);
    Ok(EmailList { emails })
}

/// Consumes the token; from this commit on the address is the user's alone.
pub(crate) fn verify(
    rows: &VerificationRows,
    user: UserId,
    address: AddressHash,
    emails: &UserEmails,
) -> Plan {
    let mut plan = Plan::default();
    plan.remove(&rows.token);
    plan.hold(&rows.user);
    plan.replace(&rows.emails, emails, None);
    plan.replace(&rows.claim, &AddressClaim { user, is_verified: true }, None);
    plan.audit(AuditDraft {
        event: AuditEvent::UserEmailVerified,
        actor: Actor::User(user),
        user,
        resource: Resource::Address(address.id()),
        reason: None,
    });
    plan
}

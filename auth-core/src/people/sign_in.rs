use auth_credentials::password::{HashError, HashMemory, Password, PasswordHash, PasswordHasher, Verdict};

use crate::audit::{AuditDraft, AuditEvent};
use crate::email_address::AddressHash;
use crate::ids::UserId;
use crate::plan::Plan;
use crate::ports::Version;
use crate::records::{Actor, AddressClaim, Loaded, Resource, StoredPassword};
use crate::refusal::RefusalReason;
use crate::settings::PeopleSettings;

/// A password that was read, to be compared by whoever has threads for it.
#[derive(Debug, Clone)]
pub(crate) struct ReadPassword {
    pub user: UserId,
    pub number: u64,
    pub version: Version,
    pub hash: PasswordHash,
}

impl ReadPassword {
    pub(crate) fn of(user: UserId, loaded: &Loaded<StoredPassword>) -> Option<Self> {
        let (stored, version) = loaded.found.clone()?;
        Some(Self { user, number: stored.number, version, hash: stored.hash })
    }

    /// Whether the user's password is still this one, whatever its hash is by now.
    pub(crate) fn is_still(&self, loaded: &Loaded<StoredPassword>) -> bool {
        loaded.value().is_some_and(|stored| stored.number == self.number)
    }
}

/// The first half of a sign-in: what the password is compared with. That there is none is not to be shown.
#[derive(Debug, Clone)]
pub struct SignInChallenge {
    pub(crate) address: AddressHash,
    pub(crate) known: Option<ReadPassword>,
}

impl SignInChallenge {
    /// Compares a password, on a thread of the caller's; for an address without a password it works as long in vain.
    ///
    /// A stored hash of another cost than the hasher's takes its own time, until the next sign-in that goes well replaces it:
    /// after a change of cost, or an import, who measures may tell such a user from none.
    ///
    /// # Errors
    ///
    /// [`HashError`]: nothing was compared, and the sign-in ends here.
    pub fn verify(
        &self,
        hasher: &PasswordHasher,
        password: &Password,
        memory: &mut HashMemory,
    ) -> Result<Verdict, HashError> {
        match &self.known {
            Some(known) => hasher.verify(password, &known.hash, memory),
            None => hasher.verify_unknown(password, memory),
        }
    }

    /// About whom it is written into the log: of an address that is nobody's, somebody who is not there.
    fn subject(&self) -> UserId {
        self.known.as_ref().map_or_else(|| nobody(self.address), |known| known.user)
    }
}

/// What came of comparing a password.
#[derive(Debug, Clone)]
pub enum PasswordOutcome {
    /// It was another one.
    Mismatch,
    /// It was the one.
    Match {
        /// The same password hashed anew, when the stored hash is not what would be made now.
        rehashed: Option<PasswordHash>,
    },
}

/// A user who does not exist, for records that must not show that an address is nobody's.
pub(crate) fn nobody(address: AddressHash) -> UserId {
    UserId::from_bytes(address.id().to_bytes())
}

/// Whether somebody with the right password may sign in with this address.
pub(crate) fn admit_password(
    known: &ReadPassword,
    claim: &Loaded<AddressClaim>,
    password: &Loaded<StoredPassword>,
    settings: &PeopleSettings,
) -> Result<(), RefusalReason> {
    if !known.is_still(password) {
        return Err(RefusalReason::Credentials);
    }
    let claim = claim.value().filter(|claim| claim.user == known.user).ok_or(RefusalReason::Unverified)?;
    let may_sign_in = claim.is_verified || settings.sign_in_before_verification;
    if may_sign_in { Ok(()) } else { Err(RefusalReason::Unverified) }
}

/// Adds to the plan that opens the session what it depends on, and the new hash if the stored one is still the one that was compared.
pub(crate) fn depend_on_password(
    plan: &mut Plan,
    known: &ReadPassword,
    claim: &Loaded<AddressClaim>,
    password: &Loaded<StoredPassword>,
    rehashed: Option<&PasswordHash>,
) {
    plan.hold(claim);
    match (&password.found, rehashed) {
        (Some((stored, version)), Some(hash)) if *version == known.version => {
            let next = StoredPassword { hash: hash.clone(), ..stored.clone() };
            plan.replace(password, &next, None);
        }
        _ => plan.hold(password),
    }
}

/// Says in the log that a sign-in failed, in the same way whether the address, the password or the user was wrong.
pub(crate) fn sign_in_failed(challenge: &SignInChallenge) -> Plan {
    let mut plan = Plan::default();
    plan.audit(AuditDraft {
        event: AuditEvent::LoginFailed,
        actor: Actor::System,
        user: challenge.subject(),
        resource: Resource::Address(challenge.address.id()),
        reason: None,
    });
    plan
}

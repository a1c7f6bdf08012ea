//! The engine over a store: loads, decides, commits, and does it again when somebody else was first.

mod audit;
mod commit;
mod load;
mod outbox;
mod passwords;
mod people;
mod refresh;
mod sessions;
mod users;

pub use audit::AuditPage;
pub use outbox::ClaimedMail;
pub use refresh::Refreshed;
pub use sessions::{By, Ended, OpenedSession, Touch};

use std::fmt;
use std::sync::Arc;

use auth_credentials::envelope::KeyEncryptionKeys;

use crate::email_address::AddressKey;
use crate::fresh::FreshBytes;
use crate::key::{Table, Tenant};
use crate::ports::{AuthStore, AuthStoreError};
use crate::records::RecordError;
use crate::secrets::AuthSecrets;
use crate::settings::{AuthSettings, SettingsError};
use crate::tokens::TokenHasher;

/// How often a decision is made anew because another commit was first. Of so many that want one row at once, each wins in
/// time; without an end a store that always says "conflict" would hold its callers for ever.
pub const ATTEMPTS_MAX: usize = 256;

/// How often a commit whose outcome is unknown is sent again.
pub const RESENDS_MAX: usize = 16;

/// The engine: people of one tenant, their sessions and their refresh tokens, in a store. It has no state of its own, so any
/// number of them, in any number of processes, may stand over one store.
pub struct Auth<S> {
    store: Arc<S>,
    tenant: Tenant,
    hasher: TokenHasher,
    at_rest: KeyEncryptionKeys,
    addresses: AddressKey,
    fresh: Arc<dyn FreshBytes>,
    settings: AuthSettings,
}

impl<S: AuthStore> Auth<S> {
    /// An engine over a store.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] for settings that contradict themselves.
    pub fn new(
        store: Arc<S>,
        tenant: Tenant,
        secrets: AuthSecrets,
        fresh: Arc<dyn FreshBytes>,
        settings: AuthSettings,
    ) -> Result<Self, SettingsError> {
        settings.validate()?;
        let AuthSecrets { tokens: hasher, at_rest, addresses } = secrets;
        Ok(Self { store, tenant, hasher, at_rest, addresses, fresh, settings })
    }
}

/// No secret is in it.
impl<S> fmt::Debug for Auth<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Auth")
            .field("tenant", &self.tenant)
            .field("hasher", &self.hasher)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The engine could not decide. Nothing was let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The store failed. After [`UnknownOutcome`](AuthStoreError::UnknownOutcome) the effect may have happened.
    #[error(transparent)]
    Store(#[from] AuthStoreError),
    /// A record cannot be read.
    #[error("a record of table {} cannot be read: {source}", table.0)]
    Damaged {
        /// Of which kind.
        table: Table,
        /// Why.
        source: RecordError,
    },
    /// Others were first each time.
    #[error("{attempts} other commits were first: try again")]
    Busy {
        /// How often it was tried.
        attempts: usize,
    },
    /// A token could not be sealed or opened: a row was changed, or there is no generation behind the last one.
    #[error("the token cannot be made")]
    Token,
    /// A personal field could not be sealed or opened: its key is missing or another one, or a row was changed.
    #[error("a personal field cannot be opened")]
    Sealed,
}

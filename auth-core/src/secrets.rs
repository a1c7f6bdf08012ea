use auth_credentials::envelope::KeyEncryptionKeys;

use crate::email_address::AddressKey;
use crate::tokens::TokenHasher;

/// The operator's secrets that an engine works with. Each is derived from one that is nowhere in the store.
#[derive(Debug)]
pub struct AuthSecrets {
    /// For the hashes of tokens.
    pub tokens: TokenHasher,
    /// For the keys of users' personal fields.
    pub at_rest: KeyEncryptionKeys,
    /// For the hashes of e-mail addresses.
    pub addresses: AddressKey,
}

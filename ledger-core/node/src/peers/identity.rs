//! Who a node is: name, number, incarnation; and which cluster it belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest peer address or client URL of a member, in bytes.
pub const MEMBER_TEXT_BYTES_MAX: usize = 1_024;
/// Longest name of a node: a DNS label.
const NAME_BYTES_MAX: usize = 63;

/// A text that is no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not a name of a node.
    #[error("a node's name is 1 to 63 lower-case letters, digits and inner hyphens; {given:?} is not")]
    Name {
        /// What was given.
        given: String,
    },
    /// Not 32 hexadecimal digits.
    #[error("an id of a cluster is 32 hexadecimal digits; {given:?} is not")]
    Hex {
        /// What was given.
        given: String,
    },
}

/// The name of a node: a DNS label, which its certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, IdentityError> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let fits = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && name.bytes().all(allowed)
            && !name.starts_with('-')
            && !name.ends_with('-');
        if fits {
            Ok(Self(name))
        } else {
            Err(IdentityError::Name { given: name.chars().take(80).collect() })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for NodeName {
    type Error = IdentityError;

    fn try_from(name: String) -> Result<Self, IdentityError> {
        Self::new(name)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, IdentityError> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdentityError::Hex { given: text.chars().take(80).collect() })?;
                Ok(Self(bytes))
            }
        }
    };
}

random_id! {
    /// Identity of a cluster, minted when it is bootstrapped and again by `--force-new-cluster`: nodes of two
    /// clusters never talk to each other, even when both go on with one ledger's history.
    ClusterId
}
random_id! {
    /// Minted with each new data directory: a wiped node that comes back under its old number has another one.
    Incarnation
}

/// Who a node says that it is. The transport proves the name; the membership knows number and incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// Snowflake number, never given to another node.
    pub node_id: u64,
    /// Its name.
    pub name: NodeName,
    /// Which directory it is.
    pub incarnation: Incarnation,
}

/// What the members of a cluster know about one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Who it is.
    pub identity: PeerIdentity,
    /// Where its peers reach it, `host:port`.
    pub peer_address: String,
    /// Where its clients reach it; empty while unknown.
    pub client_url: String,
}

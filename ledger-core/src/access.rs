//! Roles and scopes: what a credential permits, and where.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::{NameError, NamespaceName, VaultRef};

/// What a credential permits inside its scope. Each role permits what the one before it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Reader,
    /// Reads and writes.
    Writer,
    /// Everything; namespaces, vaults and tokens need the scope `*` as well.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
        })
    }
}

/// Where a credential counts: `*`, `NAMESPACE` or `NAMESPACE/VAULT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// `*`: every namespace, and the ledger as a whole.
    Everything,
    /// Every vault of a namespace, also those of later days.
    Namespace(NamespaceName),
    /// One vault, by name.
    Vault(VaultRef),
}

/// A text that is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a scope is written *, NAMESPACE or NAMESPACE/VAULT: {source}")]
pub struct ScopeError {
    /// What is wrong with the name.
    #[from]
    source: NameError,
}

impl Scope {
    /// Whether a vault lies in this scope.
    pub fn covers(&self, vault: &VaultRef) -> bool {
        match self {
            Self::Everything => true,
            Self::Namespace(namespace) => *namespace == vault.namespace,
            Self::Vault(only) => only == vault,
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Ok(match text {
            "*" => Self::Everything,
            vault if vault.contains('/') => Self::Vault(vault.parse()?),
            namespace => Self::Namespace(NamespaceName::new(namespace)?),
        })
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> String {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.write_str("*"),
            Self::Namespace(namespace) => namespace.fmt(f),
            Self::Vault(vault) => vault.fmt(f),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_scope_covers_exactly_what_it_names() {
        let vault: VaultRef = "acme/main".parse().unwrap();
        let covers = |scope: &str| scope.parse::<Scope>().unwrap().covers(&vault);
        assert!(covers("*") && covers("acme") && covers("acme/main"));
        assert!(!covers("acm") && !covers("acme2") && !covers("acme/main2") && !covers("other/main"));
    }

    #[test]
    fn scopes_print_as_they_parse_and_nothing_else_parses() {
        for text in ["*", "acme", "acme/main"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in ["", "**", "*/main", "acme/*", "acme/", "/main", "a/b/c", "Acme"] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }
}

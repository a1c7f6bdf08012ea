//! Page sizes, and the page tokens of administrative lists.
//!
//! Tokens of vault lists are made and checked by the engine. Lists of namespaces and vaults are for
//! administrators of everything, so their tokens need no secret: they name the query and the last row,
//! and work on any node and after a restart.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::field::{AtField, BadField, FieldFault};

/// Rows of a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: u32 = 100;
/// Most rows of a page.
pub const PAGE_SIZE_MAX: u32 = 1_000;
/// Longest page token that is looked at, in bytes.
pub const PAGE_TOKEN_BYTES_MAX: usize = 8 * 1_024;

/// The page size that was asked for; 0 is the default.
pub(crate) fn page_size(given: u32) -> Result<u32, BadField> {
    match given {
        0 => Ok(PAGE_SIZE_DEFAULT),
        1..=PAGE_SIZE_MAX => Ok(given),
        _ => Err(FieldFault::PageSize { given }).at("page_size"),
    }
}

/// Refuses a token that is longer than any that was ever made.
pub(crate) fn page_token(given: String) -> Result<String, BadField> {
    if given.len() > PAGE_TOKEN_BYTES_MAX {
        return Err(FieldFault::PageTokenMalformed).at("page_token");
    }
    Ok(given)
}

/// An administrative list, with its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryQuery<'a> {
    /// Every namespace.
    Namespaces,
    /// The vaults of one namespace, or of all (empty).
    Vaults { namespace: &'a str },
}

impl DirectoryQuery<'_> {
    fn tag(self) -> String {
        match self {
            Self::Namespaces => "1 namespaces".to_owned(),
            Self::Vaults { namespace } => format!("1 vaults {namespace}"),
        }
    }

    /// The token for what follows the row `last`.
    pub(crate) fn token_after(self, last: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}\n{last}", self.tag()))
    }

    /// The last row that the token names; `None` for an empty token.
    pub(crate) fn last_row(self, token: &str) -> Result<Option<String>, BadField> {
        if token.is_empty() {
            return Ok(None);
        }
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.split_once('\n')) {
            Some((tag, last)) if tag == self.tag() => Ok(Some(last.to_owned())),
            Some((tag, _)) if tag.starts_with("1 ") => Err(FieldFault::PageTokenMismatch).at("page_token"),
            _ => Err(FieldFault::PageTokenMalformed).at("page_token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_default_and_are_capped() {
        assert_eq!(page_size(0), Ok(100));
        assert_eq!(page_size(1_000), Ok(1_000));
        assert!(page_size(1_001).is_err());
    }

    #[test]
    fn directory_tokens_answer_only_their_own_query() {
        let acme = DirectoryQuery::Vaults { namespace: "acme" };
        let token = acme.token_after("acme/main");
        assert_eq!(acme.last_row(&token), Ok(Some("acme/main".to_owned())));
        assert_eq!(acme.last_row(""), Ok(None));
        let other = DirectoryQuery::Vaults { namespace: "" };
        assert_eq!(other.last_row(&token).map_err(|e| e.fault), Err(FieldFault::PageTokenMismatch));
        assert_eq!(
            DirectoryQuery::Namespaces.last_row(&token).map_err(|e| e.fault),
            Err(FieldFault::PageTokenMismatch)
        );
        assert_eq!(acme.last_row("garbage").map_err(|e| e.fault), Err(FieldFault::PageTokenMalformed));
    }
}

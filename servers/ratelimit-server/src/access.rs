//! Tokens, and who has to show one.

use std::sync::Arc;

use service_kit::Secret;
use subtle::ConstantTimeEq as _;

/// A token that callers show. Compared without telling how much of it was right.
#[derive(Clone, Debug)]
pub struct AccessToken(Arc<Secret<String>>);

impl AccessToken {
    /// This token.
    pub fn new(token: Secret<String>) -> Self {
        Self(Arc::new(token))
    }

    /// Whether these bytes are it.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(shown).into()
    }
}

/// Who may ask, and who may change things.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What checks need; none is open to everybody who reaches the port.
    pub check: Option<AccessToken>,
    /// What refunds, resets and lists need; without one they are refused. It is good for checks too.
    pub admin: Option<AccessToken>,
}

impl Access {
    /// Whether checks are open to a caller who shows this.
    pub fn may_check(&self, shown: Option<&[u8]>) -> bool {
        match (&self.check, shown) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(token), Some(shown)) => token.is(shown) || self.may_administer(Some(shown)),
        }
    }

    /// Whether a caller who shows this may change things.
    pub fn may_administer(&self, shown: Option<&[u8]>) -> bool {
        self.admin.as_ref().zip(shown).is_some_and(|(token, shown)| token.is(shown))
    }

    /// Whether anything is asked of callers who check.
    pub fn is_open(&self) -> bool {
        self.check.is_none()
    }
}

/// The token of an `Authorization: Bearer …` value.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Option<AccessToken> {
        Some(AccessToken::new(Secret::new(text.to_owned())))
    }

    #[test]
    fn an_admin_token_is_good_for_everything_and_a_check_token_for_checks_alone() {
        let access = Access { check: token("check"), admin: token("admin") };
        let may = |shown: Option<&str>| {
            let shown = shown.map(str::as_bytes);
            (access.may_check(shown), access.may_administer(shown))
        };
        assert_eq!(may(None), (false, false));
        assert_eq!(may(Some("wrong")), (false, false));
        assert_eq!(may(Some("check")), (true, false));
        assert_eq!(may(Some("admin")), (true, true));
    }

    #[test]
    fn without_tokens_checks_are_open_and_nothing_is_administered() {
        let access = Access::default();
        assert!(access.may_check(None) && !access.may_administer(None) && !access.may_administer(Some(b"")));
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_the_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}

//! Ids: 128 random bits of the caller, typed, so that no session is taken for a user. None of them is a secret.

use std::fmt;
use std::str::FromStr;

/// Bytes of an id.
pub const ID_BYTES: usize = 16;

/// A text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind: expected {prefix} and 32 lower-case hexadecimal digits")]
pub struct IdError {
    /// What ids of the kind begin with.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_BYTES]);

        impl $name {
            /// What the text of such an id begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The id of these bytes. For a new one they are fresh and random.
            pub const fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn to_bytes(self) -> [u8; ID_BYTES] {
                self.0
            }
        }

        /// The prefix and 32 lower-case hexadecimal digits.
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str($prefix)?;
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse($prefix, text).map(Self).ok_or(IdError { prefix: $prefix })
            }
        }
    )+};
}

ids! {
    /// A user's.
    UserId = "usr_";
    /// A session's. It stays when the session gets a new token.
    SessionId = "ses_";
    /// That of a family of refresh tokens: one token and all that it was exchanged for.
    FamilyId = "fam_";
    /// That of an e-mail address: of its keyed hash. The same address has the same one.
    AddressId = "adr_";
    /// A mail's.
    MailId = "mai_";
}

fn parse(prefix: &str, text: &str) -> Option<[u8; ID_BYTES]> {
    let digits = text.strip_prefix(prefix)?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let mut bytes = [0; ID_BYTES];
    if !rest.is_empty() || pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a').map(|value| value.saturating_add(10)),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_has_the_documented_text() {
        let user = UserId::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(user.to_string(), "usr_000102030405060708090a0b0c0d0eff");
        assert_eq!(format!("{user:?}"), user.to_string());
    }

    #[test]
    fn an_id_of_one_kind_is_none_of_another_and_has_one_text() {
        let session = SessionId::from_bytes([0xab; 16]).to_string();
        assert!(session.parse::<UserId>().is_err());
        for text in [
            "",
            "ses_",
            &session.to_uppercase(),
            &session.replace('b', "B"),
            &format!("{session}0"),
            &format!("{session}00"),
            &session[..session.len() - 2],
            &format!(" {session}"),
            &session.replace("ab", "+b"),
        ] {
            assert_eq!(text.parse::<SessionId>(), Err(IdError { prefix: "ses_" }), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_back(bytes: [u8; 16]) {
            let id = FamilyId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<FamilyId>().unwrap(), id);
        }

        #[test]
        fn no_text_makes_an_id_panic(text in ".{0,60}", tail in "[0-9a-fé]{28,34}") {
            let _ = text.parse::<UserId>();
            let _ = format!("usr_{tail}").parse::<UserId>();
        }
    }
}

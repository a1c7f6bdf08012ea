//! Relationships: who stands in which relation to what.

use serde::{Deserialize, Serialize};

/// Longest resource or subject, in bytes of UTF-8.
pub const OBJECT_BYTES_MAX: usize = 512;
/// Longest relation, in bytes.
pub const RELATION_BYTES_MAX: usize = 64;

/// A part of a relationship was refused at construction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelationshipError {
    /// A resource or subject exceeds [`OBJECT_BYTES_MAX`].
    #[error("a {part} has at most {OBJECT_BYTES_MAX} bytes, this one has {length}")]
    ObjectTooLong {
        /// `resource` or `subject`.
        part: &'static str,
        /// Bytes given.
        length: usize,
    },
    /// Not of the form `type:id`, or for a subject `type:id#relation`.
    #[error("a {part} is written {form}; {given:?} is not")]
    Form {
        /// `resource` or `subject`.
        part: &'static str,
        /// The form that was expected.
        form: &'static str,
        /// What was given.
        given: String,
    },
    /// The relation is empty or exceeds [`RELATION_BYTES_MAX`].
    #[error("a relation has 1 to {RELATION_BYTES_MAX} bytes, this one has {length}")]
    RelationLength {
        /// Bytes given.
        length: usize,
    },
    /// The relation has a character outside `a-z A-Z 0-9 _ - .`
    #[error("a relation has only letters, digits, '_', '-' and '.'; {given:?} has others")]
    RelationCharacter {
        /// What was given.
        given: String,
    },
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Splits `type:id`; the id may have any visible characters but `#`, space and controls.
fn is_object(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, id)| {
        is_identifier(kind)
            && !id.is_empty()
            && !id.chars().any(|c| c == '#' || c.is_whitespace() || c.is_control())
    })
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks length and form.
            pub fn new(text: &str) -> Result<Self, RelationshipError> {
                let check: fn(&str) -> Result<(), RelationshipError> = $check;
                check(text).map(|()| Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = RelationshipError;
            fn try_from(text: String) -> Result<Self, RelationshipError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0.into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// `type:id`, at most 512 bytes.
    Resource, |text| {
        if text.len() > OBJECT_BYTES_MAX {
            return Err(RelationshipError::ObjectTooLong { part: "resource", length: text.len() });
        }
        if !is_object(text) {
            return Err(RelationshipError::Form { part: "resource", form: "type:id", given: excerpt(text) });
        }
        Ok(())
    }
}

text_type! {
    /// 1 to 64 bytes of letters, digits, `_`, `-`, `.`
    Relation, |text| {
        if text.is_empty() || text.len() > RELATION_BYTES_MAX {
            return Err(RelationshipError::RelationLength { length: text.len() });
        }
        if !is_identifier(text) {
            return Err(RelationshipError::RelationCharacter { given: excerpt(text) });
        }
        Ok(())
    }
}

text_type! {
    /// `type:id` or `type:id#relation`, at most 512 bytes.
    Subject, |text| {
        if text.len() > OBJECT_BYTES_MAX {
            return Err(RelationshipError::ObjectTooLong { part: "subject", length: text.len() });
        }
        let (object, relation_ok) = match text.split_once('#') {
            None => (text, true),
            Some((object, relation)) => (object, is_identifier(relation) && relation.len() <= RELATION_BYTES_MAX),
        };
        if !relation_ok || !is_object(object) {
            return Err(RelationshipError::Form {
                part: "subject",
                form: "type:id or type:id#relation",
                given: excerpt(text),
            });
        }
        Ok(())
    }
}

/// One tuple: `subject` stands in `relation` to `resource`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relationship {
    /// What the tuple is about.
    pub resource: Resource,
    /// The relation.
    pub relation: Relation,
    /// Who stands in it.
    pub subject: Subject,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_limits_are_enforced() {
        assert!(Resource::new("pkg:libstdc++6").is_ok());
        assert!(Resource::new("pkg").is_err());
        assert!(Resource::new("pkg:a#b").is_err());
        assert!(Resource::new(":a").is_err());
        assert!(Subject::new("group:dev#member").is_ok());
        assert!(Subject::new("group:dev#").is_err());
        assert!(Subject::new("user:a b").is_err());
        assert!(Relation::new("required_by").is_ok());
        assert_eq!(Relation::new(""), Err(RelationshipError::RelationLength { length: 0 }));
        assert_eq!(Relation::new(&"r".repeat(65)), Err(RelationshipError::RelationLength { length: 65 }));
        let long = format!("t:{}", "x".repeat(511));
        assert_eq!(
            Resource::new(&long),
            Err(RelationshipError::ObjectTooLong { part: "resource", length: 513 })
        );
        assert_eq!(
            Subject::new(&long),
            Err(RelationshipError::ObjectTooLong { part: "subject", length: 513 })
        );
        assert!(Resource::new(&long[..512]).is_ok());
    }
}

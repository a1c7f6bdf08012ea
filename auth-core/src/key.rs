//! Keys of records: a table, a tenant, and parts that each stand behind their length.

use std::fmt;

/// Bytes of an encoded key, at most. The longest identifier from outside is a passkey's (1,023 bytes).
pub const KEY_BYTES_MAX: usize = 1_280;

/// Table and tenant.
const HEAD_BYTES: usize = 10;

/// Of a part's length.
const LENGTH_BYTES: usize = 2;

/// A kind of record. Its number is stored: it is never given to another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table(pub u16);

impl Table {
    /// Numbers from here on are for tests of stores; no record of the engine has one.
    pub const FIRST_OF_TESTS: Self = Self(0xff00);
}

/// Whose record it is. No range holds records of two tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(pub u64);

/// The key of a record, in its encoded form: table (2 bytes, big-endian), tenant (8 bytes, big-endian), then each part behind
/// its length (2 bytes, big-endian). No two lists of parts have the same bytes, whatever is in the parts.
///
/// Keys are ordered by their bytes. So keys that begin with the same parts are neighbours, and numbers are in their order;
/// byte strings are ordered by length, then by content.
///
/// What goes into a key may appear in change feeds and errors: no secret does, only its keyed hash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key without parts.
    pub fn new(table: Table, tenant: Tenant) -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&table.0.to_be_bytes());
        bytes.extend_from_slice(&tenant.0.to_be_bytes());
        Self(bytes)
    }

    /// The key with a number more: 8 bytes, big-endian.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.bytes(number.to_be_bytes())
    }

    /// The key with a part more. With a part that is too long every store refuses the key.
    #[must_use]
    pub fn bytes(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        // Cut to a length that makes the key too long all the same.
        let part = part.get(..KEY_BYTES_MAX).unwrap_or(part);
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(part);
        self
    }

    /// The key of these bytes, when they are one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > KEY_BYTES_MAX {
            return None;
        }
        let mut rest = bytes.get(HEAD_BYTES..)?;
        while !rest.is_empty() {
            (_, rest) = split_part(rest)?;
        }
        Some(Self(bytes.to_vec()))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its table.
    pub fn table(&self) -> Table {
        Table(self.0.first_chunk().map_or(0, |table| u16::from_be_bytes(*table)))
    }

    /// Its tenant.
    pub fn tenant(&self) -> Tenant {
        let tenant = self.0.get(2..).and_then(|rest| rest.first_chunk());
        Tenant(tenant.map_or(0, |tenant| u64::from_be_bytes(*tenant)))
    }

    /// Its parts.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.get(HEAD_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (part, behind) = split_part(rest)?;
            rest = behind;
            Some(part)
        })
    }

    /// Whether it fits into [`KEY_BYTES_MAX`].
    pub fn fits(&self) -> bool {
        self.0.len() <= KEY_BYTES_MAX
    }
}

fn split_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Numbers as numbers; of other parts the length only, for they may be about a person.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "table {} tenant {}", self.table().0, self.tenant().0)?;
        for part in self.parts() {
            match <[u8; 8]>::try_from(part) {
                Ok(number) => write!(formatter, " / {}", u64::from_be_bytes(number))?,
                Err(_) => write!(formatter, " / ({} bytes)", part.len())?,
            }
        }
        Ok(())
    }
}

/// Keys of one table and tenant between two bounds.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    first: Vec<u8>,
    /// The first that is beyond; `None` = there is none.
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// The keys that begin with the table, tenant and parts of this one; itself included.
    pub fn under(prefix: &Key) -> Self {
        Self { first: prefix.0.clone(), end: successor(&prefix.0) }
    }

    /// What the range has from this key on. Nothing, when the key is behind the range.
    #[must_use]
    pub fn from(self, first: &Key) -> Self {
        Self { first: self.first.max(first.0.clone()), end: self.end }
    }

    /// What the range has before this key.
    #[must_use]
    pub fn until(self, end: &Key) -> Self {
        let end = match self.end {
            Some(old) => old.min(end.0.clone()),
            None => end.0.clone(),
        };
        Self { first: self.first, end: Some(end) }
    }

    /// What the range has behind this key.
    #[must_use]
    pub fn behind(self, key: &Key) -> Self {
        let mut first = key.0.clone();
        // The next string of bytes.
        first.push(0);
        Self { first: self.first.max(first), end: self.end }
    }

    /// The bytes of the first key that may be in it.
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// The first bytes that are beyond it; `None` when nothing is.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// Whether no key can be in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.first)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound =
            |bytes: &[u8]| Key::decode(bytes).map_or_else(|| "..".to_owned(), |key| format!("{key:?}"));
        write!(formatter, "{} until {}", bound(&self.first), bound(self.end.as_deref().unwrap_or_default()))
    }
}

/// The first string of bytes behind all that begin with this one.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let (kept, _) = prefix.split_at_checked(last.saturating_add(1))?;
    let mut end = kept.to_vec();
    let byte = end.last_mut()?;
    *byte = byte.saturating_add(1);
    Some(end)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn key(parts: &[Vec<u8>]) -> Key {
        parts.iter().fold(Key::new(Table(7), Tenant(9)), |key, part| key.bytes(part))
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The golden vectors of docs/formats.md.
    #[test]
    fn a_key_has_the_documented_bytes() {
        let of = |key: Key| hex(key.as_bytes());
        assert_eq!(of(Key::new(Table(1), Tenant(0))), "00010000000000000000");
        assert_eq!(
            of(Key::new(Table(0x0203), Tenant(4)).number(5).bytes("a:b")),
            "02030000000000000004 0008 0000000000000005 0003 613a62".replace(' ', "")
        );
        assert_eq!(of(Key::new(Table(1), Tenant(0)).bytes([])), "000100000000000000000000");
    }

    #[test]
    fn a_separator_in_a_part_makes_no_other_key() {
        let of = |parts: [&str; 2]| Key::new(Table(1), Tenant(1)).bytes(parts[0]).bytes(parts[1]);
        assert_ne!(of(["a:b", "c"]), of(["a", "b:c"]));
        assert_ne!(of(["ab", ""]), of(["a", "b"]));
    }

    #[test]
    fn a_key_that_is_too_long_stays_too_long() {
        for length in [KEY_BYTES_MAX - HEAD_BYTES - LENGTH_BYTES + 1, KEY_BYTES_MAX, 70_000] {
            let key = Key::new(Table(1), Tenant(1)).bytes(vec![1; length]);
            assert!(!key.fits(), "{length}");
            assert_eq!(Key::decode(key.as_bytes()), None);
        }
        assert!(Key::new(Table(1), Tenant(1)).bytes(vec![1; KEY_BYTES_MAX - 12]).fits());
    }

    #[test]
    fn a_range_behind_the_last_prefix_has_no_end() {
        let last = Key::new(Table(u16::MAX), Tenant(u64::MAX));
        let range = KeyRange::under(&last);
        assert_eq!(range.end(), None);
        assert!(!range.is_empty());
        let until = range.until(&last);
        assert!(until.is_empty());
    }

    #[test]
    fn a_key_shows_numbers_but_no_bytes() {
        let key = Key::new(Table(3), Tenant(4)).number(5).bytes("ada@example.org");
        assert_eq!(format!("{key:?}"), "table 3 tenant 4 / 5 / (15 bytes)");
    }

    proptest! {
        #[test]
        fn keys_of_different_parts_have_different_bytes(
            a in vec(vec(0u8..3, 0..4), 0..4), b in vec(vec(0u8..3, 0..4), 0..4),
        ) {
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }

        #[test]
        fn a_key_is_read_back_whole(parts in vec(vec(any::<u8>(), 0..40), 0..6), cut in 0usize..300) {
            let key = key(&parts);
            let decoded = Key::decode(key.as_bytes()).unwrap();
            prop_assert_eq!(decoded.parts().map(<[u8]>::to_vec).collect::<Vec<_>>(), parts);
            prop_assert_eq!((decoded.table(), decoded.tenant()), (Table(7), Tenant(9)));
            // Whatever is left of it decodes to what it says or not at all.
            if let Some(shorter) = key.as_bytes().get(..cut).and_then(Key::decode) {
                prop_assert_eq!(Some(shorter.as_bytes()), key.as_bytes().get(..cut));
            }
        }

        #[test]
        fn a_range_has_exactly_the_keys_that_begin_with_its_parts(
            prefix in vec(vec(prop_oneof![Just(0u8), Just(255)], 0..3), 0..3),
            other in vec(vec(prop_oneof![Just(0u8), Just(255)], 0..3), 0..4),
        ) {
            let range = KeyRange::under(&key(&prefix));
            let bytes = key(&other).0;
            let within = bytes.as_slice() >= range.first() && range.end().is_none_or(|end| bytes.as_slice() < end);
            prop_assert_eq!(within, other.starts_with(&prefix));
        }

        #[test]
        fn numbers_are_in_their_order(a: u64, b: u64) {
            let of = |number| Key::new(Table(1), Tenant(1)).number(number);
            prop_assert_eq!(of(a).cmp(&of(b)), a.cmp(&b));
        }
    }
}

//! The bytes of the file; `docs/formats.md` has them too.

use std::time::Duration;

use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{KeyParts, Limit, Nanos, Rate};
use siphasher::sip128::SipHasher24;

use crate::redb::format::RowDefinition;
use crate::redb::one_file::FileFormat;
use crate::redb::row::RowTable;

/// The layout that this program writes.
pub(super) const FORMAT_VERSION: u32 = 1;

/// How the file calls itself, whatever its name is.
pub(super) const FORMAT: FileFormat = FileFormat { kind: b"rates.db", version: FORMAT_VERSION };

pub(super) const POLICIES: RowDefinition = RowDefinition::new("policies");
pub(super) const RATES: RowDefinition = RowDefinition::new("rates");

/// Rows of table `meta`, beside the format.
pub(super) const EPOCH: &[u8] = b"epoch";
pub(super) const SECRET: &[u8] = b"secret";

pub(super) const META_ROWS: RowTable = RowTable { number: 0xE4, name: "rates.db meta" };
pub(super) const POLICY_ROWS: RowTable = RowTable { number: 0xE5, name: "rates.db policies" };
pub(super) const RATE_ROWS: RowTable = RowTable { number: 0xE6, name: "rates.db rates" };

const POLICY_VERSION: u8 = 1;

/// What tells a counter from all others: its policy and a keyed hash of its key. Its order is that of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RowKey {
    pub policy: u32,
    tag: [u8; 16],
}

impl RowKey {
    /// The first key of a policy.
    pub(super) fn first_of(policy: u32) -> Self {
        Self { policy, tag: [0; 16] }
    }

    /// The last key of a policy.
    pub(super) fn last_of(policy: u32) -> Self {
        Self { policy, tag: [u8::MAX; 16] }
    }

    pub(super) fn new(policy: u32, tag: Tag) -> Self {
        Self { policy, tag: tag.0 }
    }

    pub(super) fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let parts = self.policy.to_be_bytes().into_iter().chain(self.tag);
        bytes.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let key = Self { policy: reader.u32()?, tag: reader.take()? };
        reader.end(key)
    }
}

/// A keyed hash of a key's parts: 128 bits, so that no two keys of one file ever share one by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag([u8; 16]);

/// Which hash, chosen by 128 random bits when the file is made. Nobody who does not read the file can make two keys meet,
/// and the file tells no client's address or name.
#[derive(Clone, Copy)]
pub(super) struct Secret(pub [u8; 16]);

impl Secret {
    pub(super) fn tag(&self, key: &KeyParts) -> Tag {
        Tag(SipHasher24::new_with_key(&self.0).hash(key.as_bytes()).as_bytes())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// A policy as the file keeps it: what made its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredPolicy {
    pub name: String,
    pub limit: Limit,
}

/// `None` for a limit that is not kept.
pub(super) fn encode_policy(name: &str, limit: &Limit) -> Option<Vec<u8>> {
    let mut bytes = vec![POLICY_VERSION];
    put_text(&mut bytes, name)?;
    let mut put = |kind: u8, numbers: &[u64]| {
        bytes.push(kind);
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
    };
    match limit {
        Limit::Unlimited => put(0, &[]),
        Limit::DenyAll => put(1, &[]),
        Limit::Gcra(bucket) => {
            let rate = bucket.rate();
            put(2, &[rate.count, nanoseconds(rate.period)?, bucket.burst(), bucket.debt_max()]);
        }
        Limit::FixedWindow(window) => {
            put(3, &[window.limit(), nanoseconds(window.period())?, nanoseconds(window.phase())?]);
        }
        Limit::Calendar(calendar) => {
            put(4, &[calendar.limit()]);
            let boundaries = calendar.boundaries();
            bytes.push(unit_number(boundaries.unit()));
            put_text(&mut bytes, boundaries.zone())?;
            let starts = boundaries.starts();
            bytes.extend_from_slice(&u32::try_from(starts.len()).ok()?.to_be_bytes());
            starts.for_each(|start| bytes.extend_from_slice(&start.0.to_be_bytes()));
        }
        _ => return None,
    }
    Some(bytes)
}

pub(super) fn decode_policy(bytes: &[u8]) -> Option<StoredPolicy> {
    let mut reader = Reader(bytes);
    if reader.u8()? != POLICY_VERSION {
        return None;
    }
    let name = reader.text()?;
    let limit = match reader.u8()? {
        0 => Limit::Unlimited,
        1 => Limit::DenyAll,
        2 => {
            let rate = Rate::new(reader.u64()?, Duration::from_nanos(reader.u64()?));
            Limit::gcra_with_debt(rate, reader.u64()?, reader.u64()?).ok()?
        }
        3 => {
            let (limit, period, phase) = (reader.u64()?, reader.u64()?, reader.u64()?);
            Limit::fixed_window_from(limit, Duration::from_nanos(period), Duration::from_nanos(phase)).ok()?
        }
        4 => {
            let (limit, unit, zone, count) =
                (reader.u64()?, unit_of(reader.u8()?)?, reader.text()?, reader.u32()?);
            let starts = (0..count).map(|_| reader.u64().map(Nanos)).collect::<Option<Vec<_>>>()?;
            Limit::calendar(limit, Boundaries::new(unit, &zone, starts).ok()?).ok()?
        }
        _ => return None,
    };
    reader.end(StoredPolicy { name, limit })
}

fn nanoseconds(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_nanos()).ok()
}

fn unit_number(unit: CalendarUnit) -> u8 {
    match unit {
        CalendarUnit::Day => 0,
        CalendarUnit::Week => 1,
        CalendarUnit::Month => 2,
        CalendarUnit::Quarter => 3,
        CalendarUnit::Year => 4,
    }
}

fn unit_of(number: u8) -> Option<CalendarUnit> {
    const UNITS: [CalendarUnit; 5] = [
        CalendarUnit::Day,
        CalendarUnit::Week,
        CalendarUnit::Month,
        CalendarUnit::Quarter,
        CalendarUnit::Year,
    ];
    UNITS.into_iter().find(|unit| unit_number(*unit) == number)
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    bytes.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
    Some(())
}

pub(super) fn decode_u64(bytes: &[u8]) -> Option<u64> {
    let mut reader = Reader(bytes);
    let number = reader.u64()?;
    reader.end(number)
}

pub(super) fn decode_u32(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader(bytes);
    let number = reader.u32()?;
    reader.end(number)
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(self.take().map(u16::from_be_bytes)?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    /// The value, when nothing is left over.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
#[expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first vector of SipHash's authors for 128 bits, and ours.
    #[test]
    fn a_tag_is_what_the_authors_of_siphash_publish() {
        let secret = Secret(std::array::from_fn(|index| index as u8));
        assert_eq!(hex(&secret.tag(&KeyParts::default()).0), "a3817f04ba25a8e66df67214c7550293");
        let key = RowKey::new(7, secret.tag(&KeyParts::default()));
        assert_eq!(hex(&key.to_bytes()), "00000007a3817f04ba25a8e66df67214c7550293");
        assert_eq!(RowKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(RowKey::from_bytes(&[0; 19]), None);
        assert_eq!(RowKey::from_bytes(&[0; 21]), None);
    }

    fn policies() -> Vec<(&'static str, Limit, &'static str)> {
        let minute = Duration::from_secs(60);
        let starts = vec![Nanos(0), Nanos(1_000)];
        let boundaries = Boundaries::new(CalendarUnit::Month, "Europe/Berlin", starts).expect("two");
        let of = |limit: Result<Limit, ratelimit_core::LimitError>| limit.expect("it can be kept");
        vec![
            ("u", Limit::Unlimited, "0100017500"),
            ("d", Limit::DenyAll, "0100016401"),
            (
                "b",
                of(Limit::gcra_with_debt(Rate::per_minute(60), 20, 5)),
                "0100016202000000000000003c0000000df847580000000000000000140000000000000005",
            ),
            (
                "w",
                of(Limit::fixed_window_from(3, minute, Duration::from_secs(1))),
                "01000177030000000000000003 0000000df8475800 000000003b9aca00",
            ),
            (
                "c",
                of(Limit::calendar(9, boundaries)),
                "01000163040000000000000009 02 000d4575726f70652f4265726c696e 00000002 0000000000000000 00000000000003e8",
            ),
        ]
    }

    #[test]
    fn a_policy_has_one_encoding_and_strict_decoding() {
        for (name, limit, expected) in policies() {
            let bytes = encode_policy(name, &limit).expect("it is kept");
            assert_eq!(hex(&bytes), expected.replace(' ', ""), "{name}");
            let policy = StoredPolicy { name: name.to_owned(), limit };
            assert_eq!(decode_policy(&bytes), Some(policy));
            for length in 0..bytes.len() {
                assert_eq!(decode_policy(&bytes[..length]), None, "{name} cut to {length}");
            }
            assert_eq!(decode_policy(&[bytes, vec![0]].concat()), None, "{name} with a byte more");
        }
        let log = Limit::sliding_log(3, Duration::from_secs(1)).expect("it can be kept");
        assert_eq!(encode_policy("log", &log), None);
    }
}

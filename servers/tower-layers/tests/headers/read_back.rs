//! Whatever is written, the crate `sfv` reads as what was meant.

use std::time::Duration;

use http::HeaderMap;
use proptest::prelude::*;
use sfv::{BareItem, Item, List, ListEntry, Parser};
use tower_layers::headers::{HeaderStyle, INTEGER_MAX, PartitionKey, Quota, QuotaPolicy, QuotaUnit};

#[derive(Clone, Debug)]
struct Given {
    name: String,
    limit: u64,
    window_ms: u64,
    unit: QuotaUnit,
    key: Option<Vec<u8>>,
    remaining: u64,
    more_after_ms: u64,
}

fn given() -> impl Strategy<Value = Given> {
    let number = || prop_oneof![0_u64..5_000, any::<u64>()];
    let unit = prop::sample::select(vec![
        QuotaUnit::Requests,
        QuotaUnit::ContentBytes,
        QuotaUnit::ConcurrentRequests,
    ]);
    let key = prop::option::of(prop::collection::vec(any::<u8>(), 0..64));
    ("[ -~]{1,64}", number(), 0_u64..100_000, unit, key, number(), 0_u64..100_000).prop_map(
        |(name, limit, window_ms, unit, key, remaining, more_after_ms)| Given {
            name,
            limit,
            window_ms,
            unit,
            key,
            remaining,
            more_after_ms,
        },
    )
}

fn policy(given: &Given) -> QuotaPolicy {
    let policy = QuotaPolicy::new(given.name.parse().expect("a name"), given.limit)
        .with_window(Duration::from_millis(given.window_ms))
        .with_unit(given.unit);
    match &given.key {
        Some(key) => policy.with_partition_key(PartitionKey::new(key).expect("a key")),
        None => policy,
    }
}

fn items(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let list: List = Parser::new(headers[name].as_bytes()).parse().expect("a list");
    let item = |entry| match entry {
        ListEntry::Item(item) => item,
        ListEntry::InnerList(list) => panic!("an inner list: {list:?}"),
    };
    list.into_iter().map(item).collect()
}

fn integer(item: &Item, key: &str) -> Option<u64> {
    let value = item.params.get(key)?.as_integer().expect("an integer");
    Some(u64::try_from(i64::from(value)).expect("not negative"))
}

fn bytes(item: &Item) -> Option<Vec<u8>> {
    item.params.get("pk").map(|key| key.as_byte_sequence().expect("bytes").to_vec())
}

fn name(item: &Item) -> &str {
    match &item.bare_item {
        BareItem::String(name) => name.as_str(),
        other => panic!("{other:?} is no string"),
    }
}

/// What a structured field holds of a number.
fn held(number: u64) -> u64 {
    number.min(INTEGER_MAX)
}

proptest! {
    #[test]
    fn another_parser_reads_every_header_as_what_was_meant(given in prop::collection::vec(given(), 1..5)) {
        let policies: Vec<QuotaPolicy> = given.iter().map(policy).collect();
        let quotas: Vec<Quota<'_>> = given.iter().zip(&policies).map(|(given, policy)| Quota {
            policy,
            remaining: given.remaining,
            more_after: Duration::from_millis(given.more_after_ms),
            reset_after: Duration::from_secs(100),
        }).collect();
        let mut headers = HeaderMap::new();
        HeaderStyle::DRAFT10_AND_DRAFT03.write(&mut headers, &quotas, 0);

        let announced = items(&headers, "ratelimit-policy");
        let left = items(&headers, "ratelimit");
        prop_assert_eq!(announced.len(), given.len());
        prop_assert_eq!(left.len(), given.len());
        for (given, (announced, left)) in given.iter().zip(announced.iter().zip(&left)) {
            prop_assert_eq!(name(announced), &given.name);
            prop_assert_eq!(name(left), &given.name);
            prop_assert_eq!(integer(announced, "q"), Some(held(given.limit)));
            let window_seconds = given.window_ms.div_ceil(1_000);
            prop_assert_eq!(integer(announced, "w"), (window_seconds > 0).then_some(window_seconds));
            let unit = announced.params.get("qu").map(|unit| unit.as_string().expect("a string").as_str());
            let expected = match given.unit {
                QuotaUnit::Requests => None,
                QuotaUnit::ContentBytes => Some("content-bytes"),
                QuotaUnit::ConcurrentRequests => Some("concurrent-requests"),
            };
            prop_assert_eq!(unit, expected);
            prop_assert_eq!(integer(left, "r"), Some(held(given.remaining.min(given.limit))));
            let more_after_seconds = given.more_after_ms.div_ceil(1_000);
            prop_assert_eq!(integer(left, "t"), (more_after_seconds > 0).then_some(more_after_seconds));
            prop_assert_eq!(bytes(announced), given.key.clone());
            prop_assert_eq!(bytes(left), given.key.clone());
        }
        // The older style is a list as well: a number, then a number with parameters per policy.
        let older = items(&headers, "x-ratelimit-limit");
        prop_assert_eq!(older.len(), given.len() + 1);
        for (given, item) in given.iter().zip(older.iter().skip(1)) {
            let named = item.params.get("name").map(|name| name.as_string().expect("a string").as_str());
            prop_assert_eq!(named, Some(given.name.as_str()));
        }
    }
}

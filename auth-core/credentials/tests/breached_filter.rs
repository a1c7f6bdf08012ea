//! The filter of breached passwords: finds all that it was built of, and refuses a hostile file.

use auth_credentials::password::{BreachedFilter, FilterRefused, Password, build_breached_filter};
use aws_lc_rs::digest;
use proptest::prelude::*;

fn sha1(text: &str) -> [u8; 20] {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref().try_into().expect("20 bytes")
}

fn filter_of(count: usize) -> Vec<u8> {
    build_breached_filter((0..count).map(|i| sha1(&format!("breached {i}")))).expect("a filter")
}

fn contains(filter: &BreachedFilter<&[u8]>, text: &str) -> bool {
    filter.contains(&Password::new(text).expect("short"))
}

/// The same file with the checksum made right: what an attacker would do.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&file[..40]);
    context.update(&file[72..]);
    file[40..72].copy_from_slice(context.finish().as_ref());
    file
}

#[test]
fn every_password_of_the_list_is_found() {
    for count in [0, 1, 2, 3, 4, 5, 10, 100, 1_000, 20_000] {
        let file = filter_of(count);
        let filter = BreachedFilter::open(file.as_slice()).expect("just made");
        assert_eq!(filter.passwords(), count as u64);
        for i in 0..count {
            assert!(contains(&filter, &format!("breached {i}")), "{i} of {count}");
        }
    }
}

#[test]
fn about_one_other_password_in_256_is_found_too() {
    let file = filter_of(20_000);
    let filter = BreachedFilter::open(file.as_slice()).expect("just made");
    let tries = 50_000;
    let found = (0..tries).filter(|i| contains(&filter, &format!("not breached {i}"))).count();
    // 195 expected, standard deviation 14.
    assert!((125..265).contains(&found), "{found} of {tries}");
    assert!(file.len() * 8 < 20_000 * 11, "{} bytes", file.len());
}

#[test]
fn repeated_hashes_are_one() {
    let file = build_breached_filter([sha1("a"), sha1("b"), sha1("a")]).expect("a filter");
    assert_eq!(BreachedFilter::open(file).expect("just made").passwords(), 2);
}

#[test]
fn the_same_list_makes_the_same_bytes() {
    let file = build_breached_filter(["password", "123456", "qwerty"].map(sha1)).expect("a filter");
    assert_eq!(hex::encode(&file), GOLDEN);
    let mut other_order = ["qwerty", "password", "123456"].map(sha1).to_vec();
    other_order.push(sha1("password"));
    assert_eq!(build_breached_filter(other_order).expect("a filter"), file);
}

const GOLDEN: &str = "53524246000100010000000000000003c15c0289ec2d0a9108000000070000000800000000000018c0645839f815da12a9d28211615ddba0d4b067b48b201f972d0b67164cd358040000000000eb00000000000000008500000000000000b800";

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let file = filter_of(20);
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(BreachedFilter::open(damaged).is_err(), "byte {at}");
    }
}

#[test]
fn a_file_that_is_cut_or_longer_is_refused() {
    let file = filter_of(20);
    for length in 0..file.len() {
        assert!(BreachedFilter::open(&file[..length]).is_err(), "{length} bytes");
    }
    let mut longer = file;
    longer.push(0);
    assert_eq!(BreachedFilter::open(longer).err(), Some(FilterRefused::Inconsistent));
}

#[test]
fn numbers_that_would_lead_a_lookup_outside_are_refused_although_the_checksum_is_right() {
    let file = filter_of(200);
    // Segment length, its mask, length of all segments: each set to what an attacker might like.
    for at in [24, 28, 32] {
        for value in [0_u32, 1, 3, 4, 5, 63, 64, 1 << 18, 1 << 19, 1 << 31, u32::MAX - 1, u32::MAX] {
            let mut hostile = file.clone();
            let bytes = value.to_le_bytes();
            if hostile[at..at + 4] == bytes {
                continue;
            }
            hostile[at..at + 4].copy_from_slice(&bytes);
            assert_eq!(
                BreachedFilter::open(resealed(hostile)).err(),
                Some(FilterRefused::Inconsistent),
                "{at} {value}"
            );
        }
    }
}

#[test]
fn a_version_of_tomorrow_is_refused_by_name() {
    let mut file = filter_of(1);
    file[5] = 2;
    assert_eq!(
        BreachedFilter::open(resealed(file)).err(),
        Some(FilterRefused::Unknown { version: 2, kind: 1 })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_the_bytes_opening_and_asking_do_not_panic(
        changes in prop::collection::vec((0_usize..72, any::<u8>()), 0..8),
        length in 0_usize..400,
        text in "\\PC{0,20}",
    ) {
        let mut file = filter_of(40);
        file.truncate(length);
        file.resize(length, 7);
        if length >= 72 {
            for (at, value) in changes {
                file[at] = value;
            }
            file = resealed(file);
        }
        if let Ok(filter) = BreachedFilter::open(file.as_slice()) {
            let _ = contains(&filter, &text);
        }
    }
}

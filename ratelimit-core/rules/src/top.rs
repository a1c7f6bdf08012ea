//! The keys that are denied most, in bounded memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Denied keys that are counted at a time.
pub const TOP_MAX: usize = 1_024;
/// Bytes of a value that are kept. Clients choose values, and they may be long.
pub const TOP_VALUE_BYTES_MAX: usize = 1_024;
/// Bytes of a key that are kept as they are; of a longer one as many, and a hash of all.
const KEY_BYTES_MAX: usize = 2_048;

/// A key that is denied often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopDenied {
    /// The domain.
    pub domain: String,
    /// The entries of the descriptor, of each value the first [`TOP_VALUE_BYTES_MAX`] bytes.
    pub entries: Vec<(String, String)>,
    /// The path of the rule that denied it last.
    pub rule: String,
    /// How often it was denied, at most, of the denials that were counted: see [`Totals::top_skipped`](crate::Totals).
    pub denied: u64,
    /// By how much that may be too high. A key that was denied more often than any that was dropped is never missing.
    pub overcount: u64,
}

/// Space-saving counters (Metwally, Agrawal, El Abbadi 2005): a key that has none takes over the smallest one, count and all.
#[derive(Debug)]
pub(crate) struct TopKeys {
    slots: Vec<TopDenied>,
    by_key: BTreeMap<Arc<[u8]>, usize>,
    keys: Vec<Arc<[u8]>>,
    by_count: BTreeSet<(u64, usize)>,
    slots_max: usize,
}

impl TopKeys {
    pub(crate) fn new(slots_max: usize) -> Self {
        let slots_max = slots_max.clamp(1, TOP_MAX);
        Self {
            slots: Vec::new(),
            by_key: BTreeMap::new(),
            keys: Vec::new(),
            by_count: BTreeSet::new(),
            slots_max,
        }
    }

    /// Counts a denial of `key`, which `told` describes.
    pub(crate) fn denied(&mut self, key: &[u8], told: impl FnOnce() -> TopDenied) {
        let key = &*bounded(key);
        if let Some(index) = self.by_key.get(key).copied() {
            return self.count(index);
        }
        if self.slots.len() < self.slots_max {
            let index = self.slots.len();
            self.slots.push(TopDenied { denied: 0, overcount: 0, ..told() });
            self.keys.push(key.into());
            self.by_key.insert(key.into(), index);
            self.by_count.insert((0, index));
            return self.count(index);
        }
        let Some((least, index)) = self.by_count.first().copied() else { return };
        let (Some(slot), Some(place)) = (self.slots.get_mut(index), self.keys.get_mut(index)) else { return };
        *slot = TopDenied { denied: least, overcount: least, ..told() };
        self.by_key.remove(&**place);
        *place = key.into();
        self.by_key.insert(key.into(), index);
        self.count(index);
    }

    fn count(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        self.by_count.remove(&(slot.denied, index));
        slot.denied = slot.denied.saturating_add(1);
        self.by_count.insert((slot.denied, index));
    }

    /// The `count` keys that were denied most, most first.
    pub(crate) fn top(&self, count: usize) -> Vec<TopDenied> {
        let most = self.by_count.iter().rev().take(count);
        most.filter_map(|(_, index)| self.slots.get(*index).cloned()).collect()
    }
}

/// Whoever makes two long keys meet has them counted as one in this list, and nowhere else.
fn bounded(key: &[u8]) -> Cow<'_, [u8]> {
    let Some((head, _)) = key.split_at_checked(KEY_BYTES_MAX).filter(|(_, rest)| !rest.is_empty()) else {
        return Cow::Borrowed(key);
    };
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    Cow::Owned([head, &hasher.finish().to_be_bytes()].concat())
}

/// As much of a value as is kept.
pub(crate) fn shown(value: &str) -> String {
    value.get(..value.floor_char_boundary(TOP_VALUE_BYTES_MAX)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str) -> TopDenied {
        let entries = vec![("key".to_owned(), name.to_owned())];
        TopDenied { domain: "web".to_owned(), entries, rule: "web.key".to_owned(), denied: 0, overcount: 0 }
    }

    #[test]
    fn a_key_that_is_denied_often_is_found_among_any_number_that_are_not() {
        let mut top = TopKeys::new(8);
        for round in 0..1_000u32 {
            let noise = format!("noise {round}");
            top.denied(noise.as_bytes(), || told(&noise));
            top.denied(b"loud", || told("loud"));
            top.denied(b"louder", || told("louder"));
            top.denied(b"louder", || told("louder"));
        }
        let found = top.top(2);
        let names: Vec<&str> = found.iter().map(|top| top.entries[0].1.as_str()).collect();
        assert_eq!(names, ["louder", "loud"]);
        for (top, really) in found.iter().zip([2_000, 1_000]) {
            assert!(top.denied >= really && top.denied - top.overcount <= really, "{top:?}");
        }
        assert_eq!(top.slots.len(), 8);
        assert_eq!((top.by_key.len(), top.by_count.len(), top.keys.len()), (8, 8, 8));
    }

    #[test]
    fn long_keys_are_told_apart_and_not_kept() {
        let mut top = TopKeys::new(8);
        let long = "x".repeat(60 << 10);
        let other = format!("{long}y");
        for key in [&long, &other, &other] {
            top.denied(key.as_bytes(), || told(&shown(key)));
        }
        assert_eq!(top.top(8).iter().map(|top| top.denied).collect::<Vec<_>>(), [2, 1]);
        assert!(top.keys.iter().all(|key| key.len() <= KEY_BYTES_MAX + 8));
        assert_eq!(shown(&format!("x{}", "é".repeat(1_000))).len(), TOP_VALUE_BYTES_MAX - 1);
    }
}

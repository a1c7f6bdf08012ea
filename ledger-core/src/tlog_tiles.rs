//! The layout of a log for other tools: C2SP [tlog-tiles](https://c2sp.org/tlog-tiles). Tiles of hashes as the
//! [log tree](crate::log_tree) cuts them, bundles of entries, and the signed checkpoint; an entry is a block header.

use ledger_verify::Hash;

use crate::log_tree::TILE_WIDTH;

/// Where the signed checkpoint stands.
pub const CHECKPOINT_PATH: &str = "checkpoint";

/// A tile that has fewer hashes than a full one, or a bundle with fewer entries: `None` = it is full.
pub type PartialWidth = Option<u8>;

/// Path of a tile of hashes.
pub fn tile_path(level: u8, number: u64, width: PartialWidth) -> String {
    format!("tile/{level}/{}{}", number_path(number), width_suffix(width))
}

/// Path of a bundle of entries.
pub fn entries_path(number: u64, width: PartialWidth) -> String {
    format!("tile/entries/{}{}", number_path(number), width_suffix(width))
}

/// The width of the last bundle of a log with so many entries; `None` when that is full, or there is none.
pub fn partial_width(entries: u64) -> PartialWidth {
    u8::try_from(entries % TILE_WIDTH as u64).ok().filter(|width| *width > 0)
}

/// The content of a tile.
pub fn encode_tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.concat()
}

/// The reverse of [`encode_tile`]; `None` when the bytes are no hashes.
pub fn decode_tile(bytes: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| hashes.to_vec())
}

/// Adds an entry to a bundle: its length as `u16`, big-endian, and its bytes. `None` when it is too long.
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Option<()> {
    let length = u16::try_from(entry.len()).ok()?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Some(())
}

/// Groups of three digits, all but the last behind an `x`.
fn number_path(number: u64) -> String {
    let mut path = format!("{:03}", number % 1_000);
    let mut rest = number / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    path
}

fn width_suffix(width: PartialWidth) -> String {
    width.map_or_else(String::new, |width| format!(".p/{width}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        assert_eq!(tile_path(0, 0, None), "tile/0/000");
        assert_eq!(tile_path(0, 1_234_067, None), "tile/0/x001/x234/067");
        assert_eq!(tile_path(1, 0, Some(4)), "tile/1/000.p/4");
        assert_eq!(entries_path(1_000, Some(255)), "tile/entries/x001/000.p/255");
        assert_eq!((partial_width(256), partial_width(0), partial_width(257)), (None, None, Some(1)));
    }
}

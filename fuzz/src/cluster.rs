//! What nodes of a cluster say to each other, and the files in which they and their operators keep it.

use std::path::Path;
use std::time::Duration;

use ledger_node::backup::Manifest;
use ledger_node::entry_points::{self, Decoded};
use ledger_node::peers::PeerMethod;
use ledger_server::discovery::PeersCache;
use sha2::{Digest as _, Sha256};

use crate::files::with_file;

/// The time of reading, unix seconds.
const NOW_S: u64 = 1_800_000_000;

/// The number of a method, 0 for its request or another byte for its answer, and the body.
pub fn peer_messages(bytes: &[u8]) -> bool {
    let [method, which, body @ ..] = bytes else { return false };
    let Some(method) = PeerMethod::from_number(u32::from(*method)) else { return false };
    let decode = if *which == 0 { entry_points::peer_request } else { entry_points::peer_answer };
    accepted(decode(method, body))
}

/// A list of peers, the file `cluster`, or the manifest of a backup.
pub fn cluster_files(bytes: &[u8]) -> bool {
    let is_list = with_file(bytes, peers_cache);
    let Ok(text) = std::str::from_utf8(bytes) else { return is_list };
    let is_cluster = accepted(entry_points::cluster_file(text));
    // As it is, and as the lines before a right checksum.
    let is_manifest = manifest(text) | manifest(&with_checksum(text));
    is_list || is_cluster || is_manifest
}

fn accepted(decoded: Decoded) -> bool {
    assert_ne!(decoded, Decoded::Changed, "what is accepted is written back as the same");
    decoded == Decoded::Kept
}

/// Every address that is read is one that can be read again.
fn peers_cache(path: &Path) -> bool {
    let ttl = Duration::from_secs(3_600);
    let Ok(addresses) = PeersCache::new(path.to_owned(), ttl).read(NOW_S) else { return false };
    let peers: Vec<_> = addresses.iter().map(|addr| serde_json::json!({ "addr": addr })).collect();
    let text = serde_json::json!({ "cached_at": 0, "peers": peers }).to_string();
    std::fs::write(path, text).expect("the file can be written");
    let again = PeersCache::new(path.to_owned(), ttl).read(NOW_S).expect("what was read is read again");
    assert_eq!(again, addresses);
    true
}

fn manifest(text: &str) -> bool {
    let Ok(manifest) = Manifest::parse(text) else { return false };
    let written = manifest.encode().expect("what was parsed can be written");
    assert_eq!(Manifest::parse(&written).expect("what was written is parsed"), manifest);
    true
}

fn with_checksum(lines: &str) -> String {
    let digest = Sha256::digest(lines.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{lines}{{\"sha256\":\"{hex}\"}}\n")
}

//! A file with the addresses of peers: written by an operator before the first start, or by a node for its next one.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PeerAddress;

/// More than any list of peers needs.
const FILE_BYTES_MAX: u64 = 256 * 1_024;
/// An address without a port gets none here: the file says where peers are.
const NO_PORT: u16 = 0;

/// A file with addresses cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersCacheError {
    /// It is not there.
    #[error(
        r#"{path} does not exist: write it, as in {{"cached_at":0,"peers":[{{"addr":"192.0.2.1:50052"}}]}}"#
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It has something else in it.
    #[error(r#"{path} is no list of peers ({reason}); it should be as {{"cached_at":0,"peers":[{{"addr":"192.0.2.1:50052"}}]}}"#)]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It is too old.
    #[error(
        "{path} was written {age_s} s ago and counts for {ttl_s} s: write it anew, raise --join-ttl, or set its cached_at to \
         0, which never expires"
    )]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its age.
        age_s: u64,
        /// How long it counts.
        ttl_s: u64,
    },
    /// The file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// Unix seconds; 0 = written by an operator, and never too old.
    cached_at: u64,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    addr: String,
}

/// A file with addresses of peers.
#[derive(Debug, Clone)]
pub struct PeersCache {
    path: PathBuf,
    ttl: Duration,
}

impl PeersCache {
    /// The file at a path, whose addresses count for so long after they were written.
    pub fn new(path: PathBuf, ttl: Duration) -> Self {
        Self { path, ttl }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The addresses.
    ///
    /// # Errors
    /// A file that is missing, malformed or too old.
    pub fn read(&self, now_s: u64) -> Result<Vec<String>, PeersCacheError> {
        let content = self.content()?;
        let age_s = now_s.saturating_sub(content.cached_at);
        let ttl_s = self.ttl.as_secs();
        if content.cached_at != 0 && age_s > ttl_s {
            return Err(PeersCacheError::Expired { path: self.path.clone(), age_s, ttl_s });
        }
        let parse = |peer: Peer| {
            let address =
                PeerAddress::parse(&peer.addr, NO_PORT).ok().filter(|address| address.port() != NO_PORT);
            address.map(|address| address.to_string()).ok_or_else(|| {
                let reason = format!("{:?} is no HOST:PORT", peer.addr.chars().take(80).collect::<String>());
                PeersCacheError::Malformed { path: self.path.clone(), reason }
            })
        };
        content.peers.into_iter().map(parse).collect()
    }

    /// Writes the addresses, unless the file is an operator's: one that never expires.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&self, addresses: &BTreeSet<String>, now_s: u64) -> Result<(), PeersCacheError> {
        match self.content() {
            Ok(Content { cached_at: 0, .. }) => return Ok(()),
            // Whatever else it is, it is not this program's to overwrite.
            Err(error @ PeersCacheError::Malformed { .. }) => return Err(error),
            _ => {}
        }
        let peers = addresses.iter().map(|addr| Peer { addr: addr.clone() }).collect();
        let mut text = serde_json::to_vec(&Content { cached_at: now_s, peers })
            .map_err(|error| self.io("write", io::Error::other(error)))?;
        text.push(b'\n');
        self.replace(&text).map_err(|source| self.io("write", source))
    }

    fn content(&self) -> Result<Content, PeersCacheError> {
        let mut text = String::new();
        match File::open(&self.path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PeersCacheError::Missing { path: self.path.clone() });
            }
            Err(source) => return Err(self.io("read", source)),
            Ok(_) => {}
        }
        serde_json::from_str(&text).map_err(|error| PeersCacheError::Malformed {
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    /// The whole file or nothing of it, also after a power cut.
    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(format!(".{}", std::process::id()));
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        match self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    fn io(&self, action: &'static str, source: io::Error) -> PeersCacheError {
        PeersCacheError::Io { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &tempfile::TempDir, text: &str) -> PeersCache {
        let path = folder.path().join("peers.cache");
        std::fs::write(&path, text).expect("written");
        PeersCache::new(path, Duration::from_secs(3_600))
    }

    #[test]
    fn a_file_that_says_0_never_expires_and_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let text =
            r#"{"cached_at": 0, "peers": [{"addr": "192.168.1.102:50051"}, {"addr": "node-c:50051"}]}"#;
        let cache = cache(&folder, text);
        assert_eq!(cache.read(u64::MAX).expect("valid"), ["192.168.1.102:50051", "node-c:50051"]);
        cache.remember(&BTreeSet::from(["10.0.0.1:1".to_owned()]), 7).expect("nothing to do");
        assert_eq!(std::fs::read_to_string(cache.path()).expect("there"), text);
    }

    #[test]
    fn what_a_node_writes_is_read_until_it_is_too_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = PeersCache::new(folder.path().join("peers.cache"), Duration::from_secs(3_600));
        assert!(matches!(cache.read(1_000), Err(PeersCacheError::Missing { .. })));
        let known = BTreeSet::from(["10.0.0.1:50052".to_owned(), "[::1]:50052".to_owned()]);
        cache.remember(&known, 1_000).expect("written");
        assert_eq!(cache.read(4_600).expect("valid"), ["10.0.0.1:50052", "[::1]:50052"]);
        assert!(matches!(cache.read(4_601), Err(PeersCacheError::Expired { age_s: 3_601, .. })));
        cache.remember(&known, 4_000).expect("its own file is written again");
        assert!(cache.read(4_601).is_ok());
    }

    #[test]
    fn what_is_no_list_of_peers_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in [
            "",
            "[]",
            r#"{"peers":[]}"#,
            r#"{"cached_at":0,"peers":[{"addr":"10.0.0.1"}]}"#,
            r#"{"cached_at":0,"peers":[{"addr":"/etc/passwd"}]}"#,
            r#"{"cached_at":0,"peers":[],"more":1}"#,
        ] {
            let cache = cache(&folder, text);
            assert!(matches!(cache.read(1), Err(PeersCacheError::Malformed { .. })), "{text}");
            let known = BTreeSet::from(["10.0.0.1:50052".to_owned()]);
            let _ = cache.remember(&known, 1);
            assert_eq!(std::fs::read_to_string(cache.path()).expect("there"), text);
        }
    }
}

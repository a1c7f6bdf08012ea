//! Every decoder under arbitrary bytes.
//!
//! A [`Target`] takes any bytes, panics when a promise breaks, and says whether it accepted them. The promises are the
//! same everywhere: a decoder returns an error or a value, it does not panic, hang or grow; and what it accepts it
//! writes back as the same bytes, where there is one way to write it.
//!
//! The same targets run in three ways: over the committed seeds and deterministic mutations of them in the normal
//! tests, for a given time with `cargo run -p strongroom-fuzz`, and under libFuzzer (`fuzz/libfuzzer`), which needs a
//! nightly toolchain.

mod client_address;
mod cluster;
mod commands;
mod configuration;
mod core_rows;
#[path = "../../servers/strongroom/src/failure.rs"]
#[expect(dead_code, reason = "the sources of the program are compiled here for their decoders")]
mod failure;
mod files;
pub mod mutation;
mod rate_limits;
mod redb_rows;
#[path = "../../servers/strongroom/src/ttl.rs"]
mod ttl;
mod undo_rows;
#[path = "../../ledger-core/verify/fuzz/entry_points.rs"]
mod verify;
mod wal_segments;

use std::path::PathBuf;

/// A decoder under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and the folder of its seeds.
    pub name: &'static str,
    /// Runs it; returns whether the bytes were accepted. Panics when a promise breaks.
    pub run: fn(&[u8]) -> bool,
    /// The folder of its seeds, from the root of the repository.
    seeds: &'static str,
}

/// Every target.
pub const TARGETS: [Target; 22] = [
    Target { name: "header", run: verified::header, seeds: "ledger-core/verify/fuzz/seeds/header" },
    Target {
        name: "transaction",
        run: verified::transaction,
        seeds: "ledger-core/verify/fuzz/seeds/transaction",
    },
    Target { name: "note", run: verified::note, seeds: "ledger-core/verify/fuzz/seeds/note" },
    Target {
        name: "proof_json",
        run: verified::proof_json,
        seeds: "ledger-core/verify/fuzz/seeds/proof_json",
    },
    Target { name: "list_json", run: verified::list_json, seeds: "ledger-core/verify/fuzz/seeds/list_json" },
    Target { name: "snapshot", run: core_rows::snapshot, seeds: "fuzz/seeds/snapshot" },
    Target { name: "increment", run: core_rows::increment, seeds: "fuzz/seeds/increment" },
    Target { name: "proposal", run: core_rows::proposal, seeds: "fuzz/seeds/proposal" },
    Target { name: "page_token", run: core_rows::page_token, seeds: "fuzz/seeds/page_token" },
    Target { name: "state_rows", run: core_rows::state_rows, seeds: "fuzz/seeds/state_rows" },
    Target { name: "undo_rows", run: undo_rows::undo_rows, seeds: "fuzz/seeds/undo_rows" },
    Target { name: "wal_segments", run: wal_segments::wal_segments, seeds: "fuzz/seeds/wal_segments" },
    Target { name: "redb_rows", run: redb_rows::redb_rows, seeds: "fuzz/seeds/redb_rows" },
    Target { name: "transaction_file", run: files::transaction_file, seeds: "fuzz/seeds/transaction_file" },
    Target { name: "import_lines", run: files::import_lines, seeds: "fuzz/seeds/import_lines" },
    Target { name: "peer_messages", run: cluster::peer_messages, seeds: "fuzz/seeds/peer_messages" },
    Target { name: "cluster_files", run: cluster::cluster_files, seeds: "fuzz/seeds/cluster_files" },
    Target { name: "configuration", run: configuration::configuration, seeds: "fuzz/seeds/configuration" },
    Target {
        name: "forwarding_header",
        run: client_address::forwarding_header,
        seeds: "fuzz/seeds/forwarding_header",
    },
    Target {
        name: "trusted_networks",
        run: client_address::trusted_networks,
        seeds: "fuzz/seeds/trusted_networks",
    },
    Target { name: "resp_requests", run: rate_limits::resp_requests, seeds: "fuzz/seeds/resp_requests" },
    Target { name: "rule_file", run: rate_limits::rule_file, seeds: "fuzz/seeds/rule_file" },
];

impl Target {
    /// The target of a name.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(name: &str) -> Self {
        *TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
    }

    /// The committed seeds, by file name.
    ///
    /// # Panics
    /// When they cannot be read.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let entries = std::fs::read_dir(root.join(self.seeds)).expect("the folder of the seeds");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
    }
}

/// Seeds made from real data: the folder, the name and the bytes. They are committed; this is how they were made.
pub fn made_seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = core_rows::made_seeds();
    seeds.extend(undo_rows::made_seeds());
    seeds.extend(wal_segments::made_seeds());
    seeds.extend(redb_rows::made_seeds());
    seeds
}

/// The entry points of the verifier, and what they accept.
mod verified {
    use ledger_verify::header::BlockHeader;
    use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey, VerifierKey};
    use ledger_verify::state::LeafValue;
    use ledger_verify::{list, proof, transaction as encoded};

    use crate::verify;

    pub fn header(bytes: &[u8]) -> bool {
        verify::header(bytes);
        BlockHeader::decode(bytes).is_ok() || LeafValue::decode(bytes).is_ok()
    }

    pub fn transaction(bytes: &[u8]) -> bool {
        verify::transaction(bytes);
        encoded::decode(bytes).is_ok()
    }

    pub fn note(bytes: &[u8]) -> bool {
        verify::note(bytes);
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        Checkpoint::parse(text).is_ok()
            || SignedCheckpoint::parse(text).is_ok()
            || VerifierKey::parse(text).is_ok()
            || SigningKey::parse(text).is_ok()
    }

    pub fn proof_json(bytes: &[u8]) -> bool {
        verify::proof_json(bytes);
        proof::from_json(bytes).is_ok()
    }

    pub fn list_json(bytes: &[u8]) -> bool {
        verify::list_json(bytes);
        list::from_json(bytes).is_ok()
    }
}

//! Offline verification of Strongroom ledger proofs: no network, no files, no clock, few dependencies.
//!
//! ```
//! use ledger_verify::{note::VerifierKey, proof};
//! # const FILE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/entity.proof.json"));
//! # const VKEY: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/golden.vkey"));
//!
//! let trusted = [VerifierKey::parse(VKEY.trim())?]; // "strongroom/<ledger id>+<key id>+<base64>"
//! let (subject, evidence) = proof::from_json(FILE)?;
//! let claim = proof::verify(&subject, &evidence, &trusted)?;
//! assert_eq!(claim.value.as_deref(), Some(b"250".as_slice()));
//! assert_eq!((claim.version, claim.height), (4, 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Concepts
//! A vault's **state tree** holds a leaf per entity and relationship; its root stands in the **header** of a block.
//! The headers are the leaves of the vault's **log**, an RFC 6962 tree. A **checkpoint** is the size and root of the
//! log, signed by the ledger's log key. A **proof** joins the four: leaf, state proof, header with inclusion path,
//! checkpoint. What it shows is a [`proof::Claim`].
//!
//! # Guarantees
//! - [`proof::verify`] returns a claim only when every hash and the signature fit, from the subject that *you* pass to
//!   a key that *you* trust. A changed bit anywhere in a document of a present record is refused; in a document of an
//!   absent one, only the subject can change, to another one that is absent, too.
//! - Each encoding has one byte form: what decodes encodes to the same bytes, and everything else is refused.
//! - [`list::verify`] returns all relationships of a resource, or of a resource and a relation: what was left out,
//!   added, repeated or changed refuses the list.
//! - No input makes the crate panic, and work is bounded: at most 256 siblings, 64 path hashes, one signature, 8 MiB of
//!   JSON (64 MiB of a list). (Encoders of data of your own assert the stated length limits.)
//!
//! # It is not
//! - proof of freshness: that no newer block exists. Keep the last checkpoint and demand
//!   [`log::verify_consistency`] from it to each newer one;
//! - proof that others are shown the same log, or that the signer kept its lists right: only a replay of the blocks
//!   shows that;
//! - a judge of time: [`proof::Claim::expired_at`] asks for your clock.
//!
//! # Map
//! [`proof`] whole proofs and their JSON · [`list`] lists that are proved complete · [`note`] keys and signed checkpoints · [`log`] inclusion and consistency ·
//! [`state`] state keys, leaves, presence and absence · [`header`], [`transaction`] canonical bytes · [`hash`] the
//! primitives. The formats are described byte by byte in `docs/formats.md`.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod hash;
pub mod header;
pub mod list;
pub mod log;
pub mod note;
pub mod proof;
pub mod state;
pub mod transaction;

mod error;
mod hex;
mod layout;

pub use error::{DecodeError, ListFault, ProofError};

/// A SHA-256 digest.
pub type Hash = [u8; 32];

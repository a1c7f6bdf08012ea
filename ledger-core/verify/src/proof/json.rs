//! The proof document `strongroom.proof.v1`: JSON with exactly one byte form per content.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Evidence, Subject};
use crate::Hash;
use crate::error::ProofError;
use crate::hex;
use crate::state::StateProof;

/// What the field `format` says.
pub const FORMAT: &str = "strongroom.proof.v1";
/// Largest document, in bytes (8 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1_048_576;

// The order of the fields is the order in the document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    subject: Subject,
    leaf_base64: Option<String>,
    state_proof: StateProofText,
    header_base64: String,
    inclusion: Vec<String>,
    checkpoint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateProofText {
    siblings: Vec<String>,
    other_leaf: Option<OtherLeafText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherLeafText {
    key_hash: String,
    value_hash: String,
}

impl StateProofText {
    pub(crate) fn of(proof: &StateProof) -> Self {
        Self {
            siblings: proof.siblings.iter().map(|hash| hex::encode(hash)).collect(),
            other_leaf: proof.other_leaf.as_ref().map(|(key_hash, value_hash)| OtherLeafText {
                key_hash: hex::encode(key_hash),
                value_hash: hex::encode(value_hash),
            }),
        }
    }

    pub(crate) fn read(&self) -> Result<StateProof, ProofError> {
        let other_leaf = match &self.other_leaf {
            Some(other) => Some((hash("key_hash", &other.key_hash)?, hash("value_hash", &other.value_hash)?)),
            None => None,
        };
        Ok(StateProof { siblings: hashes("siblings", &self.siblings)?, other_leaf })
    }
}

/// Writes the canonical document: two spaces of indentation, a newline at the end.
pub fn to_json(subject: &Subject, evidence: &Evidence) -> String {
    let document = Document {
        format: FORMAT.to_owned(),
        subject: subject.clone(),
        leaf_base64: evidence.leaf.as_ref().map(|leaf| STANDARD.encode(leaf)),
        state_proof: StateProofText::of(&evidence.state_proof),
        header_base64: STANDARD.encode(&evidence.header),
        inclusion: evidence.inclusion_path.iter().map(|hash| hex::encode(hash)).collect(),
        checkpoint: evidence.checkpoint.clone(),
    };
    canonical(&document)
}

/// Reads a document; refuses unknown fields and every byte that differs from the canonical form.
///
/// This checks the form only; [`verify`](super::verify) checks what the document says.
pub fn from_json(bytes: &[u8]) -> Result<(Subject, Evidence), ProofError> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(ProofError::TooLarge {
            what: "the document",
            given: bytes.len(),
            max: DOCUMENT_BYTES_MAX,
        });
    }
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ProofError::Json { reason: error.to_string() })?;
    if document.format != FORMAT {
        return Err(ProofError::Format { given: document.format.chars().take(80).collect() });
    }
    require_canonical(bytes, &canonical(&document))?;
    let evidence = Evidence {
        leaf: document.leaf_base64.as_deref().map(|text| base64("leaf_base64", text)).transpose()?,
        state_proof: document.state_proof.read()?,
        header: base64("header_base64", &document.header_base64)?,
        inclusion_path: hashes("inclusion", &document.inclusion)?,
        checkpoint: document.checkpoint,
    };
    evidence.check_limits()?;
    Ok((document.subject, evidence))
}

#[expect(
    clippy::expect_used,
    reason = "plain structs of texts, lists and options always serialise to memory"
)]
pub(crate) fn canonical<D: Serialize>(document: &D) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("structs of texts serialise to memory");
    text.push('\n');
    text
}

pub(crate) fn require_canonical(given: &[u8], canonical: &str) -> Result<(), ProofError> {
    let canonical = canonical.as_bytes();
    if given == canonical {
        return Ok(());
    }
    let same = given.iter().zip(canonical).take_while(|(a, b)| a == b).count();
    Err(ProofError::NotCanonical { offset: same })
}

pub(crate) fn hashes(field: &'static str, texts: &[String]) -> Result<Vec<Hash>, ProofError> {
    texts.iter().map(|text| hash(field, text)).collect()
}

pub(crate) fn hash(field: &'static str, text: &str) -> Result<Hash, ProofError> {
    hex::decode_hash(text)
        .ok_or(ProofError::Encoding { field, encoding: "lower-case hexadecimal of 32 bytes" })
}

/// The engine refuses missing padding and non-zero trailing bits, so each byte string has one text.
pub(crate) fn base64(field: &'static str, text: &str) -> Result<Vec<u8>, ProofError> {
    STANDARD
        .decode(text)
        .map_err(|_| ProofError::Encoding { field, encoding: "base64 (standard alphabet, padded)" })
}

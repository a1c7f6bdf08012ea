//! The proof document of a list: `strongroom.proof.v1` with a subject of its own and the pages at the end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{ListEvidence, ListPage, ListSubject};
use crate::error::ProofError;
use crate::hex;
use crate::proof::json::{StateProofText, base64, canonical, hash, hashes, require_canonical};
use crate::proof::{self, Evidence, FORMAT};

/// Largest document of a list, in bytes (64 MiB: about a million short relationships).
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1_048_576;

/// How the canonical document of a list begins, and no other document.
const BEGINNING: &[u8] = b"{\n  \"format\": \"strongroom.proof.v1\",\n  \"subject\": {\n    \"list\": {\n";

// The order of the fields is the order in the document.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    subject: SubjectText,
    leaf_base64: Option<String>,
    state_proof: StateProofText,
    header_base64: String,
    inclusion: Vec<String>,
    checkpoint: String,
    pages: Vec<PageText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectText {
    list: ListText,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListText {
    resource: String,
    relation: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageText {
    last_key: String,
    nodes_base64: String,
}

/// Whether bytes begin as the canonical document of a list does: read them with [`from_json`] then, and with
/// [`proof::from_json`] otherwise.
pub fn is_list_document(bytes: &[u8]) -> bool {
    bytes.starts_with(BEGINNING)
}

/// Writes the canonical document: two spaces of indentation, a newline at the end.
pub fn to_json(subject: &ListSubject, evidence: &ListEvidence) -> String {
    let head = &evidence.head;
    let page = |page: &ListPage| PageText {
        last_key: hex::encode(&page.last_key),
        nodes_base64: STANDARD.encode(&page.nodes),
    };
    canonical(&Document {
        format: FORMAT.to_owned(),
        subject: SubjectText {
            list: ListText { resource: subject.resource.clone(), relation: subject.relation.clone() },
        },
        leaf_base64: head.leaf.as_ref().map(|leaf| STANDARD.encode(leaf)),
        state_proof: StateProofText::of(&head.state_proof),
        header_base64: STANDARD.encode(&head.header),
        inclusion: head.inclusion_path.iter().map(|hash| hex::encode(hash)).collect(),
        checkpoint: head.checkpoint.clone(),
        pages: evidence.pages.iter().map(page).collect(),
    })
}

/// Reads a document; refuses unknown fields and every byte that differs from the canonical form.
///
/// This checks the form only; [`verify`](super::verify) checks what the document says.
pub fn from_json(bytes: &[u8]) -> Result<(ListSubject, ListEvidence), ProofError> {
    proof::at_most("the document", bytes.len(), DOCUMENT_BYTES_MAX)?;
    let document: Document =
        serde_json::from_slice(bytes).map_err(|error| ProofError::Json { reason: error.to_string() })?;
    if document.format != FORMAT {
        return Err(ProofError::Format { given: document.format.chars().take(80).collect() });
    }
    require_canonical(bytes, &canonical(&document))?;
    let head = Evidence {
        leaf: document.leaf_base64.as_deref().map(|text| base64("leaf_base64", text)).transpose()?,
        state_proof: document.state_proof.read()?,
        header: base64("header_base64", &document.header_base64)?,
        inclusion_path: hashes("inclusion", &document.inclusion)?,
        checkpoint: document.checkpoint,
    };
    let page = |page: &PageText| {
        Ok(ListPage {
            last_key: hash("last_key", &page.last_key)?,
            nodes: base64("nodes_base64", &page.nodes_base64)?,
        })
    };
    let pages = document.pages.iter().map(page).collect::<Result<_, ProofError>>()?;
    let evidence = ListEvidence { head, pages };
    evidence.check_limits()?;
    let ListText { resource, relation } = document.subject.list;
    Ok((ListSubject { resource, relation }, evidence))
}

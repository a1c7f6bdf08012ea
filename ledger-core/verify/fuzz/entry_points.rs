//! What the fuzz targets run: each takes any bytes and panics when a promise breaks.

use ledger_verify::header::{BlockHeader, HEADER_BYTES};
use ledger_verify::note::{Checkpoint, SignedCheckpoint, SigningKey, VerifierKey};
use ledger_verify::state::LeafValue;
use ledger_verify::{list, proof, transaction};

/// The public key of the golden files.
const GOLDEN_KEY: &str = include_str!("golden.vkey");

fn golden_key() -> VerifierKey {
    VerifierKey::parse(GOLDEN_KEY.trim_end()).expect("the committed key parses")
}

/// What decodes must encode to the same bytes.
pub fn header(bytes: &[u8]) {
    if let Ok(header) = BlockHeader::decode(bytes) {
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(header.encode().as_slice(), bytes);
    }
    if let Ok(leaf) = LeafValue::decode(bytes) {
        assert_eq!(leaf.encode(), bytes);
    }
    if let Ok(leaf) = list::ListLeaf::decode(bytes) {
        assert_eq!(leaf.encode().as_slice(), bytes);
    }
}

/// What decodes must encode to the same bytes.
pub fn transaction(bytes: &[u8]) {
    if let Ok(view) = transaction::decode(bytes) {
        assert_eq!(view.operations.len(), usize::from(view.header.operation_count));
        let mut encoded = Vec::with_capacity(bytes.len());
        transaction::encode_header(&mut encoded, &view.header);
        for operation in &view.operations {
            transaction::encode_operation(&mut encoded, operation);
        }
        assert_eq!(encoded, bytes);
    }
}

/// What parses must print as the same text.
pub fn note(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.encode(), text);
    }
    if let Ok(signed) = SignedCheckpoint::parse(text) {
        assert!(text.starts_with(&signed.checkpoint().encode()));
        let verified = signed.verify(&[golden_key()]).is_ok();
        assert_eq!(SignedCheckpoint::open(text, &[golden_key()]).is_ok(), verified);
    }
    if let Ok(key) = VerifierKey::parse(text) {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(key) = SigningKey::parse(text) {
        assert_eq!(key.to_secret_text().as_str(), text);
    }
}

/// What is read must be written as the same document, and checking it must not panic.
pub fn proof_json(bytes: &[u8]) {
    let Ok((subject, evidence)) = proof::from_json(bytes) else { return };
    assert_eq!(proof::to_json(&subject, &evidence).as_bytes(), bytes);
    if let Ok(claim) = proof::verify(&subject, &evidence, &[golden_key()]) {
        assert_eq!(claim.subject, subject);
        assert_eq!(claim.present, evidence.leaf.is_some());
    }
}

/// What is read must be written as the same document, and checking it must not panic, nor must reading the bytes as
/// the nodes of a page.
pub fn list_json(bytes: &[u8]) {
    if let Ok(members) = list::verify_range(&[0; 32], &list::KeyRange::ALL, bytes) {
        assert!(members.is_empty(), "no set has the root 0");
    }
    let Ok((subject, evidence)) = list::from_json(bytes) else { return };
    assert!(list::is_list_document(bytes));
    assert_eq!(list::to_json(&subject, &evidence).as_bytes(), bytes);
    if let Ok(claim) = list::verify(&subject, &evidence, &[golden_key()]) {
        assert_eq!(claim.subject, subject);
        assert_eq!(claim.resource_count == 0, evidence.head.leaf.is_none());
    }
}

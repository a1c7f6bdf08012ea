//! The golden vectors: made again from the code and compared with the committed files byte for byte.
//!
//! `STRONGROOM_BLESS=1` writes the files instead; a difference means that stored or exported bytes changed.

use std::fs;
use std::path::{Path, PathBuf};

use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, log_empty, log_leaf, log_node, sha256, state_leaf, state_node};
use ledger_verify::header::BlockHeader;
use ledger_verify::log::{consistency_path, inclusion_path, root_of};
use ledger_verify::note::{SignedCheckpoint, SigningKey};
use ledger_verify::proof::{Claim, Subject, from_json, to_json, verify};
use ledger_verify::state::{LeafKind, LeafValue, StateKey, StateProof};
use ledger_verify::transaction::{
    ActionRef, ConditionRef, OperationRef, RelationshipRef, TransactionHeader, encode_header,
    encode_operation,
};

use crate::fixture::{
    GENESIS_TIME_MS, LEDGER_ID, SEED, VAULT_ID, VIEWER, Vault, entity, flip, hex, log_key, relationship,
};
use crate::golden_json::{Json, list, number, object, text};
use crate::state_oracle::StateTree;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// The documents of the sample vault by file name.
pub fn documents() -> Vec<(&'static str, Subject, String)> {
    let vault = Vault::five_blocks();
    [
        ("entity.proof.json", entity("config/limit"), 3),
        ("relationship.proof.json", relationship(&VIEWER), 2),
        ("absent-empty.proof.json", vault.absent(false), 4),
        ("absent-other-leaf.proof.json", vault.absent(true), 4),
    ]
    .map(|(file, subject, height)| {
        let document = to_json(&subject, &vault.evidence_at(&subject, height));
        (file, subject, document)
    })
    .into()
}

#[test]
fn the_golden_files_hold_exactly_what_the_code_makes() {
    let mut files: Vec<(PathBuf, Vec<u8>)> = [
        ("hash.json", hash_vectors()),
        ("header.json", header_vectors()),
        ("transaction.json", transaction_vectors()),
        ("state.json", state_vectors()),
        ("log.json", log_vectors()),
        ("note.json", note_vectors()),
        ("proofs.json", proof_vectors()),
        ("refused.json", refused_vectors()),
    ]
    .map(|(name, json)| (folder().join(name), json.pretty().into_bytes()))
    .into();
    files.extend(documents().into_iter().map(|(name, _, text)| (folder().join(name), text.into_bytes())));
    files.extend(fuzz_seeds());
    files.extend(crate::golden_lists::files());
    let bless = std::env::var_os("STRONGROOM_BLESS").is_some();
    for (path, made) in files {
        if bless {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, made).unwrap();
            continue;
        }
        let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(committed == made, "{} differs; a format changed", path.display());
    }
}

/// The corpus from which fuzzing starts, and the key that its proofs are signed with.
fn fuzz_seeds() -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let vault = Vault::five_blocks();
    let mut seeds = vec![
        (fuzz.join("golden.vkey"), format!("{}\n", log_key().verifier_key()).into_bytes()),
        (fuzz.join("seeds/header/genesis"), vault.headers[0].encode().to_vec()),
        (fuzz.join("seeds/header/tip"), vault.headers[4].encode().to_vec()),
        (fuzz.join("seeds/header/leaf"), vault.leaves.values().next().unwrap().clone()),
        (
            fuzz.join("seeds/note/signed"),
            SignedCheckpoint::sign(&vault.checkpoint(), &log_key()).into_bytes(),
        ),
        (fuzz.join("seeds/note/body"), vault.checkpoint().encode().into_bytes()),
        (fuzz.join("seeds/note/public_key"), log_key().verifier_key().to_string().into_bytes()),
        (fuzz.join("seeds/note/private_key"), log_key().to_secret_text().as_bytes().to_vec()),
    ];
    for (file, _, document) in documents() {
        let name = file.trim_end_matches(".proof.json");
        seeds.push((fuzz.join("seeds/proof_json").join(name), document.into_bytes()));
    }
    for (index, bytes) in vault.transactions.concat().into_iter().enumerate() {
        seeds.push((fuzz.join(format!("seeds/transaction/{index}")), bytes));
    }
    seeds
}

fn hash_text(hash: &Hash) -> Json {
    text(hex(hash))
}

fn hash_vectors() -> Json {
    let (left, right) = (sha256(&[b"left"]), sha256(&[b"right"]));
    let vector = |name, input: &[u8], result: Hash| {
        object([("name", text(name)), ("preimage_hex", text(hex(input))), ("hash", hash_text(&result))])
    };
    let published = [
        vector("log_empty", b"", log_empty()),
        vector("log_leaf of no bytes", b"\x00", log_leaf(b"")),
        vector("log_leaf of \"L123456\"", b"\x00L123456", log_leaf(b"L123456")),
        vector("log node of RFC 6962's short strings", b"\x01N123N456", sha256(&[b"\x01", b"N123", b"N456"])),
    ];
    let joined = [left, right].concat();
    let ours = [
        vector("log_node", &[b"\x01", joined.as_slice()].concat(), log_node(&left, &right)),
        vector("state_leaf", &[b"JMT::LeafNode", joined.as_slice()].concat(), state_leaf(&left, &right)),
        vector("state_node", &[b"JMT::IntrnalNode", joined.as_slice()].concat(), state_node(&left, &right)),
    ];
    object([
        (
            "about",
            text(
                "Each hash is SHA-256 of its preimage. left = SHA-256(\"left\"), right = SHA-256(\"right\").",
            ),
        ),
        ("state_empty_hex", hash_text(&STATE_EMPTY)),
        ("vectors", list(published.into_iter().chain(ours))),
    ])
}

fn header_json(name: &str, header: &BlockHeader) -> Json {
    object([
        ("name", text(name)),
        ("ledger_id_hex", text(hex(&header.ledger_id))),
        ("vault_id_hex", text(hex(&header.vault_id))),
        ("height", number(header.height)),
        ("previous", hash_text(&header.previous)),
        ("tx_root", hash_text(&header.tx_root)),
        ("tx_count", number(header.tx_count)),
        ("state_root", hash_text(&header.state_root)),
        ("time_ms", number(header.time_ms)),
        ("term", number(header.term)),
        ("index", number(header.index)),
        ("first_sequence", number(header.first_sequence)),
        ("last_sequence", number(header.last_sequence)),
        ("encoded_hex", text(hex(&header.encode()))),
        ("block_hash", hash_text(&header.leaf_hash())),
    ])
}

fn header_vectors() -> Json {
    let distinct = BlockHeader {
        version: 1,
        ledger_id: [0x11; 16],
        vault_id: [0x22; 16],
        height: 0x0102_0304_0506,
        previous: [0x33; 32],
        tx_root: [0x44; 32],
        tx_count: 0x0708_090a,
        state_root: [0x55; 32],
        time_ms: 0x0b0c_0d0e_0f10,
        term: 0x1112_1314_1516,
        index: 0x1718_191a_1b1c,
        first_sequence: 0x1d1e_1f20_2122,
        last_sequence: 0x2324_2526_2728,
    };
    let vault = Vault::five_blocks();
    let blocks = vault.headers.iter().map(|header| header_json("block of the sample vault", header));
    object([("headers", list([header_json("every field distinct", &distinct)].into_iter().chain(blocks)))])
}

fn tuple_json(tuple: &RelationshipRef<'_>) -> Json {
    object([
        ("resource", text(tuple.resource)),
        ("relation", text(tuple.relation)),
        ("subject", text(tuple.subject)),
    ])
}

fn action_json(action: &ActionRef<'_>) -> Json {
    let keyed = |kind, key: &str| object([("kind", number(kind)), ("key", text(key))]);
    let related = |kind, tuple| object([("kind", number(kind)), ("relationship", tuple_json(tuple))]);
    match action {
        ActionRef::SetEntity { key, value, expires_at_ms } => object([
            ("kind", number(1u8)),
            ("key", text(*key)),
            ("value_hex", text(hex(value))),
            ("expires_at_ms", number(*expires_at_ms)),
        ]),
        ActionRef::DeleteEntity { key } => keyed(2u8, key),
        ActionRef::ExpireEntity { key } => keyed(3, key),
        ActionRef::CreateRelationship(tuple) => related(4u8, tuple),
        ActionRef::DeleteRelationship(tuple) => related(5, tuple),
        ActionRef::AssertEntity { key } => keyed(6, key),
        ActionRef::AssertRelationship(tuple) => related(7, tuple),
    }
}

fn condition_json(condition: Option<&ConditionRef<'_>>) -> Json {
    match condition {
        None => object([("kind", number(0u8))]),
        Some(ConditionRef::MustNotExist) => object([("kind", number(1u8))]),
        Some(ConditionRef::MustExist) => object([("kind", number(2u8))]),
        Some(ConditionRef::VersionEquals(version)) => {
            object([("kind", number(3u8)), ("version", number(*version))])
        }
        Some(ConditionRef::ValueEquals(value)) => {
            object([("kind", number(4u8)), ("value_hex", text(hex(value)))])
        }
    }
}

/// Every kind of operation, with every condition at least once and every result.
fn all_operations() -> Vec<OperationRef<'static>> {
    let owner = RelationshipRef { resource: "document:42", relation: "owner", subject: "team:core#member" };
    let set = |value, expires_at_ms| ActionRef::SetEntity { key: "größe", value, expires_at_ms };
    let version = Some(ConditionRef::VersionEquals(0x0102_0304_0506));
    [
        (set(b"", 0), Some(ConditionRef::MustNotExist), 1),
        (set(b"\x00\xff", GENESIS_TIME_MS), version, 3),
        (ActionRef::DeleteEntity { key: "a" }, Some(ConditionRef::MustExist), 4),
        (ActionRef::DeleteEntity { key: "b" }, None, 5),
        (ActionRef::ExpireEntity { key: "session/9" }, None, 4),
        (ActionRef::CreateRelationship(owner), None, 1),
        (ActionRef::CreateRelationship(VIEWER), None, 2),
        (ActionRef::DeleteRelationship(owner), version, 4),
        (ActionRef::AssertEntity { key: "c" }, Some(ConditionRef::ValueEquals(b"42")), 6),
        (ActionRef::AssertRelationship(VIEWER), Some(ConditionRef::MustExist), 6),
    ]
    .map(|(action, condition, result)| OperationRef { action, condition, result })
    .into()
}

fn transaction_vectors() -> Json {
    let transaction = |actor: &str, operations: &[OperationRef<'_>]| {
        let header = TransactionHeader {
            vault_id: VAULT_ID,
            sequence: 7,
            time_ms: GENESIS_TIME_MS,
            idempotency_key: LEDGER_ID,
            actor,
            operation_count: operations.len() as u16,
        };
        let mut bytes = Vec::new();
        encode_header(&mut bytes, &header);
        operations.iter().for_each(|operation| encode_operation(&mut bytes, operation));
        let operations = operations.iter().map(|operation| {
            let mut bytes = Vec::new();
            encode_operation(&mut bytes, operation);
            object([
                ("action", action_json(&operation.action)),
                ("condition", condition_json(operation.condition.as_ref())),
                ("result", number(operation.result)),
                ("encoded_hex", text(hex(&bytes))),
            ])
        });
        object([
            ("vault_id_hex", text(hex(&header.vault_id))),
            ("sequence", number(header.sequence)),
            ("time_ms", number(header.time_ms)),
            ("idempotency_key_hex", text(hex(&header.idempotency_key))),
            ("actor", text(actor)),
            ("operations", list(operations)),
            ("encoded_hex", text(hex(&bytes))),
            ("log_leaf", hash_text(&log_leaf(&bytes))),
        ])
    };
    let vault = Vault::five_blocks();
    let blocks = vault.transactions.iter().zip(&vault.headers).map(|(transactions, header)| {
        object([
            ("height", number(header.height)),
            ("encoded_hex", list(transactions.iter().map(|bytes| text(hex(bytes))))),
            ("tx_root", hash_text(&header.tx_root)),
        ])
    });
    object([
        ("transactions", list([transaction("user:ada", &all_operations()), transaction("system:gc", &[])])),
        ("blocks_of_the_sample_vault", list(blocks)),
    ])
}

fn state_proof_json(proof: &StateProof) -> Vec<(&'static str, Json)> {
    let other_leaf = match &proof.other_leaf {
        None => Json::Null,
        Some((key_hash, value_hash)) => {
            object([("key_hash", hash_text(key_hash)), ("value_hash", hash_text(value_hash))])
        }
    };
    vec![("siblings", list(proof.siblings.iter().map(hash_text))), ("other_leaf", other_leaf)]
}

fn state_vectors() -> Json {
    let keys = [
        StateKey::Entity { key: "config/limit" },
        StateKey::Entity { key: "größe" },
        StateKey::Relationship(VIEWER),
    ]
    .map(|key| {
        let subject = match key {
            StateKey::Entity { key } => object([("entity", object([("key", text(key))]))]),
            StateKey::Relationship(tuple) => object([("relationship", tuple_json(&tuple))]),
        };
        object([
            ("subject", subject),
            ("key_bytes_hex", text(hex(&key.encode()))),
            ("key_hash", hash_text(&key.hash())),
        ])
    });
    let values = [
        (LeafKind::Entity, 0x0102_0304_0506, 0x0708_090a_0b0c, GENESIS_TIME_MS, b"value".as_slice()),
        (LeafKind::Entity, 1, 1, 0, b""),
        (LeafKind::Relationship, 2, 3, 0, b""),
    ]
    .map(|(kind, modified_height, version, expires_at_ms, value)| {
        let leaf = LeafValue { kind, modified_height, version, expires_at_ms, value };
        object([
            ("kind", number(if kind == LeafKind::Entity { 1u8 } else { 2 })),
            ("modified_height", number(modified_height)),
            ("version", number(version)),
            ("expires_at_ms", number(expires_at_ms)),
            ("value_hex", text(hex(value))),
            ("encoded_hex", text(hex(&leaf.encode()))),
            ("value_hash", hash_text(&leaf.hash())),
        ])
    });
    object([
        ("keys", list(keys)),
        ("leaf_values", list(values)),
        ("trees", list(state_trees().iter().map(|(name, tree)| state_tree_json(name, tree)))),
    ])
}

/// Trees of 0, 1, 2, 3, 5 and 9 leaves and one whose two keys part at the last bit.
fn state_trees() -> Vec<(String, StateTree)> {
    let leaf = |number: u8| (sha256(&[b"key", &[number]]), sha256(&[b"value", &[number]]));
    let mut trees: Vec<_> = [0, 1, 2, 3, 5, 9]
        .map(|size| (format!("{size} leaves"), StateTree { leaves: (0..size).map(leaf).collect() }))
        .into();
    let (key_hash, value_hash) = leaf(0);
    let twin = (flip(&key_hash, 255), leaf(1).1);
    let twins = StateTree { leaves: [(key_hash, value_hash), twin].into_iter().collect() };
    trees.push(("two keys that differ in the last bit only".to_owned(), twins));
    trees
}

fn state_tree_json(name: &str, tree: &StateTree) -> Json {
    let root = tree.root();
    let presence = tree.leaves.iter().map(|(key_hash, value_hash)| {
        let proof = tree.prove(key_hash);
        assert_eq!(proof.verify_presence(&root, key_hash, value_hash), Ok(()));
        let names = vec![("key_hash", hash_text(key_hash)), ("value_hash", hash_text(value_hash))];
        object(names.into_iter().chain(state_proof_json(&proof)))
    });
    let absent = (100..106u8).map(|number| sha256(&[b"key", &[number]]));
    let absence = absent.map(|key_hash| {
        let proof = tree.prove(&key_hash);
        assert_eq!(proof.verify_absence(&root, &key_hash), Ok(()));
        object([("key_hash", hash_text(&key_hash))].into_iter().chain(state_proof_json(&proof)))
    });
    object([
        ("name", text(name)),
        ("root", hash_text(&root)),
        ("presence", list(presence)),
        ("absence", list(absence)),
    ])
}

fn log_vectors() -> Json {
    let data: Vec<Vec<u8>> = (0..8).map(|index| format!("leaf {index}").into_bytes()).collect();
    let leaves: Vec<Hash> = data.iter().map(|data| log_leaf(data)).collect();
    let trees = (0..=8).map(|size| {
        let leaves = &leaves[..size];
        let inclusion = (0..size).map(|index| {
            let path = inclusion_path(leaves, index).unwrap();
            object([("index", number(index as u64)), ("path", list(path.iter().map(hash_text)))])
        });
        let consistency = (0..=size).map(|old_size| {
            let path = consistency_path(leaves, old_size).unwrap();
            object([("old_size", number(old_size as u64)), ("path", list(path.iter().map(hash_text)))])
        });
        object([
            ("size", number(size as u64)),
            ("root", hash_text(&root_of(leaves))),
            ("inclusion", list(inclusion)),
            ("consistency", list(consistency)),
        ])
    });
    object([
        ("leaf_data_hex", list(data.iter().map(|data| text(hex(data))))),
        ("leaf_hashes", list(leaves.iter().map(hash_text))),
        ("trees", list(trees)),
    ])
}

fn key_json(key: &SigningKey, seed: &[u8]) -> Json {
    let public = key.verifier_key();
    object([
        ("name", text(key.name())),
        ("seed_hex", text(hex(seed))),
        ("public_key_hex", text(hex(&public.public_key()))),
        ("key_id_hex", text(format!("{:08x}", public.key_id()))),
        ("verifier_key", text(public.to_string())),
        ("private_key", text(key.to_secret_text().as_str())),
    ])
}

fn note_vectors() -> Json {
    let checkpoint = Vault::five_blocks().checkpoint();
    object([
        ("about", text("A key for these vectors only: its seed is public.")),
        ("key", key_json(&log_key(), &SEED)),
        ("origin", text(checkpoint.origin.as_str())),
        ("size", number(checkpoint.size)),
        ("root", hash_text(&checkpoint.root)),
        ("body", text(checkpoint.encode())),
        ("signed", text(SignedCheckpoint::sign(&checkpoint, &log_key()))),
    ])
}

fn claim_json(claim: &Claim) -> Vec<(&'static str, Json)> {
    vec![
        ("ledger_id_hex", text(hex(&claim.ledger_id))),
        ("vault_id_hex", text(hex(&claim.vault_id))),
        ("present", Json::Bool(claim.present)),
        ("value_hex", claim.value.as_ref().map_or(Json::Null, |value| text(hex(value)))),
        ("version", number(claim.version)),
        ("modified_height", number(claim.modified_height)),
        ("expires_at_ms", number(claim.expires_at_ms)),
        ("height", number(claim.height)),
        ("block_hash", hash_text(&claim.block_hash)),
        ("state_root", hash_text(&claim.state_root)),
        ("time_ms", number(claim.time_ms)),
        ("checkpoint_size", number(claim.checkpoint_size)),
        ("checkpoint_root", hash_text(&claim.checkpoint_root)),
        ("origin", text(claim.origin.as_str())),
        ("key_name", text(claim.key_name.as_str())),
    ]
}

fn proof_vectors() -> Json {
    let keys = [log_key().verifier_key()];
    let documents = documents().into_iter().map(|(file, subject, document)| {
        let (read, evidence) = from_json(document.as_bytes()).unwrap();
        assert_eq!(read, subject);
        let claim = verify(&subject, &evidence, &keys).unwrap();
        object([("file", text(file)), ("claim", object(claim_json(&claim)))])
    });
    object([("verifier_key", text(log_key().verifier_key().to_string())), ("documents", list(documents))])
}

/// Documents that a verifier must refuse, each with the reason.
pub fn refused_documents() -> Vec<(&'static str, String)> {
    let vault = Vault::five_blocks();
    let subject = entity("config/limit");
    let evidence = vault.evidence_at(&subject, 3);
    let document = to_json(&subject, &evidence);
    let with = |change: &dyn Fn(&mut ledger_verify::proof::Evidence)| {
        let mut evidence = evidence.clone();
        change(&mut evidence);
        to_json(&subject, &evidence)
    };
    let resigned = |origin: String, key: &SigningKey| {
        let checkpoint = ledger_verify::note::Checkpoint { origin, ..vault.checkpoint() };
        with(&|evidence| evidence.checkpoint = SignedCheckpoint::sign(&checkpoint, key))
    };
    let origin = vault.checkpoint().origin;
    let impostor = SigningKey::from_seed(log_key().name(), &[9; 32]).unwrap();
    let other = (sha256(&[b"other"]), sha256(&[b"value"]));
    let absent = vault.absent(true);
    let absent_empty = vault.absent(false);
    let withheld = |subject: &Subject| {
        let evidence = vault.evidence(subject);
        let state_proof = StateProof { other_leaf: None, ..evidence.state_proof.clone() };
        to_json(subject, &ledger_verify::proof::Evidence { state_proof, ..evidence })
    };
    vec![
        (
            "the value was changed",
            with(&|evidence| *evidence.leaf.as_mut().unwrap().last_mut().unwrap() ^= 1),
        ),
        ("the version was changed", with(&|evidence| evidence.leaf.as_mut().unwrap()[17] ^= 1)),
        ("the leaf says relationship", with(&|evidence| evidence.leaf.as_mut().unwrap()[1] = 2)),
        ("the leaf was withheld", with(&|evidence| evidence.leaf = None)),
        ("a sibling was changed", with(&|evidence| evidence.state_proof.siblings[0][31] ^= 1)),
        (
            "a sibling is missing",
            with(&|evidence| {
                evidence.state_proof.siblings.pop();
            }),
        ),
        ("presence names another leaf", with(&|evidence| evidence.state_proof.other_leaf = Some(other))),
        ("the state root was changed", with(&|evidence| evidence.header[116] ^= 1)),
        ("the header's term was changed", with(&|evidence| evidence.header[163] ^= 1)),
        (
            "the header is one byte short",
            with(&|evidence| {
                evidence.header.pop();
            }),
        ),
        ("a path hash was changed", with(&|evidence| evidence.inclusion_path[0][0] ^= 0x80)),
        ("the path is one hash too long", with(&|evidence| evidence.inclusion_path.push([0; 32]))),
        (
            "the path is one hash too short",
            with(&|evidence| {
                evidence.inclusion_path.pop();
            }),
        ),
        ("the checkpoint is for another vault", resigned(origin.replace("a1b2", "a1b3"), &log_key())),
        ("the checkpoint was signed by another key of the same name", resigned(origin, &impostor)),
        ("the checkpoint's size was changed", document.replacen("\\n5\\n", "\\n6\\n", 1)),
        ("a second signature line", document.replacen("\\n\"\n", "\\n\u{2014} a AAAA\\n\"\n", 1)),
        ("another subject", document.replacen("config/limit", "config/region", 1)),
        ("another format", document.replacen("proof.v1", "proof.v2", 1)),
        ("an unknown field", document.replacen("{\n", "{\n  \"extra\": null,\n", 1)),
        ("no newline at the end", document.trim_end().to_owned()),
        ("an escape where none is needed", document.replacen("config/limit", "config\\/limit", 1)),
        ("absence without the other leaf", withheld(&absent)),
        ("absence through an empty place moved to a present key", moved(&vault, &absent_empty, &subject)),
    ]
}

fn moved(vault: &Vault, from: &Subject, to: &Subject) -> String {
    to_json(to, &vault.evidence(from))
}

fn refused_vectors() -> Json {
    let keys = [log_key().verifier_key()];
    let refused = refused_documents().into_iter().map(|(why, document)| {
        let verdict =
            from_json(document.as_bytes()).and_then(|(subject, evidence)| verify(&subject, &evidence, &keys));
        assert!(verdict.is_err(), "{why} was accepted");
        object([("why", text(why)), ("document", text(document))])
    });
    object([("verifier_key", text(log_key().verifier_key().to_string())), ("documents", list(refused))])
}

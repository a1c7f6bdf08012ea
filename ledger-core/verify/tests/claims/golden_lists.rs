//! The golden vectors of lists, beside those of `golden`.

use std::path::{Path, PathBuf};

use ledger_verify::hash::sha256;
use ledger_verify::list::{
    KeyRange, ListClaim, ListEvidence, ListSubject, from_json, member_key, member_value_hash, state_key_hash,
    to_json, verify,
};

use crate::fixture::{hex, log_key};
use crate::golden::folder;
use crate::golden_json::{Json, list, number, object, text};
use crate::list_fixture::{LIBC, ListVault, Node, SOLO, leaf_of, nodes, subject};

/// The documents of the sample vault by file name.
pub fn list_documents() -> Vec<(&'static str, ListSubject, String)> {
    let vault = ListVault::sample();
    [
        ("list-all.proof.json", subject(LIBC, None), 4),
        ("list-relation.proof.json", subject(LIBC, Some("suggested_by")), 100),
        ("list-other-relation.proof.json", subject(LIBC, Some("provided_by")), 100),
        ("list-single.proof.json", subject(SOLO, None), 100),
        ("list-empty.proof.json", subject("package:nothing", None), 100),
    ]
    .map(|(file, subject, members_max)| {
        let document = to_json(&subject, &vault.evidence(&subject, members_max));
        (file, subject, document)
    })
    .into()
}

/// Documents that a verifier must refuse, each with the reason.
pub fn refused_list_documents() -> Vec<(&'static str, String)> {
    let vault = ListVault::sample();
    let asked = subject(LIBC, None);
    let evidence = vault.evidence(&asked, 4);
    let members = &vault.lists[LIBC];
    let with = |change: &dyn Fn(&mut ListEvidence)| {
        let mut evidence = evidence.clone();
        change(&mut evidence);
        to_json(&asked, &evidence)
    };
    let whole = |node: Node| {
        with(&|evidence| {
            evidence.pages.truncate(1);
            evidence.pages[0].last_key = KeyRange::ALL.last;
            evidence.pages[0].nodes = node.encode();
        })
    };
    let all = nodes(members, &KeyRange::ALL);
    let mut withheld = all.clone();
    withheld.all_mut(&mut |node| {
        if let Node::Member(..) = node {
            *node = Node::Pruned(node.hash());
        }
    });
    let Node::Inner(left, right) = &all else { panic!("the sample has several members") };
    let old = vault.evidence_at(&asked, 1, 4);
    vec![
        ("a member was left out", whole(nodes(&members[1..], &KeyRange::ALL))),
        ("the members are hidden behind their hashes", whole(withheld)),
        ("two halves changed places", whole(Node::Inner(right.clone(), left.clone()))),
        ("the first page is missing", with(&|evidence| drop(evidence.pages.remove(0)))),
        ("the last page is missing", with(&|evidence| drop(evidence.pages.pop()))),
        ("two pages changed places", with(&|evidence| evidence.pages.swap(0, 1))),
        ("a page is there twice", with(&|evidence| evidence.pages.push(evidence.pages[2].clone()))),
        ("a page ends one key early", with(&|evidence| evidence.pages[0].last_key[31] ^= 1)),
        ("a byte follows the nodes", with(&|evidence| evidence.pages[0].nodes.push(0))),
        ("a member's name was changed", with(&|evidence| *evidence.pages[1].nodes.last_mut().unwrap() ^= 1)),
        ("the count was changed", with(&|evidence| evidence.head.leaf.as_mut().unwrap()[9] ^= 1)),
        (
            "the leaf was withheld",
            with(&|evidence| {
                evidence.head.leaf = None;
                evidence.pages.clear();
            }),
        ),
        ("a sibling was changed", with(&|evidence| evidence.head.state_proof.siblings[0][31] ^= 1)),
        ("the header covers no lists", to_json(&asked, &old)),
        (
            "the header covers no lists, and the list is empty",
            to_json(
                &subject("package:nothing", None),
                &vault.evidence_at(&subject("package:nothing", None), 1, 4),
            ),
        ),
        ("the list of another resource", to_json(&subject(SOLO, None), &evidence)),
        (
            "the list of a relation as that of all",
            to_json(&asked, &vault.evidence(&subject(LIBC, Some("suggested_by")), 4)),
        ),
    ]
}

fn claim_json(claim: &ListClaim) -> Json {
    let member = |member: &ledger_verify::list::Member| {
        object([("relation", text(&*member.relation)), ("subject", text(&*member.subject))])
    };
    object([
        ("ledger_id_hex", text(hex(&claim.ledger_id))),
        ("vault_id_hex", text(hex(&claim.vault_id))),
        ("members", list(claim.members.iter().map(member))),
        ("resource_count", number(claim.resource_count)),
        ("height", number(claim.height)),
        ("block_hash", text(hex(&claim.block_hash))),
        ("state_root", text(hex(&claim.state_root))),
        ("time_ms", number(claim.time_ms)),
        ("checkpoint_size", number(claim.checkpoint_size)),
        ("checkpoint_root", text(hex(&claim.checkpoint_root))),
        ("origin", text(&*claim.origin)),
        ("key_name", text(&*claim.key_name)),
    ])
}

fn list_vectors() -> Json {
    let vault = ListVault::sample();
    let members = vault.lists[LIBC].iter().map(|member| {
        object([
            ("relation", text(&*member.relation)),
            ("subject", text(&*member.subject)),
            ("key", text(hex(&member_key(&member.relation, &member.subject)))),
            ("value_hash", text(hex(&member_value_hash(&member.relation, &member.subject)))),
        ])
    });
    let leaf = leaf_of(&vault.lists[LIBC]);
    let range = KeyRange::of_relation("suggested_by");
    object([
        ("resource", text(LIBC)),
        ("state_key_hash", text(hex(&state_key_hash(LIBC)))),
        ("members", list(members)),
        ("set_root", text(hex(&leaf.root))),
        ("leaf_hex", text(hex(&leaf.encode()))),
        ("leaf_value_hash", text(hex(&sha256(&[&leaf.encode()])))),
        (
            "range_of_suggested_by",
            object([("first", text(hex(&range.first))), ("last", text(hex(&range.last)))]),
        ),
        (
            "header_version_2",
            object([
                ("encoded_hex", text(hex(&vault.headers[2].encode()))),
                ("block_hash", text(hex(&vault.headers[2].leaf_hash()))),
            ]),
        ),
    ])
}

fn claims() -> Json {
    let keys = [log_key().verifier_key()];
    let documents = list_documents().into_iter().map(|(file, subject, document)| {
        let (read, evidence) = from_json(document.as_bytes()).unwrap();
        assert_eq!(read, subject);
        let claim = verify(&subject, &evidence, &keys).unwrap();
        object([("file", text(file)), ("claim", claim_json(&claim))])
    });
    object([("verifier_key", text(log_key().verifier_key().to_string())), ("documents", list(documents))])
}

fn refused() -> Json {
    let keys = [log_key().verifier_key()];
    list(refused_list_documents().into_iter().map(|(why, document)| {
        let verdict =
            from_json(document.as_bytes()).and_then(|(asked, evidence)| verify(&asked, &evidence, &keys));
        assert!(verdict.is_err(), "{why}");
        object([("why", text(why)), ("document", text(document))])
    }))
}

/// Every committed file about lists with its content.
pub fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/list_json");
    let mut files: Vec<(PathBuf, Vec<u8>)> =
        [("list.json", list_vectors()), ("lists.json", claims()), ("refused_lists.json", refused())]
            .map(|(name, json)| (folder().join(name), json.pretty().into_bytes()))
            .into();
    for (file, _, document) in list_documents() {
        files.push((fuzz.join(file.trim_end_matches(".proof.json")), document.clone().into_bytes()));
        files.push((folder().join(file), document.into_bytes()));
    }
    files
}

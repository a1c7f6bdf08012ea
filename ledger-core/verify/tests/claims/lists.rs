//! Lists: complete, or refused.

use std::collections::BTreeMap;

use ledger_verify::list::{
    DOCUMENT_BYTES_MAX, KeyRange, LEAF_BYTES, ListClaim, ListEvidence, ListLeaf, ListPage, ListSubject,
    Member, NODES_BYTES_MAX, PAGES_MAX, from_json, is_list_document, member_key, member_value_hash,
    successor, to_json, verify, verify_range,
};
use ledger_verify::{DecodeError, Hash, ListFault, ProofError, proof};
use proptest::prelude::*;

use crate::fixture::{LEDGER_ID, VAULT_ID, Vault, entity, log_key};
use crate::list_fixture::{LIBC, ListVault, Node, SOLO, leaf_of, member, nodes, pages, subject};

fn check(subject: &ListSubject, evidence: &ListEvidence) -> Result<ListClaim, ProofError> {
    verify(subject, evidence, &[log_key().verifier_key()])
}

fn sorted(members: &[Member]) -> Vec<Member> {
    let mut members = members.to_vec();
    members.sort();
    members
}

#[test]
fn a_list_is_proved_whole_by_relation_and_empty_in_any_pages() {
    let vault = ListVault::sample();
    let all = sorted(&vault.lists[LIBC]);
    for members_max in 1..=12 {
        let asked = subject(LIBC, None);
        let claim = check(&asked, &vault.evidence(&asked, members_max)).unwrap();
        assert_eq!((&claim.members, claim.resource_count, claim.height), (&all, 11, 2));
        assert_eq!((claim.ledger_id, claim.vault_id), (LEDGER_ID, VAULT_ID));
        for (relation, count) in [("required_by", 9), ("suggested_by", 2), ("none", 0)] {
            let asked = subject(LIBC, Some(relation));
            let claim = check(&asked, &vault.evidence(&asked, members_max)).unwrap();
            assert!(claim.members.iter().all(|member| member.relation == relation));
            assert_eq!((claim.members.len(), claim.resource_count), (count, 11));
        }
    }
    let solo = subject(SOLO, None);
    assert_eq!(check(&solo, &vault.evidence(&solo, 5)).unwrap().members, vault.lists[SOLO]);
    let nothing = subject("package:nothing", Some("required_by"));
    let claim = check(&nothing, &vault.evidence(&nothing, 5)).unwrap();
    assert_eq!((claim.members, claim.resource_count), (vec![], 0));
}

#[test]
fn every_flipped_bit_of_every_document_is_refused() {
    let vault = ListVault::sample();
    for asked in [subject(LIBC, None), subject(LIBC, Some("suggested_by")), subject("package:nothing", None)]
    {
        let document = to_json(&asked, &vault.evidence(&asked, 4));
        assert!(is_list_document(document.as_bytes()));
        let read = from_json(document.as_bytes()).unwrap();
        assert_eq!(read, (asked.clone(), vault.evidence(&asked, 4)));
        for offset in 0..document.len() {
            for bit in 0..8 {
                let mut changed = document.clone().into_bytes();
                changed[offset] ^= 1 << bit;
                // In the document of an empty list only the question can change, to one that is answered so too.
                let believed = from_json(&changed).is_ok_and(|(changed, evidence)| {
                    (changed == asked || !evidence.pages.is_empty()) && check(&changed, &evidence).is_ok()
                });
                assert!(!believed, "bit {bit} of byte {offset} of {asked:?}");
            }
        }
    }
}

/// The list of all relationships with other pages, or other nodes in its only page.
fn with_pages(vault: &ListVault, pages: Vec<ListPage>) -> Result<ListClaim, ProofError> {
    let asked = subject(LIBC, None);
    check(&asked, &ListEvidence { pages, ..vault.evidence(&asked, 100) })
}

fn with_nodes(vault: &ListVault, nodes: &Node) -> Result<ListClaim, ProofError> {
    with_pages(vault, vec![ListPage { last_key: KeyRange::ALL.last, nodes: nodes.encode() }])
}

#[test]
fn a_member_that_is_left_out_added_repeated_moved_or_changed_is_refused() {
    let vault = ListVault::sample();
    let members = &vault.lists[LIBC];
    let good = nodes(members, &KeyRange::ALL);
    assert!(with_nodes(&vault, &good).is_ok());
    for left_out in 0..members.len() {
        let mut fewer = members.clone();
        fewer.remove(left_out);
        let refused = with_nodes(&vault, &nodes(&fewer, &KeyRange::ALL));
        assert!(
            matches!(refused, Err(ProofError::ListPage { page: 0, fault: ListFault::RootMismatch { .. } })),
            "{refused:?}"
        );
        let mut changed = members.clone();
        changed[left_out].subject.push('x');
        assert!(with_nodes(&vault, &nodes(&changed, &KeyRange::ALL)).is_err());
    }
    let mut more = members.clone();
    more.push(member("required_by", "package:invented"));
    assert!(with_nodes(&vault, &nodes(&more, &KeyRange::ALL)).is_err());

    // Every node of the tree replaced by nothing, by its hash, by each member, and inner nodes turned around.
    let mut tried = 0;
    for number in 0.. {
        let Some(_) = good.with(number, |_| None) else { break };
        let mut replaced = vec![
            good.with(number, |_| Some(Node::Empty)),
            good.with(number, |node| Some(Node::Pruned(node.hash()))),
            good.with(number, |node| match node {
                Node::Inner(left, right) => Some(Node::Inner(right.clone(), left.clone())),
                _ => None,
            }),
            good.with(number, |node| Some(Node::Inner(Box::new(node.clone()), Box::new(Node::Empty)))),
            good.with(number, |node| Some(Node::Inner(Box::new(Node::Empty), Box::new(node.clone())))),
        ];
        for other in members {
            let other = Node::Member(other.relation.clone(), other.subject.clone());
            replaced.push(good.with(number, |_| Some(other.clone())));
        }
        for changed in replaced.into_iter().flatten().filter(|changed| *changed != good) {
            assert!(with_nodes(&vault, &changed).is_err(), "node {number}: {changed:?}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn pages_that_are_missing_repeated_reordered_or_shifted_are_refused() {
    let vault = ListVault::sample();
    let good = pages(&vault.lists[LIBC], KeyRange::ALL, 3);
    assert_eq!(good.len(), 4);
    assert!(with_pages(&vault, good.clone()).is_ok());
    for page in 0..good.len() {
        let mut missing = good.clone();
        missing.remove(page);
        let mut repeated = good.clone();
        repeated.insert(page, good[page].clone());
        let mut shorter = good.clone();
        shorter[page].last_key = predecessor(&good[page].last_key);
        let mut longer = good.clone();
        longer[page].last_key = successor(&good[page].last_key).unwrap_or(KeyRange::ALL.first);
        let mut trailing = good.clone();
        trailing[page].nodes.push(0);
        let mut cut = good.clone();
        cut[page].nodes.pop();
        for changed in [missing, repeated, shorter, longer, trailing, cut] {
            assert!(with_pages(&vault, changed).is_err(), "page {page}");
        }
        for other in 0..page {
            let mut reordered = good.clone();
            reordered.swap(page, other);
            assert!(with_pages(&vault, reordered).is_err());
        }
    }
    let unfinished = with_pages(&vault, good[..3].to_vec());
    assert_eq!(unfinished, Err(ProofError::ListIncomplete { fault: ListFault::Unfinished }));
    let none = with_pages(&vault, Vec::new());
    assert_eq!(none, Err(ProofError::ListIncomplete { fault: ListFault::Unfinished }));
    let mut beyond = good.clone();
    beyond.push(good[3].clone());
    assert_eq!(with_pages(&vault, beyond), Err(ProofError::ListPage { page: 4, fault: ListFault::Range }));
}

fn predecessor(key: &Hash) -> Hash {
    let mut before = *key;
    for byte in before.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != 0xff {
            break;
        }
    }
    before
}

#[test]
fn a_list_answers_its_own_question_only() {
    let vault = ListVault::sample();
    let (all, required, solo, nothing) =
        (subject(LIBC, None), subject(LIBC, Some("required_by")), subject(SOLO, None), subject("a:b", None));
    let subjects = [&all, &required, &solo, &nothing];
    for asked in subjects {
        for answered in subjects.into_iter().filter(|answered| *answered != asked) {
            let evidence = vault.evidence(answered, 4);
            let solo_in_any_relation = asked == &solo && answered.resource == SOLO;
            assert!(solo_in_any_relation || check(asked, &evidence).is_err(), "{asked:?} {answered:?}");
        }
    }
    let with_leaf = ListEvidence { pages: vault.evidence(&all, 4).pages, ..vault.evidence(&nothing, 4) };
    let refused = check(&nothing, &with_leaf);
    assert_eq!(refused, Err(ProofError::ListIncomplete { fault: ListFault::PagesOfNothing }));
    let mut withheld = vault.evidence(&all, 4);
    withheld.head.leaf = None;
    withheld.pages.clear();
    assert!(matches!(check(&all, &withheld), Err(ProofError::RootMismatch { tree: "state", .. })));
    assert!(verify(&all, &vault.evidence(&all, 4), &[]).is_err(), "no key is trusted");
}

#[test]
fn a_header_that_covers_no_lists_proves_neither_a_list_nor_its_absence() {
    let vault = ListVault::sample();
    for asked in [subject(LIBC, None), subject("package:nothing", None)] {
        let refused = check(&asked, &vault.evidence_at(&asked, 1, 4));
        assert_eq!(refused, Err(ProofError::ListsNotCovered { given: 1 }));
    }
}

#[test]
fn the_answer_leaves_out_other_relations_that_share_the_range() {
    let range = KeyRange::of_relation("viewer");
    let twin =
        (0..).map(|number| format!("r{number}")).find(|name| KeyRange::of_relation(name) == range).unwrap();
    let members = vec![
        member("viewer", "user:ada"),
        member(&twin, "user:bob"),
        member("viewer", "user:eve"),
        member("owner", "user:zoe"),
    ];
    let vault = ListVault::of(BTreeMap::from([(LIBC, members)]));
    for (relation, count) in [("viewer", 2), (twin.as_str(), 1), ("owner", 1)] {
        for members_max in 1..4 {
            let asked = subject(LIBC, Some(relation));
            let claim = check(&asked, &vault.evidence(&asked, members_max)).unwrap();
            assert!(claim.members.iter().all(|member| member.relation == relation));
            assert_eq!((claim.members.len(), claim.resource_count), (count, 4));
        }
    }
}

/// What a dishonest signer commits to is refused where the list itself shows it.
#[test]
fn counts_trees_and_members_that_no_honest_signer_makes_are_refused() {
    let members = ListVault::sample().lists[LIBC].clone();
    let lists = BTreeMap::from([(LIBC, members.clone())]);
    for (count, asked) in [(10, None), (12, None), (8, Some("required_by"))] {
        let leaf = ListLeaf { count, ..leaf_of(&members) };
        let vault = ListVault::with_leaves(lists.clone(), &BTreeMap::from([(LIBC, leaf)]));
        let asked = subject(LIBC, asked);
        let refused = check(&asked, &vault.evidence(&asked, 4));
        assert!(
            matches!(refused, Err(ProofError::ListIncomplete { fault: ListFault::Count { .. } })),
            "{refused:?}"
        );
    }
    let faults = |node: &Node| {
        verify_range(&node.hash(), &KeyRange::ALL, &node.encode()).map(|members| members.len()).unwrap_err()
    };
    let lone = |relation: &str, subject: &str| Node::Member(relation.to_owned(), subject.to_owned());
    let inner = |left: &Node, right: &Node| Node::Inner(Box::new(left.clone()), Box::new(right.clone()));
    let ada = lone("viewer", "user:ada");
    let goes_right = member_key("viewer", "user:ada")[0] >= 0x80;
    let alone = if goes_right { inner(&Node::Empty, &ada) } else { inner(&ada, &Node::Empty) };
    assert_eq!(faults(&alone), ListFault::NotCollapsed);
    assert_eq!(faults(&inner(&Node::Empty, &Node::Empty)), ListFault::NotCollapsed);
    let twice = inner(&ada, &ada);
    assert_eq!(faults(&twice), ListFault::Misplaced);
    let mut deep = ada.clone();
    for _ in 0..300 {
        deep = inner(&deep, &ada);
    }
    assert!(matches!(faults(&deep), ListFault::TooDeep | ListFault::Misplaced));
    let far: Vec<u8> = vec![3; 10_000];
    assert_eq!(verify_range(&[0; 32], &KeyRange::ALL, &far), Err(ListFault::TooDeep));

    // One byte string, two readings: a zero in a name would let a member pass as another one.
    assert_eq!(member_value_hash("a\0b", "c"), member_value_hash("a", "b\0c"));
    for (relation, subject, what) in
        [("a\0b", "c", "relation"), ("a", "b\0c", "subject"), ("", "c", "relation"), ("a", "", "subject")]
    {
        assert_eq!(faults(&lone(relation, subject)), ListFault::Malformed { what });
    }
    assert_eq!(faults(&lone(&"r".repeat(65), "s")), ListFault::Malformed { what: "relation" });
    assert_eq!(faults(&lone("r", &"s".repeat(513))), ListFault::Malformed { what: "subject" });
}

#[test]
fn a_page_has_one_form_only() {
    let vault = ListVault::sample();
    let members = &vault.lists[LIBC];
    let root = leaf_of(members).root;
    let mut keys: Vec<Hash> = members.iter().map(|m| member_key(&m.relation, &m.subject)).collect();
    keys.sort_unstable();
    let range = KeyRange { first: keys[3], last: keys[6] };
    let good = nodes(members, &range);
    let shown = |node: &Node| verify_range(&root, &range, &node.encode()).map(|members| members.len());
    assert_eq!(shown(&good), Ok(4));
    assert_eq!(shown(&nodes(members, &KeyRange::ALL)), Err(ListFault::NotPruned), "more than was asked for");
    let narrower = KeyRange { first: keys[3], last: keys[5] };
    assert_eq!(shown(&nodes(members, &narrower)), Err(ListFault::Withheld), "less than was asked for");
    let mut empty_as_hash = good;
    let mut replaced = 0;
    empty_as_hash.all_mut(&mut |node| {
        if *node == Node::Empty {
            *node = Node::Pruned(Node::Empty.hash());
            replaced += 1;
        }
    });
    assert!(replaced > 0 && shown(&empty_as_hash).is_err());
    let unknown = verify_range(&root, &range, &[4]);
    assert!(matches!(unknown, Err(ListFault::Decode(DecodeError::Unknown { .. }))), "{unknown:?}");
}

#[test]
fn leaves_documents_and_evidence_beyond_their_forms_and_limits_are_refused() {
    let leaf = ListLeaf { count: 7, root: [9; 32] };
    let bytes = leaf.encode();
    assert_eq!((ListLeaf::decode(&bytes), bytes.len()), (Ok(leaf), LEAF_BYTES));
    for length in 0..LEAF_BYTES {
        assert!(ListLeaf::decode(&bytes[..length]).is_err());
    }
    assert!(ListLeaf::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    for (offset, value) in [(0, 2), (1, 2), (9, 0)] {
        let mut changed = bytes;
        changed[offset] = value;
        assert!(ListLeaf::decode(&changed).is_err(), "offset {offset}");
    }

    let vault = ListVault::sample();
    let asked = subject(LIBC, None);
    let evidence = vault.evidence(&asked, 4);
    for bad in [
        subject("", None),
        subject(&"r".repeat(513), None),
        subject(LIBC, Some("")),
        subject(LIBC, Some(&"r".repeat(65))),
    ] {
        let refused = check(&bad, &evidence);
        assert!(matches!(refused, Err(ProofError::TooLarge { .. } | ProofError::EmptySubject { .. })));
    }
    let page = ListPage { last_key: [0; 32], nodes: Vec::new() };
    let many = ListEvidence { pages: vec![page; PAGES_MAX + 1], ..evidence.clone() };
    let page = ListPage { last_key: [0; 32], nodes: vec![0; NODES_BYTES_MAX + 1] };
    let large = ListEvidence { pages: vec![page], ..evidence.clone() };
    for evidence in [many, large] {
        assert!(matches!(check(&asked, &evidence), Err(ProofError::TooLarge { .. })));
        assert!(to_json(&asked, &evidence).len() <= DOCUMENT_BYTES_MAX, "what is within the limits fits");
    }
    assert!(matches!(from_json(&vec![b' '; DOCUMENT_BYTES_MAX + 1]), Err(ProofError::TooLarge { .. })));

    let document = to_json(&asked, &evidence);
    for changed in [
        document.replacen("  \"pages\"", " \"pages\"", 1),
        document.replacen("strongroom.proof.v1", "strongroom.proof.v2", 1),
        document.replacen("\"relation\": null", "\"relation\": null, \"more\": 1", 1),
        document.trim_end().to_owned(),
    ] {
        assert_ne!(changed, document);
        assert!(from_json(changed.as_bytes()).is_err());
    }
    // Neither kind of document passes for the other.
    assert!(proof::from_json(document.as_bytes()).is_err());
    let record = proof::to_json(&entity("a"), &Vault::five_blocks().evidence(&entity("a")));
    assert!(!is_list_document(record.as_bytes()) && from_json(record.as_bytes()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_range_of_any_set_shows_exactly_its_members(
        names in prop::collection::btree_set(("[abc]", "[a-z]{1,4}"), 1..60),
        ends in any::<(Hash, Hash)>(),
    ) {
        let members: Vec<Member> = names.iter().map(|(relation, subject)| member(relation, subject)).collect();
        let range = KeyRange { first: ends.0.min(ends.1), last: ends.0.max(ends.1) };
        let root = leaf_of(&members).root;
        let shown = nodes(&members, &range).encode();
        let mut found: Vec<Member> = verify_range(&root, &range, &shown).unwrap()
            .into_iter().map(|(relation, subject)| member(relation, subject)).collect();
        found.sort();
        let inside = |m: &&Member| range.contains(&member_key(&m.relation, &m.subject));
        let expected: Vec<Member> = members.iter().filter(inside).cloned().collect();
        prop_assert_eq!(found, sorted(&expected));
    }
}

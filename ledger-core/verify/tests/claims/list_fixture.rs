//! A vault with lists made by hand, and pages written down as nodes, so that a test can change any of them.

use std::collections::BTreeMap;

use ledger_verify::Hash;
use ledger_verify::hash::{STATE_EMPTY, log_empty, sha256, state_leaf, state_node};
use ledger_verify::header::{BlockHeader, HEADER_VERSION, HEADER_VERSION_WITHOUT_LISTS};
use ledger_verify::list::{
    KeyRange, ListEvidence, ListLeaf, ListPage, ListSubject, MEMBER, Member, NODE_EMPTY, NODE_INNER,
    NODE_PRUNED, member_key, member_value_hash, put_member, state_key_hash, successor,
};
use ledger_verify::log::{inclusion_path, root_of};
use ledger_verify::note::{Checkpoint, SignedCheckpoint};
use ledger_verify::proof::{Evidence, log_origin};

use crate::fixture::{GENESIS_TIME_MS, LEDGER_ID, VAULT_ID, log_key};
use crate::state_oracle::StateTree;

pub const LIBC: &str = "package:libc6";
pub const SOLO: &str = "package:hello";

/// A node of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Empty,
    Pruned(Hash),
    Member(String, String),
    Inner(Box<Node>, Box<Node>),
}

impl Node {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.push(NODE_EMPTY),
            Self::Pruned(hash) => {
                out.push(NODE_PRUNED);
                out.extend_from_slice(hash);
            }
            Self::Member(relation, subject) => put_member(out, relation, subject),
            Self::Inner(left, right) => {
                out.push(NODE_INNER);
                left.put(out);
                right.put(out);
            }
        }
    }

    pub fn hash(&self) -> Hash {
        match self {
            Self::Empty => STATE_EMPTY,
            Self::Pruned(hash) => *hash,
            Self::Member(relation, subject) => {
                state_leaf(&member_key(relation, subject), &member_value_hash(relation, subject))
            }
            Self::Inner(left, right) => state_node(&left.hash(), &right.hash()),
        }
    }

    /// Every node below this one and itself, in the order of their bytes.
    pub fn all_mut(&mut self, visit: &mut dyn FnMut(&mut Node)) {
        visit(self);
        if let Self::Inner(left, right) = self {
            left.all_mut(visit);
            right.all_mut(visit);
        }
    }

    /// This tree with its node number `wanted` replaced; `None` beyond the last.
    pub fn with(&self, wanted: usize, replace: impl Fn(&Node) -> Option<Node>) -> Option<Node> {
        let mut changed = self.clone();
        let (mut number, mut done) = (0, false);
        changed.all_mut(&mut |node| {
            if number == wanted && !done {
                done = true;
                if let Some(new) = replace(node) {
                    *node = new;
                }
            }
            number += 1;
        });
        (number > wanted).then_some(changed)
    }
}

/// What a page over a range shows, by its definition.
pub fn nodes(members: &[Member], range: &KeyRange) -> Node {
    let members: BTreeMap<Hash, &Member> =
        members.iter().map(|member| (member_key(&member.relation, &member.subject), member)).collect();
    subtree(&members.into_iter().collect::<Vec<_>>(), &KeyRange::ALL, 0, range)
}

fn subtree(members: &[(Hash, &Member)], keys: &KeyRange, depth: usize, range: &KeyRange) -> Node {
    let full = match members {
        [] => return Node::Empty,
        [(_, member)] => Node::Member(member.relation.clone(), member.subject.clone()),
        _ => {
            let goes_right = |key: &Hash| key[depth / 8] >> (7 - depth % 8) & 1 == 1;
            let (left, right) = members.split_at(members.partition_point(|(key, _)| !goes_right(key)));
            let (left_keys, right_keys) = keys.halves(depth);
            let left = subtree(left, &left_keys, depth + 1, range);
            Node::Inner(Box::new(left), Box::new(subtree(right, &right_keys, depth + 1, range)))
        }
    };
    if range.misses(keys) { Node::Pruned(full.hash()) } else { full }
}

/// Pages of at most so many members each.
pub fn pages(members: &[Member], asked: KeyRange, members_max: usize) -> Vec<ListPage> {
    let mut keys: Vec<Hash> =
        members.iter().map(|member| member_key(&member.relation, &member.subject)).collect();
    keys.retain(|key| asked.contains(key));
    keys.sort_unstable();
    let mut first = asked.first;
    let mut pages = Vec::new();
    loop {
        let rest: Vec<&Hash> = keys.iter().filter(|key| **key >= first).collect();
        let last = if rest.len() > members_max { *rest[members_max - 1] } else { asked.last };
        pages.push(ListPage { last_key: last, nodes: nodes(members, &KeyRange { first, last }).encode() });
        if last == asked.last {
            return pages;
        }
        first = successor(&last).unwrap();
    }
}

pub fn member(relation: &str, subject: &str) -> Member {
    Member { relation: relation.to_owned(), subject: subject.to_owned() }
}

pub fn subject(resource: &str, relation: Option<&str>) -> ListSubject {
    ListSubject { resource: resource.to_owned(), relation: relation.map(str::to_owned) }
}

pub fn leaf_of(members: &[Member]) -> ListLeaf {
    ListLeaf { count: members.len() as u64, root: nodes(members, &KeyRange::ALL).hash() }
}

/// A vault of three blocks; the header of the last one covers lists.
pub struct ListVault {
    pub lists: BTreeMap<&'static str, Vec<Member>>,
    pub headers: Vec<BlockHeader>,
    pub tree: StateTree,
    leaves: BTreeMap<Hash, Vec<u8>>,
}

impl ListVault {
    pub fn sample() -> Self {
        let mut libc: Vec<Member> =
            ["bash", "coreutils", "dpkg", "grep", "perl-base", "sed", "tar", "Zürich", "zlib1g"]
                .map(|name| member("required_by", &format!("package:{name}")))
                .into();
        libc.push(member("suggested_by", "package:glibc-doc"));
        libc.push(member("suggested_by", "team:core#member"));
        Self::of(BTreeMap::from([(LIBC, libc), (SOLO, vec![member("required_by", "package:world")])]))
    }

    pub fn of(lists: BTreeMap<&'static str, Vec<Member>>) -> Self {
        let leaves = lists.iter().map(|(resource, members)| (*resource, leaf_of(members))).collect();
        Self::with_leaves(lists, &leaves)
    }

    /// As a signer makes it who does not keep to what the members are.
    pub fn with_leaves(
        lists: BTreeMap<&'static str, Vec<Member>>,
        leaves: &BTreeMap<&str, ListLeaf>,
    ) -> Self {
        let encoded: BTreeMap<Hash, Vec<u8>> = leaves
            .iter()
            .map(|(resource, leaf)| (state_key_hash(resource), leaf.encode().to_vec()))
            .collect();
        let mut tree = StateTree::default();
        tree.leaves.extend(encoded.iter().map(|(key, leaf)| (*key, sha256(&[leaf]))));
        // Something beside the lists.
        tree.leaves.extend((0..20_u8).map(|number| (sha256(&[&[number]]), [number; 32])));
        let mut vault = Self { lists, headers: Vec::new(), tree, leaves: encoded };
        for (height, version) in [HEADER_VERSION_WITHOUT_LISTS, HEADER_VERSION_WITHOUT_LISTS, HEADER_VERSION]
            .into_iter()
            .enumerate()
        {
            vault.push_header(height as u64, version);
        }
        vault
    }

    fn push_header(&mut self, height: u64, version: u16) {
        self.headers.push(BlockHeader {
            version,
            ledger_id: LEDGER_ID,
            vault_id: VAULT_ID,
            height,
            previous: self.headers.last().map_or([0; 32], BlockHeader::leaf_hash),
            tx_root: log_empty(),
            tx_count: 0,
            state_root: self.tree.root(),
            time_ms: GENESIS_TIME_MS + 1_000 * height,
            term: 1,
            index: 3 + height,
            first_sequence: 1,
            last_sequence: 0,
        });
    }

    /// A list as a reader gets it at a height, in pages of at most so many members.
    pub fn evidence_at(&self, subject: &ListSubject, height: usize, members_max: usize) -> ListEvidence {
        let log: Vec<Hash> = self.headers.iter().map(BlockHeader::leaf_hash).collect();
        let checkpoint = Checkpoint {
            origin: log_origin(&LEDGER_ID, &VAULT_ID),
            size: log.len() as u64,
            root: root_of(&log),
        };
        let key = state_key_hash(&subject.resource);
        let head = Evidence {
            leaf: self.leaves.get(&key).cloned(),
            state_proof: self.tree.prove(&key),
            header: self.headers[height].encode().to_vec(),
            inclusion_path: inclusion_path(&log, height).unwrap(),
            checkpoint: SignedCheckpoint::sign(&checkpoint, &log_key()),
        };
        let members = self.lists.get(subject.resource.as_str());
        let pages = members.map(|members| pages(members, subject.range(), members_max)).unwrap_or_default();
        ListEvidence { head, pages }
    }

    pub fn evidence(&self, subject: &ListSubject, members_max: usize) -> ListEvidence {
        self.evidence_at(subject, 2, members_max)
    }
}

#[test]
fn the_kinds_of_nodes_are_numbered_as_documented() {
    assert_eq!((NODE_EMPTY, NODE_PRUNED, MEMBER, NODE_INNER), (0, 1, 2, 3));
}

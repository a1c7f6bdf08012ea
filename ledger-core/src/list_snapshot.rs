//! One resource's list as it stood at one height, ready to be shown page by page with its proof.

use ledger_verify::Hash;
use ledger_verify::list::{KeyRange, ListLeaf, ListPage, member_key, member_value_hash, put_member};

use crate::relationship::{Relation, Subject};
use crate::state_tree::StateTree;

/// How much one page shows at most; it shows at least one member, when there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPageLimits {
    /// Members.
    pub members_max: usize,
    /// Bytes of nodes.
    pub bytes_max: usize,
}

/// All relationships of a resource at one height, in the order of their keys in the set.
#[derive(Debug)]
pub struct ListSnapshot {
    members: Vec<Entry>,
    /// Relation and subject of every member, one after the other.
    texts: String,
    tree: StateTree,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: Hash,
    start: u32,
    relation_bytes: u16,
    subject_bytes: u16,
}

impl ListSnapshot {
    /// Of pairs in any order, none twice.
    pub fn new<'a>(pairs: impl Iterator<Item = (&'a Relation, &'a Subject)>) -> Self {
        let (mut members, mut texts, mut leaves) = (Vec::new(), String::new(), Vec::new());
        for (relation, subject) in pairs {
            let (relation, subject) = (relation.as_str(), subject.as_str());
            let key = member_key(relation, subject);
            leaves.push((key, member_value_hash(relation, subject)));
            members.push(Entry {
                key,
                // A million members of at most 576 bytes stay below 4 GiB; parts are at most 512 bytes.
                start: texts.len() as u32,
                relation_bytes: relation.len() as u16,
                subject_bytes: subject.len() as u16,
            });
            texts.push_str(relation);
            texts.push_str(subject);
        }
        members.sort_unstable_by_key(|member| member.key);
        Self { members, texts, tree: StateTree::from_leaves(leaves) }
    }

    /// What the state tree must hold for the resource; `None` without members.
    pub fn leaf(&self) -> Option<ListLeaf> {
        let count = self.tree.len();
        (count > 0).then(|| ListLeaf { count, root: self.tree.root() })
    }

    /// Bytes of memory that it occupies.
    pub fn memory_bytes(&self) -> usize {
        self.members.capacity() * size_of::<Entry>() + self.texts.capacity() + self.tree.memory_bytes()
    }

    /// The page that begins at `range.first` and goes to the end of the range, or as far as the limits allow.
    pub fn page(&self, range: &KeyRange, limits: ListPageLimits) -> ListPage {
        let from = self.members.partition_point(|member| member.key < range.first);
        let to = self.members.partition_point(|member| member.key <= range.last);
        let wanted = self.members.get(from..to).unwrap_or_default();
        let mut count = fitting(wanted, limits);
        loop {
            let shown = wanted.get(..count).unwrap_or_default();
            let last_key = match shown.last() {
                Some(last) if count < wanted.len() => last.key,
                _ => range.last,
            };
            let nodes = self.nodes(&KeyRange { first: range.first, last: last_key });
            // The count was an estimate: what lies beside the members depends on the tree.
            if nodes.len() <= limits.bytes_max || count <= 1 {
                return ListPage { last_key, nodes };
            }
            count /= 2;
        }
    }

    fn nodes(&self, range: &KeyRange) -> Vec<u8> {
        let mut nodes = Vec::new();
        self.tree.put_range(range, &mut nodes, &mut |key, nodes| {
            let (relation, subject) = self.member(key);
            put_member(nodes, relation, subject);
        });
        nodes
    }

    /// Relation and subject behind a key of the tree.
    fn member(&self, key: &Hash) -> (&str, &str) {
        let found = self.members.binary_search_by_key(key, |member| member.key);
        let entry = found.ok().and_then(|index| self.members.get(index));
        let texts = entry.and_then(|entry| {
            let rest = self.texts.get(entry.start as usize..)?;
            let (relation, rest) = rest.split_at_checked(usize::from(entry.relation_bytes))?;
            Some((relation, rest.get(..usize::from(entry.subject_bytes))?))
        });
        // The tree has exactly the keys of the members. A page with an empty text would be refused.
        texts.unwrap_or_default()
    }
}

/// How many of the first members fit the limits; at least one.
fn fitting(members: &[Entry], limits: ListPageLimits) -> usize {
    /// Of a member's node beside its texts, and of the inner and empty nodes that it brings along.
    const NODE_BYTES: usize = 7;
    let mut bytes = 0;
    let fits = |member: &&Entry| {
        bytes += NODE_BYTES + usize::from(member.relation_bytes) + usize::from(member.subject_bytes);
        bytes <= limits.bytes_max
    };
    members.iter().take(limits.members_max).take_while(fits).count().max(1)
}

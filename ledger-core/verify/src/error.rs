//! Why bytes were not decoded and why a proof was refused.

use crate::Hash;
use crate::note::NoteError;

/// Bytes that are not the canonical encoding they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input has another size than the layout.
    #[error("{what} has {expected} bytes, {given} were given")]
    Length {
        /// What was decoded.
        what: &'static str,
        /// Bytes of the layout.
        expected: usize,
        /// Bytes of the input.
        given: usize,
    },
    /// The input ends inside a field.
    #[error("the input ends inside {field}: {needed} bytes needed at offset {offset}, {left} left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where the field starts, in bytes.
        offset: usize,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Bytes follow the last field.
    #[error("{trailing} bytes follow the end of {what}")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many bytes too many.
        trailing: usize,
    },
    /// The first bytes are not those of the layout.
    #[error("the input does not start with the magic bytes of {what}")]
    Magic {
        /// What should have been decoded.
        what: &'static str,
    },
    /// A field holds a number without a meaning in this version.
    #[error("{field} is {given}, which this version does not know")]
    Unknown {
        /// The field.
        field: &'static str,
        /// Its value.
        given: u64,
    },
    /// A text field is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A relationship's leaf carries a value.
    #[error("the leaf of a relationship carries a value of {given} bytes; it has none")]
    RelationshipValue {
        /// Bytes of the value.
        given: usize,
    },
}

/// Why a proof was refused. Every variant means: do not believe the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A part does not decode.
    #[error("a part of the proof does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// The checkpoint is not what a trusted key signed.
    #[error("the checkpoint is refused: {0}")]
    Note(#[from] NoteError),
    /// A list or text exceeds its limit.
    #[error("{what} has {given} entries or bytes, at most {max} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        given: usize,
        /// The limit.
        max: usize,
    },
    /// A part of the subject has no characters.
    #[error("{what} of the subject is empty")]
    EmptySubject {
        /// Which part.
        what: &'static str,
    },
    /// The leaf lies outside the tree.
    #[error("leaf {index} does not exist in a log of {size} leaves")]
    IndexOutOfRange {
        /// Index of the leaf, from 0.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// A log path has more or fewer hashes than the tree's shape requires.
    #[error("the path has {given} hashes, the shape of the log requires another number")]
    PathLength {
        /// Hashes given.
        given: usize,
    },
    /// An older log cannot have more leaves than a newer one.
    #[error("the older log has {old_size} leaves, the newer one {new_size}: sizes only grow")]
    SizesReversed {
        /// Leaves of the older log.
        old_size: u64,
        /// Leaves of the newer log.
        new_size: u64,
    },
    /// The computed root is another one than the trusted one.
    #[error("the {tree} root computed from the proof differs from the trusted one: something was changed")]
    RootMismatch {
        /// Which tree.
        tree: &'static str,
        /// The root that the proof should lead to.
        expected: Hash,
        /// The root that it leads to.
        computed: Hash,
    },
    /// A proof of presence that names another leaf, or whose evidence lacks a leaf.
    #[error("the proof is one of absence, presence was to be shown")]
    NotPresence,
    /// A proof of absence that shows the key itself.
    #[error("the proof of absence shows a leaf of the very key that should be absent")]
    KeyIsPresent,
    /// A proof of absence whose other leaf lies in another branch.
    #[error(
        "the other leaf shares {shared_bits} bits with the key, the proof needs {depth}: it proves nothing about the key"
    )]
    OtherBranch {
        /// Leading bits that both key hashes share.
        shared_bits: usize,
        /// Depth of the proof.
        depth: usize,
    },
    /// The node at the bottom stands beside an empty subtree: such a pair does not exist in a collapsed tree.
    #[error("the first sibling is an empty subtree: the tree would have collapsed this level")]
    NotCollapsed,
    /// The leaf is of another kind than the subject.
    #[error("the leaf holds another kind of record than the subject names")]
    KindMismatch,
    /// The checkpoint was signed by a key that is not the log key of the header's ledger.
    #[error("the checkpoint's key is named {key_name:?}, the header's ledger requires {expected:?}")]
    KeyName {
        /// Name of the key that signed.
        key_name: String,
        /// Name that follows from the header.
        expected: String,
    },
    /// The checkpoint is one of another vault than the header.
    #[error("the checkpoint's origin is {origin:?}, the header's vault requires {expected:?}")]
    Origin {
        /// Origin in the checkpoint.
        origin: String,
        /// Origin that follows from the header.
        expected: String,
    },
    /// The document is not JSON of the expected shape.
    #[error("the document is not a strongroom.proof.v1 document: {reason}")]
    Json {
        /// What the parser said.
        reason: String,
    },
    /// The document states another format.
    #[error("the document states the format {given:?}, only \"strongroom.proof.v1\" is known")]
    Format {
        /// The format it states.
        given: String,
    },
    /// A hash or a byte string is not in its canonical text form.
    #[error("{field} is not canonical {encoding}")]
    Encoding {
        /// The field.
        field: &'static str,
        /// `base64` or the form of hexadecimal that is required.
        encoding: &'static str,
    },
    /// The document says the same as its canonical form in other bytes.
    #[error("the document is not in canonical form: first difference at byte {offset}")]
    NotCanonical {
        /// Offset of the first byte that differs.
        offset: usize,
    },
    /// The header's state root covers no lists.
    #[error(
        "the header has version {given}: its state root covers no lists. Write once to the vault, then ask again"
    )]
    ListsNotCovered {
        /// Version of the header.
        given: u16,
    },
    /// A page of a list does not show exactly what it should.
    #[error("page {page} of the list is refused: {fault}")]
    ListPage {
        /// Which page, from 0.
        page: usize,
        /// Why.
        fault: ListFault,
    },
    /// The pages do not add up to the whole list.
    #[error("the list is not complete: {fault}")]
    ListIncomplete {
        /// What is missing or too much.
        fault: ListFault,
    },
}

/// What is wrong with a page of a list, or with all of them together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListFault {
    /// Its bytes are no tree of nodes.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A subtree inside the range is withheld.
    #[error("a subtree that reaches into the page's range shows its hash only")]
    Withheld,
    /// A subtree outside the range is shown: the page has another form than the canonical one.
    #[error("a subtree outside the page's range is shown")]
    NotPruned,
    /// A subtree that a collapsed tree does not have.
    #[error("a subtree of at most one member is not collapsed")]
    NotCollapsed,
    /// Nodes below the last bit of a key.
    #[error("the nodes go deeper than a key has bits")]
    TooDeep,
    /// A member stands where its key does not lead.
    #[error("a member stands in a place that is not its own")]
    Misplaced,
    /// A relation or subject is empty, too long, or has a zero character.
    #[error("a member has no well-formed {what}")]
    Malformed {
        /// `relation` or `subject`.
        what: &'static str,
    },
    /// The nodes have another root than the list's leaf says.
    #[error("its nodes lead to another root than the list's leaf says: something was changed")]
    RootMismatch {
        /// Root in the leaf.
        expected: Hash,
        /// Root that the nodes lead to.
        computed: Hash,
    },
    /// The page ends before it begins, or after the end of what was asked.
    #[error("its last key does not follow the page before, or lies outside of what was asked")]
    Range,
    /// The page ends neither with its last member nor with the range, or is empty behind others.
    #[error(
        "it ends neither with its last member nor with what was asked, or has no members although it is not the first"
    )]
    End,
    /// The pages end before the range does.
    #[error("the pages end before the last key of what was asked")]
    Unfinished,
    /// Pages of a resource without relationships.
    #[error("there are pages although the resource has no relationships")]
    PagesOfNothing,
    /// The members are not as many as the leaf counts.
    #[error("the leaf counts {counted} relationships of the resource, the pages show {shown}")]
    Count {
        /// Count in the leaf.
        counted: u64,
        /// Members in the pages.
        shown: u64,
    },
}

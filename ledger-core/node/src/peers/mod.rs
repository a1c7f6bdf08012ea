//! What a node says to its peers: who it is, one request, one answer.
//!
//! The bytes of a request and of its answer are this crate's own, versioned and documented in
//! `docs/formats.md`; a [`PeerTransport`] carries them without looking, and proves who sent them.

mod body;
mod forming_messages;
mod identity;
mod transport;

pub use body::{PEER_MESSAGES_VERSION, decode_body, encode_body};
pub use forming_messages::{
    JoinAnswer, JoinRequest, KnownAsker, LedgerKey, MemberStanding, NodeInfo, NodeInfoRequest, PromiseAnswer,
    PromiseRefusal, PromiseRequest, SettleAnswer, SettleRequest, Settlement, Standing,
};
pub use identity::{
    ClusterId, IdentityError, Incarnation, MEMBER_TEXT_BYTES_MAX, MemberRecord, NodeName, PeerIdentity,
};
pub use transport::{
    PEER_BODY_BYTES_MAX, PeerError, PeerFuture, PeerHandler, PeerMethod, PeerRefusal, PeerRequest,
    PeerTransport,
};

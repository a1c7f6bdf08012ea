//! What a node says to its peers: who it is, one request, one answer.
//!
//! The bytes of a request and of its answer are this crate's own, versioned and documented in
//! `docs/formats.md`; a [`PeerTransport`] carries them without looking, and proves who sent them.

mod calls;
mod forming_messages;
mod identity;
pub(crate) mod messages;
mod transport;

pub(crate) use calls::PeerCalls;

pub use forming_messages::{
    KnownAsker, LedgerKey, MemberStanding, NodeInfo, NodeInfoRequest, PromiseAnswer, PromiseRefusal,
    PromiseRequest, SettleAnswer, SettleRequest, Settlement, Standing,
};
pub use identity::{
    ClusterId, IdentityError, Incarnation, MEMBER_TEXT_BYTES_MAX, MemberRecord, NodeName, PeerIdentity,
};
pub use transport::{
    PEER_BODY_BYTES_MAX, PeerError, PeerFuture, PeerHandler, PeerMethod, PeerRefusal, PeerRequest,
    PeerTransport,
};

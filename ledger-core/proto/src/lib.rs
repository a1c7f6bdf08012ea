//! The `strongroom.ledger.v1` protocol: definitions and generated code.
//!
//! Field comments in `proto/strongroom/ledger/v1/ledger.proto` state units and limits. The generated
//! code has no validation: the server checks every field, the client trusts none.

/// Version 1 of the ledger's API.
pub mod v1 {
    #![expect(
        missing_docs,
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated from the commented .proto file"
    )]
    tonic::include_proto!("strongroom.ledger.v1");
}

/// How the nodes of a cluster speak to each other: `proto/strongroom/peer/v1/peer.proto`.
pub mod peer {
    /// Version 1 of what peers say.
    pub mod v1 {
        #![expect(
            clippy::all,
            clippy::pedantic,
            clippy::allow_attributes,
            clippy::allow_attributes_without_reason,
            reason = "generated from the commented .proto file"
        )]
        tonic::include_proto!("strongroom.peer.v1");
    }
}

/// The encoded descriptor set, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ledger_descriptor.bin"));

/// Domain of `google.rpc.ErrorInfo` in every error of this API.
pub const ERROR_DOMAIN: &str = "strongroom.ledger";

/// Header of answers of a node that does not lead: `TERM NODE_ID URL`, decimal numbers and the client URL of the
/// node that leads. Absent when the answering node leads, or knows no leader, or not where it is reached.
pub const LEADER_HEADER: &str = "strongroom-leader";

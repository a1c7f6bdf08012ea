//! A proposal as it travels through the engine: encoded once, decoded at most once.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ledger_core::codec::{self, CodecError};
use ledger_core::command::{Command, Proposal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes of the log and what they mean. The leader encodes what it proposes and applies the original;
/// whoever reads the log decodes it.
#[derive(Clone)]
pub(crate) struct ProposalData {
    encoded: Bytes,
    decoded: Arc<Proposal>,
}

impl ProposalData {
    pub fn encode(proposal: Proposal) -> Result<Self, CodecError> {
        Ok(Self { encoded: codec::encode_proposal(&proposal)?, decoded: Arc::new(proposal) })
    }

    pub fn decode(encoded: Bytes) -> Result<Self, CodecError> {
        let decoded = Arc::new(codec::decode_proposal(&encoded)?);
        Ok(Self { encoded, decoded })
    }

    /// Bytes of a size, which do not decode.
    #[cfg(test)]
    pub fn pad_for_test(&mut self, bytes: usize) {
        self.encoded = Bytes::from(vec![0; bytes]);
    }

    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    pub fn proposal(&self) -> &Proposal {
        &self.decoded
    }
}

/// Two proposals are one when their bytes are.
impl PartialEq for ProposalData {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

/// Values belong to clients: only the kind and the size are shown.
impl fmt::Display for ProposalData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.decoded.command {
            Command::Initialise { .. } => "initialise",
            Command::CreateNamespace { .. } => "create namespace",
            Command::DeleteNamespace { .. } => "delete namespace",
            Command::CreateVault { .. } => "create vault",
            Command::DeleteVault { .. } => "delete vault",
            Command::Write { .. } => "write",
            Command::RaiseHeaderVersion { .. } => "raise header version",
            Command::CreateVaultRetaining { .. } => "create vault retaining",
            Command::SetRetention { .. } => "set retention",
            Command::Compact => "compact",
            Command::NameCluster { .. } => "name cluster",
            Command::PutToken { .. } => "put token",
            Command::RevokeToken { .. } => "revoke token",
            Command::FirstTokens { .. } => "first tokens",
        };
        write!(f, "{kind}, {} bytes", self.encoded.len())
    }
}

impl fmt::Debug for ProposalData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The engine asks for `serde`; the encoding is the log's own.
impl Serialize for ProposalData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ProposalData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::decode(Bytes::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

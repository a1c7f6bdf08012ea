//! Calls to peers in the name of this node and its cluster.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::identity::{ClusterId, MemberRecord, PeerIdentity};
use super::transport::{PeerError, PeerMethod, PeerRequest, PeerTransport};

/// The transport with who calls. Clones share it.
#[derive(Clone)]
pub(crate) struct PeerCalls(Arc<Inner>);

struct Inner {
    transport: Arc<dyn PeerTransport>,
    cluster: ClusterId,
    this: PeerIdentity,
}

impl fmt::Debug for PeerCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCalls")
            .field("cluster", &self.0.cluster)
            .field("this", &self.0.this)
            .finish_non_exhaustive()
    }
}

impl PeerCalls {
    pub fn new(transport: Arc<dyn PeerTransport>, cluster: ClusterId, this: PeerIdentity) -> Self {
        Self(Arc::new(Inner { transport, cluster, this }))
    }

    /// Sends a request to whoever answers at an address, which must prove some name, and waits at most `timeout`.
    pub async fn call_address(
        &self,
        peer_address: &str,
        method: PeerMethod,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let cluster = Some(self.0.cluster);
        let request = PeerRequest { cluster, from: self.0.this.clone(), to: None, method, body };
        self.0.transport.call(peer_address, None, request, timeout).await
    }

    /// Sends a request to a member and waits for its answer, at most `timeout`.
    pub async fn call(
        &self,
        to: &MemberRecord,
        method: PeerMethod,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let request = PeerRequest {
            cluster: Some(self.0.cluster),
            from: self.0.this.clone(),
            to: Some(to.identity.node_id),
            method,
            body,
        };
        self.0.transport.call(&to.peer_address, Some(&to.identity.name), request, timeout).await
    }
}

//! Who answers peers, exchangeable while the server runs.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use ledger_node::peers::{PeerFuture, PeerHandler, PeerRefusal, PeerRequest};

/// The place of the handler. Clones share it. Until somebody is put there, every request is refused as not ready.
#[derive(Debug, Clone)]
pub struct HandlerSlot {
    handler: Arc<RwLock<Arc<dyn PeerHandler>>>,
}

impl HandlerSlot {
    /// A place where nobody is yet.
    pub fn new() -> Self {
        Self { handler: Arc::new(RwLock::new(Arc::new(Starting))) }
    }

    /// Lets `handler` answer from now on. Requests under way stay with the one before.
    pub fn set(&self, handler: Arc<dyn PeerHandler>) {
        *self.handler.write().unwrap_or_else(PoisonError::into_inner) = handler;
    }

    /// Who answers now.
    pub fn get(&self) -> Arc<dyn PeerHandler> {
        Arc::clone(&self.handler.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for HandlerSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// Answers before anybody else does.
#[derive(Debug)]
struct Starting;

impl PeerHandler for Starting {
    fn handle(&self, _request: PeerRequest) -> PeerFuture<'_, Result<Bytes, PeerRefusal>> {
        Box::pin(async { Err(PeerRefusal::NotReady { reason: "it is starting".to_owned() }) })
    }
}

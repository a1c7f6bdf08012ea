//! `WriteService`: transactions on one vault.

use ledger_node::Ledger;
use ledger_proto::v1;
use ledger_proto::v1::write_service_server::WriteService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::errors;
use crate::wire::transaction;

/// Writes to a ledger in the name of the authenticated caller.
#[derive(Debug, Clone)]
pub struct LedgerWriteService {
    ledger: Ledger,
}

impl LedgerWriteService {
    /// A service over an open ledger.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl WriteService for LedgerWriteService {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let transaction = transaction::transaction(&request.idempotency_key, request.operations)?;
        let receipt =
            self.ledger.write(&vault, &caller.actor, transaction).await.map_err(errors::write_failed)?;
        Ok(Response::new(transaction::write_answer(&receipt)))
    }
}

//! `WriteService`: transactions on one vault.

use ledger_node::Ledger;
use ledger_proto::v1;
use ledger_proto::v1::write_service_server::WriteService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::errors;
use crate::wire::transaction;
use crate::write_gate::WriteGate;

/// Writes to a ledger in the name of the authenticated caller.
#[derive(Debug, Clone)]
pub struct LedgerWriteService {
    ledger: Ledger,
    gate: WriteGate,
}

impl LedgerWriteService {
    /// A service over an open ledger that writes while the gate is open.
    pub fn new(ledger: Ledger, gate: WriteGate) -> Self {
        Self { ledger, gate }
    }
}

#[tonic::async_trait]
impl WriteService for LedgerWriteService {
    async fn write(&self, request: Request<v1::WriteRequest>) -> Result<Response<v1::WriteResponse>, Status> {
        let caller = Caller::of(&request)?;
        self.write_as(&caller, request.into_inner()).await.map(Response::new)
    }
}

impl LedgerWriteService {
    /// Writes in the name of a caller that has the role for it.
    pub(crate) async fn write_as(
        &self,
        caller: &Caller,
        request: v1::WriteRequest,
    ) -> Result<v1::WriteResponse, Status> {
        let vault = caller.vault(request.vault)?;
        let transaction = transaction::transaction(&request.idempotency_key, request.operations)?;
        self.gate.admit()?;
        let receipt =
            self.ledger.write(&vault, &caller.actor, transaction).await.map_err(errors::write_failed)?;
        Ok(transaction::write_answer(&receipt))
    }
}

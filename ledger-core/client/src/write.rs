//! Writes: exactly once, however often they are sent.

use ledger_core::command::Receipt;
use ledger_core::names::VaultRef;
use ledger_core::transaction::{IdempotencyKey, Operation, Transaction};
use ledger_proto::v1;

use crate::client::LedgerClient;
use crate::error::{ClientError, Refusal};
use crate::idempotency::{mint, wall_clock_ms};
use crate::nodes::Destination;
use crate::wire;

/// How far beyond the ledger's floor a corrected key is stamped at least: well inside of its 24 hours.
const FLOOR_MARGIN_MS: u64 = 3_600_000;

impl LedgerClient {
    /// Writes one transaction under a new idempotency key: all operations or none.
    ///
    /// A failed condition is [`ErrorCode::ConditionFailed`](crate::ErrorCode::ConditionFailed) with `op_index`
    /// and `current_version`. After `Unavailable` or `DeadlineExceeded` the write may have happened: use
    /// [`LedgerClient::new_key`] and [`LedgerClient::write_transaction`] where a program repeats it later.
    pub async fn write(&self, vault: &VaultRef, operations: Vec<Operation>) -> Result<Receipt, ClientError> {
        let transaction = Transaction::new(self.new_key().await?, operations)?;
        let refusal = match self.write_transaction(vault, &transaction).await {
            Err(ClientError::Refused(refusal)) => refusal,
            answer => return answer,
        };
        match self.corrected_time(&refusal) {
            None => Err(ClientError::Refused(refusal)),
            Some(time_ms) => {
                self.inner.clock.correct(time_ms);
                let transaction = Transaction::new(mint(time_ms)?, transaction.operations().to_vec())?;
                self.write_transaction(vault, &transaction).await
            }
        }
    }

    /// Writes one transaction whose expiries count from the time of its own key: the same key then always stands
    /// for the same transaction, so that a write with unknown outcome can be repeated under it.
    ///
    /// `operations` makes the operations for that time (unix milliseconds). It is called once, and once more when
    /// the ledger refuses the time and nothing can have happened.
    pub async fn write_expiring<E: From<ClientError>>(
        &self,
        vault: &VaultRef,
        operations: impl Fn(u64) -> Result<Vec<Operation>, E>,
    ) -> Result<Receipt, E> {
        let mut time_ms = self.expiry_base_ms().await?;
        let mut corrected = false;
        loop {
            let key = mint(time_ms)?;
            let transaction = Transaction::new(key, operations(key.unix_ms())?).map_err(ClientError::from)?;
            let refusal = match self.write_transaction(vault, &transaction).await {
                Err(ClientError::Refused(refusal)) => refusal,
                answer => return Ok(answer?),
            };
            match self.corrected_time(&refusal) {
                Some(better_ms) if !corrected => {
                    self.inner.clock.correct(better_ms);
                    (time_ms, corrected) = (better_ms, true);
                }
                _ => return Err(ClientError::Refused(refusal).into()),
            }
        }
    }

    /// A new idempotency key, stamped with the ledger's time. The first one asks the ledger for it.
    pub async fn new_key(&self) -> Result<IdempotencyKey, ClientError> {
        self.know_the_time().await?;
        mint(self.inner.clock.now_ms().unwrap_or_else(wall_clock_ms))
    }

    /// The time by which expiries count from now: the ledger's or this machine's, whichever is later (an idle
    /// ledger's own time stands still). Unix milliseconds.
    pub async fn expiry_base_ms(&self) -> Result<u64, ClientError> {
        self.know_the_time().await?;
        Ok(self.inner.clock.now_ms().unwrap_or_default().max(wall_clock_ms()))
    }

    async fn know_the_time(&self) -> Result<(), ClientError> {
        if self.inner.clock.now_ms().is_none() {
            // A token may be too weak to ask; then this machine's clock has to do.
            if let Err(error) = self.node_info().await
                && error.code() != crate::ErrorCode::Unauthorized
            {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a transaction under its own key. Sending it twice, by this call or by the caller, does it once:
    /// the second answer is the first receipt with `replayed` set.
    pub async fn write_transaction(
        &self,
        vault: &VaultRef,
        transaction: &Transaction,
    ) -> Result<Receipt, ClientError> {
        let request = v1::WriteRequest {
            vault: wire::vault_ref(vault),
            idempotency_key: transaction.idempotency_key().as_bytes().to_vec().into(),
            operations: transaction.operations().iter().map(wire::operation).collect::<Result<_, _>>()?,
        };
        let operation_count = request.operations.len();
        let answer = self
            .streamed_call(Destination::Leader, request)
            .await
            .map_err(|error| with_key(error, transaction.idempotency_key()))?;
        if answer.results.len() != operation_count {
            return Err(ClientError::Answer {
                what: "it has another number of results than operations were sent",
            });
        }
        let receipt = wire::receipt_from(answer.receipt, &answer.results, answer.replayed)?;
        if !receipt.replayed {
            self.inner.clock.learn(receipt.time_ms);
        }
        Ok(receipt)
    }

    /// A better stamp, when the ledger refused the key for its time and no try before can have happened: then a new
    /// key is safe. An idle ledger's time stands still, and this machine's clock may lie.
    fn corrected_time(&self, refusal: &Refusal) -> Option<u64> {
        if refusal.unknown_outcomes > 0 {
            return None;
        }
        match refusal.reason.as_str() {
            "IDEMPOTENCY_KEY_EXPIRED" => {
                let after_floor_ms = refusal.floor_ms.unwrap_or_default().saturating_add(FLOOR_MARGIN_MS);
                Some(wall_clock_ms().max(after_floor_ms))
            }
            "IDEMPOTENCY_KEY_IN_FUTURE" => refusal.log_time_ms,
            _ => None,
        }
    }
}

fn with_key(error: ClientError, key: IdempotencyKey) -> ClientError {
    match error {
        ClientError::Refused(mut refusal) => {
            refusal.idempotency_key = Some(key);
            ClientError::Refused(refusal)
        }
        other => other,
    }
}

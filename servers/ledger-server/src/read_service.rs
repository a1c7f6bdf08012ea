//! `ReadService`: reads of one vault.

use ledger_node::{Ledger, Listing};
use ledger_proto::v1;
use ledger_proto::v1::read_service_server::ReadService;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::errors;
use crate::watch_stream::{BlockStream, Closing};
use crate::wire::read::position;
use crate::wire::{address, list, read, transaction};

/// Serves reads from a ledger.
#[derive(Debug, Clone)]
pub struct LedgerReadService {
    pub(crate) ledger: Ledger,
    pub(crate) closing: Closing,
}

impl LedgerReadService {
    /// A service over an open ledger. Its streams end when the ledger stops.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, closing: Closing::default() }
    }

    /// The same with streams that end earlier, when the server drains.
    pub(crate) fn closing_with(self, closing: Closing) -> Self {
        Self { closing, ..self }
    }
}

#[tonic::async_trait]
impl ReadService for LedgerReadService {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let key = address::entity_key(request.key, "key")?;
        let consistency = read::consistency(request.consistency)?;
        let found = self.ledger.get(&vault, &key, consistency).await.map_err(errors::read_failed)?;
        let position = Some(position(&found));
        let entity = found.value.map(|entity| read::entity_answer(key, entity));
        Ok(Response::new(v1::GetResponse { entity, position }))
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let keys = read::keys(request.keys)?;
        let consistency = read::consistency(request.consistency)?;
        let found = self.ledger.batch_get(&vault, &keys, consistency).await.map_err(errors::read_failed)?;
        let position = position(&found);
        Ok(Response::new(read::batch_answer(found.value, position)))
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let tuple = read::relationship(request.relationship)?;
        let consistency = read::consistency(request.consistency)?;
        let found = self.ledger.check(&vault, &tuple, consistency).await.map_err(errors::read_failed)?;
        Ok(Response::new(read::check_answer(&found)))
    }

    async fn list_entities(
        &self,
        request: Request<v1::ListEntitiesRequest>,
    ) -> Result<Response<v1::ListEntitiesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let prefix = address::key_prefix(request.prefix, "prefix")?;
        let mut page = read::list_request(request.page_size, request.page_token)?;
        let consistency = read::consistency(request.consistency)?;
        let found = loop {
            let found = self.ledger.list_entities(&vault, &prefix, page.clone(), consistency).await;
            let found = found.map_err(errors::read_failed)?;
            let fitting = read::rows_that_fit(&found.value.items);
            if fitting >= found.value.items.len() {
                break found;
            }
            // Fewer rows each time, and one always fits.
            page.page_size = u32::try_from(fitting).unwrap_or(1);
        };
        let position = Some(position(&found));
        let Listing { items, next_page_token } = found.value;
        let entities = read::entities_answer(items);
        Ok(Response::new(v1::ListEntitiesResponse { entities, next_page_token, position }))
    }

    async fn list_relationships(
        &self,
        request: Request<v1::ListRelationshipsRequest>,
    ) -> Result<Response<v1::ListRelationshipsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let filter = read::relationship_filter(request.by, &request.relation)?;
        let page = read::list_request(request.page_size, request.page_token)?;
        let consistency = read::consistency(request.consistency)?;
        let found = self
            .ledger
            .list_relationships(&vault, filter, page, consistency)
            .await
            .map_err(errors::read_failed)?;
        let position = Some(position(&found));
        let Listing { items, next_page_token } = found.value;
        let relationships = items.into_iter().map(address::relationship_answer).collect();
        Ok(Response::new(v1::ListRelationshipsResponse { relationships, next_page_token, position }))
    }

    async fn get_tip(
        &self,
        request: Request<v1::GetTipRequest>,
    ) -> Result<Response<v1::GetTipResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let consistency = read::consistency(request.consistency)?;
        let found = self.ledger.tip(&vault, consistency).await.map_err(errors::read_failed)?;
        let position = position(&found);
        Ok(Response::new(read::tip_answer(&found.value, position)))
    }

    async fn get_block(
        &self,
        request: Request<v1::GetBlockRequest>,
    ) -> Result<Response<v1::GetBlockResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let block = self.ledger.block(&vault, request.height).map_err(errors::read_failed)?;
        let Some(block) = block else {
            let tip = self.ledger.vault(&vault).map_or(0, |vault| vault.height);
            return Err(errors::height_unavailable(request.height, tip));
        };
        Ok(Response::new(read::block_answer(&block, request.first_transaction)?))
    }

    async fn verified_read(
        &self,
        request: Request<v1::VerifiedReadRequest>,
    ) -> Result<Response<v1::VerifiedReadResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let subject = read::verified_subject(request.subject)?;
        let proved = self
            .ledger
            .verified_read(&vault, subject, request.trusted_size)
            .await
            .map_err(errors::read_failed)?;
        Ok(Response::new(read::verified_answer(proved.evidence, &proved.consistency, proved.log_time_ms)))
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let signed =
            self.ledger.checkpoint(&vault, request.trusted_size).await.map_err(errors::read_failed)?;
        Ok(Response::new(v1::GetCheckpointResponse {
            checkpoint: signed.note,
            consistency: read::hashes_answer(&signed.consistency),
        }))
    }

    type WatchBlocksStream = BlockStream;

    async fn watch_blocks(
        &self,
        request: Request<v1::WatchBlocksRequest>,
    ) -> Result<Response<BlockStream>, Status> {
        self.begin_watch(request)
    }

    async fn get_block_range(
        &self,
        request: Request<v1::GetBlockRangeRequest>,
    ) -> Result<Response<v1::GetBlockRangeResponse>, Status> {
        self.block_range(request).await
    }

    async fn historical_read(
        &self,
        request: Request<v1::HistoricalReadRequest>,
    ) -> Result<Response<v1::HistoricalReadResponse>, Status> {
        self.read_at_height(request).await
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        self.versions(request).await
    }

    async fn get_client_state(
        &self,
        request: Request<v1::GetClientStateRequest>,
    ) -> Result<Response<v1::GetClientStateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let vault = caller.vault(request.into_inner().vault)?;
        let last = self.ledger.client_state(&vault, &caller.actor).map_err(errors::read_failed)?;
        Ok(Response::new(transaction::client_state_answer(last, self.ledger.log_time_ms())))
    }

    async fn verified_list(
        &self,
        request: Request<v1::VerifiedListRequest>,
    ) -> Result<Response<v1::VerifiedListResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let query = list::query(&request.resource, &request.relation)?;
        let page = list::request(request.page_size, request.page_token)?;
        let shown = self
            .ledger
            .verified_list(&vault, &query, &page, request.trusted_size)
            .await
            .map_err(errors::read_failed)?;
        Ok(Response::new(list::answer(shown)))
    }
}

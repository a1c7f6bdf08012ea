//! The calls of `ReadService` about the past.

use bytes::Bytes;
use ledger_core::ledger_state::Block;
use ledger_core::names::VaultRef;
use ledger_node::{Consistency, ReadFailure, VerifiedSubject, WatchContent};
use ledger_proto::v1;
use ledger_verify::header::BlockHeader;
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::errors;
use crate::read_service::LedgerReadService;
use crate::wire::paging::page_size;
use crate::wire::read::position;
use crate::wire::{ANSWER_CONTENT_BYTES_MAX, BadField, address, history, read};

impl LedgerReadService {
    pub(crate) async fn block_range(
        &self,
        request: Request<v1::GetBlockRangeRequest>,
    ) -> Result<Response<v1::GetBlockRangeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let limit = page_size(request.limit).map_err(|bad| BadField { field: "limit".to_owned(), ..bad })?;
        let limit = u64::from(limit);
        let content = history::content(request.content)?;
        let tip = self.ledger.tip(&vault, Consistency::Linearizable).await.map_err(errors::read_failed)?;
        if request.start_height > tip.height {
            return Err(errors::height_unavailable(request.start_height, tip.height));
        }
        let mut answer = v1::GetBlockRangeResponse { position: Some(position(&tip)), ..Default::default() };
        let mut room = ANSWER_CONTENT_BYTES_MAX;
        let end = request.start_height.saturating_add(limit - 1).min(tip.height);
        for height in request.start_height..=end {
            let (header, transactions) = self.part_of_block(&vault, height, content)?;
            let mut block = history::range_block(&header, transactions);
            if history::range_block_bytes(&block) > room {
                if !answer.blocks.is_empty() {
                    answer.next_height = height;
                    return Ok(Response::new(answer));
                }
                block.transactions = Vec::new();
                block.transactions_left_out = true;
            }
            room = room.saturating_sub(history::range_block_bytes(&block));
            answer.blocks.push(block);
            if height % BLOCKS_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        answer.next_height = if end < tip.height { end + 1 } else { 0 };
        Ok(Response::new(answer))
    }

    pub(crate) async fn read_at_height(
        &self,
        request: Request<v1::HistoricalReadRequest>,
    ) -> Result<Response<v1::HistoricalReadResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let subject = read::verified_subject(request.subject.map(|subject| match subject {
            v1::historical_read_request::Subject::Key(key) => v1::verified_read_request::Subject::Key(key),
            v1::historical_read_request::Subject::Relationship(tuple) => {
                v1::verified_read_request::Subject::Relationship(tuple)
            }
        }))?;
        let height = request.at_height;
        if request.include_proof {
            let proved = self.ledger.verified_read_at(&vault, &subject, height, request.trusted_size).await;
            let proved = proved.map_err(errors::read_failed)?;
            let header = Bytes::copy_from_slice(&proved.evidence.header);
            let log_time_ms = proved.log_time_ms;
            let proof = Some(read::verified_answer(proved.evidence, &proved.consistency, log_time_ms));
            return Ok(Response::new(v1::HistoricalReadResponse {
                record: None,
                header,
                proof,
                log_time_ms,
            }));
        }
        let found = self.ledger.get_at(&vault, &subject, height).await.map_err(errors::read_failed)?;
        let key = match &subject {
            VerifiedSubject::Entity(key) => key.as_str(),
            VerifiedSubject::Relationship(_) => "",
        };
        Ok(Response::new(v1::HistoricalReadResponse {
            record: found.record.map(|record| history::record_answer(key, record)),
            header: Bytes::copy_from_slice(&found.header.encode()),
            proof: None,
            log_time_ms: found.log_time_ms,
        }))
    }

    pub(crate) async fn versions(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let vault = caller.vault(request.vault)?;
        let subject = match request.subject {
            Some(v1::history_request::Subject::Key(key)) => {
                VerifiedSubject::Entity(address::entity_key(key, "key")?)
            }
            Some(v1::history_request::Subject::Relationship(tuple)) => {
                VerifiedSubject::Relationship(address::relationship(&tuple, "relationship")?)
            }
            None => read::verified_subject(None)?,
        };
        let mut page = read::list_request(request.page_size, request.page_token)?;
        let consistency = read::consistency(request.consistency)?;
        let found = loop {
            let found = self.ledger.history(&vault, &subject, page.clone(), consistency).await;
            let found = found.map_err(errors::read_failed)?;
            let fitting = history::versions_that_fit(&found.value.versions);
            if fitting >= found.value.versions.len() {
                break found;
            }
            // Fewer versions each time, and one always fits.
            page.page_size = u32::try_from(fitting).unwrap_or(1);
        };
        let position = Some(position(&found));
        let found = found.value;
        Ok(Response::new(v1::HistoryResponse {
            versions: found.versions.into_iter().map(history::version_answer).collect(),
            next_page_token: found.next_page_token,
            cut_at: found.cut_at,
            position,
        }))
    }

    fn part_of_block(
        &self,
        vault: &VaultRef,
        height: u64,
        content: WatchContent,
    ) -> Result<(BlockHeader, Vec<Bytes>), Status> {
        let found: Result<Option<(BlockHeader, Vec<Bytes>)>, ReadFailure> = match content {
            WatchContent::Header => {
                self.ledger.header(vault, height).map(|header| header.map(|header| (header, Vec::new())))
            }
            WatchContent::Transactions => self
                .ledger
                .block(vault, height)
                .map(|block| block.map(|Block { header, transactions }| (header, transactions))),
        };
        // A vault with this name may be another, lower one by now.
        found.map_err(errors::read_failed)?.ok_or_else(|| errors::height_unavailable(height, height))
    }
}

/// Blocks of a range after which other tasks get a turn.
const BLOCKS_PER_TURN: u64 = 32;

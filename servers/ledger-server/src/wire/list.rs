//! Lists that prove themselves.

use bytes::Bytes;
use ledger_core::relationship::{Relation, Resource};
use ledger_node::{ListRequest, VerifiedListPage, VerifiedListQuery};
use ledger_proto::v1;

use super::field::{AtField, BadField};
use super::paging::{page_size, page_token};
use super::read::{hash_answer, verified_answer};

/// Which list to prove.
pub(crate) fn query(resource: &str, relation: &str) -> Result<VerifiedListQuery, BadField> {
    let relation = match relation {
        "" => None,
        relation => Some(Relation::new(relation).at("relation")?),
    };
    Ok(VerifiedListQuery { resource: Resource::new(resource).at("resource")?, relation })
}

/// A page of it. Unlike elsewhere no page size means as much as fits.
pub(crate) fn request(size: u32, token: String) -> Result<ListRequest, BadField> {
    let page_size = if size == 0 { 0 } else { page_size(size)? };
    Ok(ListRequest { page_size, page_token: page_token(token)? })
}

pub(crate) fn answer(shown: VerifiedListPage) -> v1::VerifiedListResponse {
    let VerifiedListPage { height, head, page, next_page_token, log_time_ms, .. } = shown;
    v1::VerifiedListResponse {
        head: head.map(|head| verified_answer(head.evidence, &head.consistency, log_time_ms)),
        page: page.map(|page| v1::ListPage {
            last_key: hash_answer(&page.last_key),
            nodes: Bytes::from(page.nodes),
        }),
        next_page_token,
        height,
        log_time_ms,
    }
}

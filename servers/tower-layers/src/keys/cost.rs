//! How much a request costs.

use std::sync::Arc;

use super::extractor::{RequestHead, ResponseHead};

/// What a request costs unless something else is said.
pub const REQUEST_COST: u64 = 1;

/// What a request costs, known before it is served. 0 only looks at the limit.
pub type RequestCost = Arc<dyn Fn(RequestHead<'_>) -> u64 + Send + Sync>;

/// What a request has cost, known from its response; `None` leaves it at what was charged before. Less than that is given back,
/// more is charged on top as far as the limit allows debt.
pub type ResponseCost = Arc<dyn Fn(ResponseHead<'_>) -> Option<u64> + Send + Sync>;

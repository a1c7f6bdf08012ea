//! HTTP: questions as JSON or as a query, and what operators do.
//!
//! A denial is 429 with a problem document that has the members of the answer, `Retry-After` when waiting helps, and the
//! limits in headers. Proxies that ask before they forward use `GET /v1/check`.

mod bodies;
mod handlers;
mod openapi;
mod problem;
mod query;
mod server;

pub use bodies::{
    AnswerBody, CheckBody, DescriptorBody, EntryBody, RefundBody, RefundedBody, ResetBody, ResetDoneBody,
    RuleBody, StatusBody, TopBody,
};
pub use openapi::document as openapi_document;
pub use problem::ProblemBody;
pub use server::{BODY_BYTES_MAX, HttpServer};

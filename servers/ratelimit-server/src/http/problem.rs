//! Refusals as problem documents (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use ratelimit_rules::{Answer, RequestError, StoreCallError};
use serde::Serialize;
use tower_layers::headers::{Problem, ProblemKind};
use utoipa::ToSchema;

use super::bodies::AnswerBody;
use crate::limit_service::violated;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProblemBody {
    /// `about:blank`: the status says it.
    #[serde(rename = "type")]
    pub type_uri: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The status.
    pub status: u16,
    /// What to do.
    pub detail: String,
}

/// A request that is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    detail: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Why, for the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "token",
            StatusCode::SERVICE_UNAVAILABLE => "store",
            _ => "request",
        }
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<StoreCallError> for Refusal {
    fn from(error: StoreCallError) -> Self {
        match error {
            StoreCallError::Request(error) => error.into(),
            error => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            type_uri: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The document of a denial: the registered problem, and the members of the answer.
pub(super) fn denied(status: StatusCode, answer: &Answer, mut headers: HeaderMap) -> Response {
    let problem = Problem::new(ProblemKind::QuotaExceeded, violated(answer)).body(&mut headers);
    headers.remove(http::header::CONTENT_LENGTH);
    // Both are objects that we made: they have this form.
    let mut document: serde_json::Map<_, _> = serde_json::from_slice(&problem).unwrap_or_default();
    document.insert("status".to_owned(), status.as_u16().into());
    if let Ok(serde_json::Value::Object(members)) = serde_json::to_value(AnswerBody::of(answer, None)) {
        document.extend(members);
    }
    (status, headers, serde_json::Value::Object(document).to_string()).into_response()
}

//! What a client gets instead of an answer.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use super::admission::{Denial, Shared, Stop};
use crate::headers::{Problem, ProblemKind, retry_after_seconds};
use crate::keys::KeyError;

/// In what form a client understands a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A status and a problem document.
    Problem,
    /// A response that is nothing but trailers, with a gRPC status.
    Grpc,
}

/// `RESOURCE_EXHAUSTED`, `INVALID_ARGUMENT`, `INTERNAL` of gRPC.
const GRPC_RESOURCE_EXHAUSTED: u16 = 8;
const GRPC_INVALID_ARGUMENT: u16 = 3;
const GRPC_INTERNAL: u16 = 13;

impl Form {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let content = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        if content.is_some_and(|content| content.starts_with(b"application/grpc")) {
            Self::Grpc
        } else {
            Self::Problem
        }
    }
}

impl Shared {
    pub(super) fn refusal(&self, stop: &Stop, form: Form) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        let (problem, grpc_status) = match stop {
            Stop::Key(error) => (unkeyed(error), grpc_status_of(error)),
            Stop::Denied(denial) => (self.denied(denial, &mut headers), GRPC_RESOURCE_EXHAUSTED),
        };
        let (status, body) = match form {
            Form::Problem => (problem.status(), problem.body(&mut headers)),
            Form::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
                headers.insert("grpc-status", HeaderValue::from(grpc_status));
                headers.insert("grpc-message", HeaderValue::from_static("refused by a rate limit"));
                (StatusCode::OK, Bytes::new())
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn denied(&self, denial: &Denial, headers: &mut HeaderMap) -> Problem {
        self.write_headers(headers, &denial.decisions);
        let violates = |rule: usize| denial.violated.contains(&rule);
        let violated: Vec<_> = denial.decisions.iter().filter(|(rule, _)| violates(*rule)).copied().collect();
        if let Some(seconds) = retry_after_seconds(denial.retry_after, &self.quotas(&violated)) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        let name = |rule: &usize| self.rules.get(*rule).map(|(rule, _)| rule.name().clone());
        Problem::new(ProblemKind::QuotaExceeded, denial.violated.iter().filter_map(name))
    }
}

fn unkeyed(error: &KeyError) -> Problem {
    match error {
        KeyError::NotWired { .. } => {
            tracing::error!("a request cannot be counted: {error}");
            Problem::new(ProblemKind::Uncountable, [])
        }
        _ => Problem::new(ProblemKind::Unidentified, []).with_detail(error.to_string()),
    }
}

fn grpc_status_of(error: &KeyError) -> u16 {
    match error {
        KeyError::NotWired { .. } => GRPC_INTERNAL,
        _ => GRPC_INVALID_ARGUMENT,
    }
}

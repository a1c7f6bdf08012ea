//! Problem documents (RFC 9457) of refusals.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;

use super::policy::PolicyName;

/// Why a request is refused, as the draft registers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The client has used up a quota: 429.
    QuotaExceeded,
    /// The server has less to give than usual: 503.
    TemporaryReducedCapacity,
    /// The client's requests look like an accident or an attack: 429.
    AbnormalUsageDetected,
    /// The request lacks what it is counted by: 400. Of no registered type.
    Unidentified,
    /// The server cannot tell for whom to count the request: 500. Of no registered type.
    Uncountable,
}

impl ProblemKind {
    /// The status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Self::QuotaExceeded | Self::AbnormalUsageDetected => StatusCode::TOO_MANY_REQUESTS,
            Self::TemporaryReducedCapacity => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unidentified => StatusCode::BAD_REQUEST,
            Self::Uncountable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn type_uri(self) -> &'static str {
        match self {
            Self::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded",
            Self::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            Self::AbnormalUsageDetected => {
                "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
            }
            Self::Unidentified | Self::Uncountable => "about:blank",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::QuotaExceeded => "Request cannot be satisfied as assigned quota has been exceeded",
            Self::TemporaryReducedCapacity => {
                "Request cannot be satisfied due to temporary server capacity constraints"
            }
            Self::AbnormalUsageDetected => {
                "Request not satisfied due to detection of abnormal request pattern"
            }
            Self::Unidentified => "Bad Request",
            Self::Uncountable => "Internal Server Error",
        }
    }
}

/// A refusal as a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: ProblemKind,
    violated: Vec<PolicyName>,
    detail: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    type_uri: &'static str,
    title: &'static str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    violated: Vec<&'a str>,
}

impl Problem {
    /// The quotas of these policies are used up, or too small for the request.
    pub fn new(kind: ProblemKind, violated: impl IntoIterator<Item = PolicyName>) -> Self {
        Self { kind, violated: violated.into_iter().collect(), detail: None }
    }

    /// What this occurrence was about, for a person.
    #[must_use]
    pub fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// The status that goes with it.
    pub fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The document. Also says in `headers` what it is and how long.
    pub fn body(&self, headers: &mut HeaderMap) -> Bytes {
        let document = Document {
            type_uri: self.kind.type_uri(),
            title: self.kind.title(),
            status: self.status().as_u16(),
            detail: self.detail.as_deref(),
            violated: self.violated.iter().map(PolicyName::as_str).collect(),
        };
        // Strings and a number: they always have a JSON form.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        body.into()
    }
}

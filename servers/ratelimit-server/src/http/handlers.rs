//! The calls, each a question to the engine.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use ratelimit_rules::{Answer, TOP_MAX};
use serde::de::DeserializeOwned;
use service_kit::PeerInfo;

use super::bodies::{
    AnswerBody, CheckBody, Question, RefundBody, RefundedBody, ResetBody, ResetDoneBody, RuleBody, TopBody,
};
use super::openapi;
use super::problem::{ProblemBody, Refusal, denied};
use super::query::{self, Mode};
use crate::access::{Access, bearer};
use crate::client_address::Clients;
use crate::grants::{GrantId, Grants};
use crate::limit_service::LimitService;
use crate::meter::{Meter, Protocol};

/// Denied keys that are listed when nothing is said.
const TOP_DEFAULT: usize = 20;

/// What the calls work on.
pub(super) struct Shared {
    pub(super) limits: LimitService,
    pub(super) access: Access,
    pub(super) clients: Clients,
    pub(super) grants: Grants,
    pub(super) meter: Meter,
}

type Refused = Result<Response, Refusal>;

impl Shared {
    async fn decide(&self, body: &CheckBody, mode: Mode) -> Refused {
        let now = self.limits.now();
        let question = Question::new(&body.domain, &body.descriptors, body.hits);
        let entries = question.entries();
        let descriptors = question.descriptors(&entries);
        let request = question.request(&descriptors);
        let (answer, grant) = if body.grant {
            self.limits.engine().acquire(&request, now).await?
        } else {
            (self.limits.engine().check(&request, now).await?, None)
        };
        let grant = grant.and_then(|grant| self.grants.keep(grant, now)).map(GrantId::text);
        let response = self.told(&answer, grant, mode);
        self.meter.decided(Protocol::Http, self.limits.now().since(now));
        Ok(response)
    }

    fn told(&self, answer: &Answer, grant: Option<String>, mode: Mode) -> Response {
        let mut headers = HeaderMap::new();
        self.limits.write_headers(&mut headers, answer);
        // An answer is good for one request.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match (answer.allowed, mode) {
            (true, _) => (headers, Json(AnswerBody::of(answer, grant))).into_response(),
            (false, Mode::Plain) => denied(StatusCode::TOO_MANY_REQUESTS, answer, headers),
            (false, Mode::Nginx) => denied(StatusCode::FORBIDDEN, answer, headers),
        }
    }

    fn may_check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.access.may_check(shown(headers)) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "show the token: Authorization: Bearer …"))
    }

    fn may_administer(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.access.may_administer(shown(headers)) {
            return Ok(());
        }
        Err(match (&self.access.admin, shown(headers)) {
            (None, _) => Refusal::new(
                StatusCode::FORBIDDEN,
                "nobody may do this: start the server with --admin-token-file",
            ),
            (Some(_), None) => {
                Refusal::new(StatusCode::UNAUTHORIZED, "show the admin token: Authorization: Bearer …")
            }
            (Some(_), Some(_)) => Refusal::new(StatusCode::FORBIDDEN, "this is not the admin token"),
        })
    }

    /// Counts what was refused.
    fn counted(&self, refused: Refused) -> Response {
        refused.unwrap_or_else(|refusal| {
            self.meter.refused(Protocol::Http, refusal.reason());
            refusal.into_response()
        })
    }
}

fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(AUTHORIZATION).and_then(|value| bearer(value.as_bytes()))
}

/// Our own reading of JSON: what is wrong is told as every other problem, whatever the type of content says.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is not as expected: {error}")))
}

/// Decides, and charges all descriptors or none.
#[utoipa::path(post, path = "/v1/check", tag = "decisions", request_body = CheckBody, responses(
    (status = 200, description = "The request may go.", body = AnswerBody),
    (status = 400, description = "The question cannot be read; nothing was charged.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, description = "The token is missing or wrong.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 429, description = "The request may not go: a problem document with the members of the answer, and Retry-After when waiting helps.", body = AnswerBody, content_type = "application/problem+json"),
))]
pub(super) async fn check(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let answered: Refused = async {
        shared.may_check(&headers)?;
        shared.decide(&read(&body)?, Mode::Plain).await
    }
    .await;
    shared.counted(answered)
}

/// The same as a query, for proxies that ask before they forward (`auth_request`, `forward_auth`, ForwardAuth). Parameters
/// beside those named here are the entries of one descriptor, in their order.
#[utoipa::path(get, path = "/v1/check", tag = "decisions", params(
    ("domain" = String, Query, description = "Whose rules are asked."),
    ("hits" = Option<u64>, Query, description = "As in the body of a POST."),
    ("mode" = Option<String>, Query, description = "nginx: a denial is 403, the only one that auth_request understands."),
    ("descriptors" = Option<String>, Query, description = "The descriptors as JSON, as in the body of a POST."),
    ("client_ip" = Option<String>, Query, description = "An entry; without a value the client's address, as trusted proxies tell it."),
), responses(
    (status = 200, description = "The request may go.", body = AnswerBody),
    (status = 400, description = "The question cannot be read; nothing was charged.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, description = "The token is missing or wrong.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "As 429, with mode=nginx.", body = AnswerBody, content_type = "application/problem+json"),
    (status = 429, description = "The request may not go.", body = AnswerBody, content_type = "application/problem+json"),
))]
pub(super) async fn forward_auth(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<PeerInfo>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let client = || shared.clients.of(peer.remote.ip(), &headers);
    let answered: Refused = async {
        shared.may_check(&headers)?;
        let (body, mode) = query::read(uri.query().unwrap_or_default(), client)?;
        shared.decide(&body, mode).await
    }
    .await;
    shared.counted(answered)
}

/// What is left of a key, without taking anything. Behind the domain stand entries, `KEY=VALUE`, percent-encoded.
#[utoipa::path(get, path = "/v1/keys/{key}", tag = "decisions", params(
    ("key" = String, Path, description = "DOMAIN/KEY=VALUE, with further KEY=VALUE behind slashes."),
), responses(
    (status = 200, description = "What is left.", body = AnswerBody),
    (status = 400, description = "The key cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, description = "The token is missing or wrong.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn peek(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().strip_prefix("/v1/keys/").unwrap_or_default();
    let answered: Refused = async {
        shared.may_check(&headers)?;
        let (domain, descriptor) = query::read_path(path)?;
        let bodies = [descriptor];
        let question = Question::new(&domain, &bodies, 0);
        let entries = question.entries();
        let descriptors = question.descriptors(&entries);
        let request = question.request(&descriptors);
        let answer = shared.limits.engine().peek(&request, shared.limits.now()).await?;
        Ok(([(CACHE_CONTROL, "no-store")], Json(AnswerBody::of(&answer, None))).into_response())
    }
    .await;
    shared.counted(answered)
}

/// Gives back what a request took, aged. Once; a refund that failed may be tried again unless the answer says otherwise.
#[utoipa::path(post, path = "/v1/refund", tag = "administration", request_body = RefundBody, responses(
    (status = 200, description = "It was given back.", body = RefundedBody),
    (status = 401, description = "The admin token is missing.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "It is not the admin token, or there is none.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 404, description = "There is no such grant: it was given back already, or forgotten.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "The counters cannot be reached. The grant is kept: try again.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn refund(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let answered: Refused = async {
        shared.may_administer(&headers)?;
        let body: RefundBody = read(&body)?;
        let id = GrantId::parse(&body.grant).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let now = shared.limits.now();
        let mut taken = shared.grants.take(id, now).ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such grant: it was given back already, or forgotten",
            )
        })?;
        shared.limits.engine().refund(&mut taken.grant, now).await?;
        Ok(Json(RefundedBody { refunded: true }).into_response())
    }
    .await;
    shared.counted(answered)
}

/// Forgets what descriptors have used.
#[utoipa::path(post, path = "/v1/reset", tag = "administration", request_body = ResetBody, responses(
    (status = 200, description = "They start over.", body = ResetDoneBody),
    (status = 401, description = "The admin token is missing.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "It is not the admin token, or there is none.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 503, description = "The counters cannot be reached: try again.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn reset(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let answered: Refused = async {
        shared.may_administer(&headers)?;
        let body: ResetBody = read(&body)?;
        let question = Question::new(&body.domain, &body.descriptors, 0);
        let entries = question.entries();
        let descriptors = question.descriptors(&entries);
        let request = question.request(&descriptors);
        let reset = shared.limits.engine().reset(&request, shared.limits.now()).await?;
        Ok(Json(ResetDoneBody { reset }).into_response())
    }
    .await;
    shared.counted(answered)
}

/// The rules that are in force, and what they have decided.
#[utoipa::path(get, path = "/v1/rules", tag = "administration", responses(
    (status = 200, description = "The rules.", body = Vec<RuleBody>),
    (status = 401, description = "The admin token is missing.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "It is not the admin token, or there is none.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn rules(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    shared.counted(shared.may_administer(&headers).map(|()| {
        let rules: Vec<_> = shared.limits.engine().rules().iter().map(RuleBody::of).collect();
        Json(rules).into_response()
    }))
}

/// The keys that were denied most.
#[utoipa::path(get, path = "/v1/top", tag = "administration", params(
    ("count" = Option<usize>, Query, description = "How many, up to 1024; 20 if nothing is said."),
), responses(
    (status = 200, description = "Most first.", body = Vec<TopBody>),
    (status = 400, description = "The count cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 401, description = "The admin token is missing.", body = ProblemBody, content_type = "application/problem+json"),
    (status = 403, description = "It is not the admin token, or there is none.", body = ProblemBody, content_type = "application/problem+json"),
))]
pub(super) async fn top(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    shared.counted(shared.may_administer(&headers).and_then(|()| {
        let count = match uri.query().and_then(|query| query.strip_prefix("count=")) {
            None => TOP_DEFAULT,
            Some(count) => {
                let count = count.parse().ok().filter(|count| (1..=TOP_MAX).contains(count));
                count.ok_or_else(|| {
                    Refusal::bad_request(format!("count is a whole number from 1 to {TOP_MAX}"))
                })?
            }
        };
        let top: Vec<TopBody> = shared.limits.engine().top(count).into_iter().map(TopBody::from).collect();
        Ok(Json(top).into_response())
    }))
}

/// This description.
pub(super) async fn description() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}

/// Nothing is here.
pub(super) async fn nowhere(State(shared): State<Arc<Shared>>) -> Response {
    let detail = "nothing is here: see /openapi.json";
    shared.counted(Err(Refusal::new(StatusCode::NOT_FOUND, detail)))
}

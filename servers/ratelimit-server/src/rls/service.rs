//! The one call.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ratelimit_rules::RequestError;
use tonic::{Request, Response, Status};

use super::proto::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use super::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use super::question::Question;
use super::status::{over_limit, response};
use crate::access::{Access, bearer};
use crate::limit_service::LimitService;
use crate::meter::{Meter, Protocol};

/// Answers proxies from the rules.
#[derive(Clone)]
pub struct RlsService {
    limits: LimitService,
    access: Access,
    meter: Meter,
}

impl RlsService {
    /// The service of these limits. Calls show the token of `access`, if it has one, as `authorization: Bearer …`.
    pub fn new(limits: LimitService, access: Access) -> Self {
        Self { limits, access, meter: Meter::new() }
    }

    async fn decide(&self, message: &RateLimitRequest) -> Result<RateLimitResponse, Status> {
        let now = self.limits.now();
        let question = Question::read(message, self.limits.epoch())?;
        let entries = question.entries();
        let descriptors = question.descriptors(&entries);
        let request = question.request(&descriptors);
        let answer = match self.limits.engine().check(&request, now).await {
            Ok(answer) => answer,
            // Values are what clients send: one that is denied for its length must not pass as one that could not be decided.
            Err(RequestError::TooLong { .. }) => {
                self.meter.refused(Protocol::Rls, "request");
                return Ok(over_limit(descriptors.len()));
            }
            Err(error) => return Err(refused(error)),
        };
        let mut headers = HeaderMap::new();
        self.limits.write_headers(&mut headers, &answer);
        self.meter.decided(Protocol::Rls, self.limits.now().since(now));
        Ok(response(&answer, &headers))
    }
}

#[tonic::async_trait]
impl RateLimitService for RlsService {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        if !self.access.is_open() {
            let shown =
                request.metadata().get(AUTHORIZATION.as_str()).and_then(|value| bearer(value.as_bytes()));
            if !self.access.may_check(shown) {
                self.meter.refused(Protocol::Rls, "token");
                return Err(Status::unauthenticated("show the token: authorization: Bearer …"));
            }
        }
        let answer = self.decide(request.get_ref()).await;
        answer.map(Response::new).inspect_err(|_| self.meter.refused(Protocol::Rls, "request"))
    }
}

fn refused(error: RequestError) -> Status {
    match error {
        RequestError::TooManyOverrides { .. } | RequestError::NoTable(_) => {
            Status::resource_exhausted(error.to_string())
        }
        error => Status::invalid_argument(error.to_string()),
    }
}

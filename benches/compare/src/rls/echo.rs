//! The peer: tonic's own server, which decodes the question and says yes without looking at it.

use std::net::SocketAddr;

use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::proto::envoy::config::core::v3::HeaderValue;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::rate_limit::Unit;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus, RateLimit};
use crate::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use crate::proto::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

/// What our server adds to a response by default.
const HEADERS: [(&str, &str); 5] = [
    ("ratelimit-policy", "\"bench\";q=1000000;w=1"),
    ("ratelimit", "\"bench\";r=999999;t=1"),
    ("x-ratelimit-limit", "1000000"),
    ("x-ratelimit-remaining", "999999"),
    ("x-ratelimit-reset", "1"),
];

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    /// `OK` and nothing else.
    Empty,
    /// As many bytes as our server answers, the same each time.
    Full,
}

struct Echo(Answer);

#[tonic::async_trait]
impl RateLimitService for Echo {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let mut response =
            RateLimitResponse { overall_code: Code::Ok.into(), ..RateLimitResponse::default() };
        if self.0 == Answer::Full {
            response.statuses = request.get_ref().descriptors.iter().map(|_| status()).collect();
            let header =
                |(key, value): (&str, &str)| HeaderValue { key: key.to_owned(), value: value.to_owned() };
            response.response_headers_to_add = HEADERS.map(header).into();
        }
        Ok(Response::new(response))
    }
}

fn status() -> DescriptorStatus {
    let limit =
        RateLimit { name: "bench".to_owned(), requests_per_unit: 1_000_000, unit: Unit::Second.into() };
    DescriptorStatus {
        code: Code::Ok.into(),
        current_limit: Some(limit),
        limit_remaining: 999_999,
        duration_until_reset: Some(prost_types::Duration { seconds: 0, nanos: 1_000 }),
    }
}

/// Serves until the process is ended. The first line of the output is the URL.
pub(crate) async fn serve(answer: Answer) -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.with_nodelay(Some(true));
    println!("http://{}", incoming.local_addr()?);
    let service = RateLimitServiceServer::new(Echo(answer));
    Server::builder().add_service(service).serve_with_incoming(incoming).await?;
    Ok(())
}

//! An axum app that limits its clients: 60 requests a minute, up to 20 at once, for each address.
use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use ratelimit_core::{Limit, Rate};
use tower_layers::client_ip::{ClientIpLayer, ClientIpPolicy, Grouping};
use tower_layers::keys::ClientAddress;
use tower_layers::rate_limit::{RateLimitLayer, RateLimitRule};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let limit = Limit::gcra(Rate::per_minute(60), 20)?;
    let per_client =
        RateLimitRule::new("per-client".parse()?, limit, ClientAddress::new(Grouping::default()));
    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .layer(RateLimitLayer::new(vec![per_client])?)
        .layer(ClientIpLayer::new(ClientIpPolicy::peer_only()));
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?)
}

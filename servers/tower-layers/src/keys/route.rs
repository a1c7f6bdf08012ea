//! What a request is for.

use std::fmt;

use super::extractor::{KeyError, KeyExtractor, RequestHead};
use super::request_key::{KeyWriter, PartKind};

/// The method. An unknown one is `OTHER`: a client cannot invent buckets.
#[derive(Clone, Copy, Debug)]
pub struct Method;

impl KeyExtractor for Method {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let known = matches!(
            request.method.as_str(),
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH"
        );
        key.part(PartKind::Method, if known { request.method.as_str().as_bytes() } else { b"OTHER" })
    }
}

/// The route, as `name` tells it from the request. Routes with variable parts are named by their pattern: a raw path
/// gives a client a bucket for every path that it can think of.
pub struct Route<F> {
    name: F,
}

impl<F: for<'a> Fn(RequestHead<'a>) -> Option<&'a str>> Route<F> {
    /// Requests with the same name share a key.
    pub fn named_by(name: F) -> Self {
        Self { name }
    }
}

impl<F> fmt::Debug for Route<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Route")
    }
}

impl<F: for<'a> Fn(RequestHead<'a>) -> Option<&'a str> + Send + Sync> KeyExtractor for Route<F> {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let name = (self.name)(request).ok_or_else(|| KeyError::Absent { what: "route".to_owned() })?;
        key.part(PartKind::Route, name.as_bytes())
    }
}

/// The pattern of the axum route that matched. Add the limit with `Router::route_layer`: before routing there is none.
#[cfg(feature = "axum")]
#[derive(Clone, Copy, Debug)]
pub struct MatchedRoute;

#[cfg(feature = "axum")]
impl KeyExtractor for MatchedRoute {
    fn extract(&self, request: RequestHead<'_>, key: &mut KeyWriter) -> Result<(), KeyError> {
        let matched = request.extensions.get::<axum::extract::MatchedPath>();
        let matched = matched.ok_or_else(|| KeyError::NotWired { what: "matched route".to_owned() })?;
        key.part(PartKind::Route, matched.as_str().as_bytes())
    }
}

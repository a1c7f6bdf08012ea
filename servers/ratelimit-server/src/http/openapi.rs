//! The description of the API, made from the handlers and bodies.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use super::handlers;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Strongroom rate limits",
        description = "Decisions about requests, by rules. All descriptors of a question are charged, or none.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        handlers::check,
        handlers::forward_auth,
        handlers::peek,
        handlers::refund,
        handlers::reset,
        handlers::rules,
        handlers::top
    ),
    modifiers(&Tokens),
    security((), ("token" = [])),
    tags(
        (name = "decisions", description = "Open on loopback, else for whoever shows the token."),
        (name = "administration", description = "For whoever shows the admin token.")
    )
)]
struct Api;

struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}

/// The description as JSON: OpenAPI 3.1.
pub fn document() -> String {
    // A description made of literals has a JSON form.
    Api::openapi().to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

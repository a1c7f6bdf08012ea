//! For whom a request is counted, and how much it costs.
//!
//! A [`KeyExtractor`] finds the key of a request: the client's address, a credential that was verified, the user, the
//! route, or several of them together. Keys of different requests are the same bytes only when every part is the same:
//! each part is written with its kind and its length.
//!
//! ```
//! use tower_layers::client_ip::Grouping;
//! use tower_layers::keys::{ApiKey, ClientAddress, Extract, KeyExtractor, Method};
//!
//! let known = |credential: &[u8]| credential == b"key-of-ada";
//! // The key when it is known, else the address: a made-up key opens no bucket of its own. Each method on its own.
//! let key = ApiKey::in_header("x-api-key".try_into()?, known).or(ClientAddress::new(Grouping::default())).and(Method);
//! let request = http::Request::get("/").header("x-api-key", "key-of-ada").body(())?;
//! assert!(key.of(&request).is_ok());
//! let request = http::Request::get("/").header("x-api-key", "made up").body(())?;
//! assert!(key.of(&request).is_err(), "no layer has found the address");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod combined;
mod cost;
mod credential;
mod extractor;
mod request_key;
mod route;

pub use address::ClientAddress;
pub use combined::{And, Or};
pub use cost::{REQUEST_COST, RequestCost, ResponseCost};
pub use credential::{ApiKey, HeaderValueKey, KnownUser, User};
pub use extractor::{Everyone, Extract, KeyError, KeyExtractor, RequestHead, ResponseHead};
pub use request_key::{KEY_BYTES_MAX, KeyWriter, PartKind, RequestKey};
#[cfg(feature = "axum")]
pub use route::MatchedRoute;
pub use route::{Method, Route};

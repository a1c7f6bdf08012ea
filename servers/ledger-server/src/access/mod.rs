//! Who may call what: credentials, roles, scopes, and the layer that enforces them.
//!
//! [`AccessLayer`] stands before every service. It looks the method up in the [policy](POLICY), authenticates the
//! bearer token, compares the role and hands the [`Caller`] on in the request's extensions. What is not in the
//! table is refused. Whether a vault lies in the caller's scope is known when the request is decoded: services get
//! at a vault's name only through [`Caller`], which checks it.

mod caller;
mod layer;
mod policy;
mod revocable;

pub use caller::Caller;
pub use layer::{AccessLayer, AccessService, Authentication, Reflection};
pub use ledger_core::access::{Role, Scope, ScopeError};
pub(crate) use policy::{CALLS, STREAM_BACKUP, WATCH_BLOCKS, permit};
pub use policy::{Need, POLICY, Rule, need_of};
pub use revocable::{AdmittedCall, RevocableBody};

//! The protocol of Redis: `CL.THROTTLE` for any of its clients.
//!
//! What is asked comes with its own policy, so no rules are needed. All that has arrived is answered with one write. The
//! limits: [`REQUEST_BYTES_MAX`], [`ARGUMENTS_MAX`], [`KEY_BYTES_MAX`], [`RespLimits`], and those of the listener.

mod commands;
mod connection;
mod reply;
mod request;
mod server;
mod session;
mod throttle;

pub use connection::RespLimits;
pub use request::{ARGUMENTS_MAX, INLINE_BYTES_MAX, REQUEST_BYTES_MAX};
pub use server::RespServer;
pub use session::AUTH_FAILURES_MAX;
pub(crate) use session::Tally;
pub use throttle::KEY_BYTES_MAX;

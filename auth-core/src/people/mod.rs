//! People, decided: functions of the rows that were read, of settings and of the time.

mod register;
mod verify_email;

pub use register::Registration;
pub(crate) use register::{Newcomer, register, tell_owner};
pub(crate) use verify_email::{VerificationRows, verified, verify};

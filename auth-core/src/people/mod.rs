//! People, decided: functions of the rows that were read, of settings and of the time.

mod change_password;
mod register;
mod reset_password;
mod sign_in;
mod verify_email;

pub use change_password::PasswordChange;
pub(crate) use change_password::{ChangeRows, change_password, change_refused};
pub use register::Registration;
pub(crate) use register::{Newcomer, register, tell_owner};
pub(crate) use reset_password::{ResetMade, ResetRows, confirm_reset, request_reset};
pub use sign_in::{PasswordOutcome, SignInChallenge};
pub(crate) use sign_in::{ReadPassword, admit_password, depend_on_password, nobody, sign_in_failed};
pub(crate) use verify_email::{VerificationRows, verified, verify};

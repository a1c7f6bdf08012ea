//! Sessions, decided: functions of the rows that were read, of settings and of the time.

mod end;
mod live;
mod open;
mod reauthenticate;
mod step_up;
mod validate;

pub(crate) use end::{Ending, SessionRows, end, end_all, end_family, end_one, end_others};
pub use live::LiveSession;
pub use open::SignIn;
pub(crate) use open::{Opening, open};
pub use reauthenticate::Authentication;
pub(crate) use reauthenticate::reauthenticate;
pub use step_up::StepUpNeeded;
pub(crate) use validate::{admit, identify, judge, row_end, touched};

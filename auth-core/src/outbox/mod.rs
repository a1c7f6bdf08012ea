//! Mails that wait to be sent, decided: made in the commit of what they are about, claimed by whoever sends them, tried again
//! later and later, and in the end given up.

mod attempt;
mod post;

pub use attempt::{MailFailure, MailFate};
pub(crate) use attempt::{bury, claim, failed};
pub(crate) use post::{Draft, Prepared, post};

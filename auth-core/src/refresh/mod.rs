//! Refresh tokens, decided: the states of a family.

mod exchange;
mod family;

pub(crate) use exchange::{Place, place, reused, rotate};
pub(crate) use family::{begin, row_end};

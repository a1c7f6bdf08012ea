//! The places at which the program's sources expect each other.

pub mod ledger;

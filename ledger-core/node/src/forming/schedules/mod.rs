//! Schedules of whole groups of nodes: loss, repetition, reordering, partitions, crashes between any two effects,
//! restarts, wiped directories, changed lists. Whatever happens: never two clusters.
//!
//! One seed decides a schedule; a failure prints it.

mod claims;
mod world;

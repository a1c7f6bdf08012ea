//! The checker is checked: histories that are known to be good or bad, and two other checkers.

mod against_others;
mod known_histories;

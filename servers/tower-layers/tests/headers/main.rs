//! The headers, read by structured-field parsers that nobody here wrote, and golden values.

mod golden;
mod python;
mod read_back;

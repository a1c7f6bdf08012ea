//! Three real nodes under faults.

mod seeds;

//! Real nodes under faults, judged by what their clients saw: no seed may break a promise, every planted bug must be
//! found.
//!
//! `STRONGROOM_SIMULATION_SEEDS=FROM..TO` runs other seeds; `STRONGROOM_SIMULATION_TELL=1` prints what happens.

mod planted;
mod seeds;

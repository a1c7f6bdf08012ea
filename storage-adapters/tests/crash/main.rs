//! The node on the stores that it runs on, on a disk that loses, tears, fills and fails: every promise holds, or the node
//! refuses.
//!
//! A run of the real node is recorded, effect by effect, over the log's files and names and both files of redb. Then the power is cut at each of
//! those effects, in many ways, and a node is opened on what is left.

mod campaign;
#[path = "../damaged_bytes/damage.rs"]
mod damage;
mod disk;
mod disk_image;
mod faults;
mod flips;
mod power_cut;
mod power_cuts;
mod promises;
mod recorded_files;
mod recovery;
mod tally;
mod workload;

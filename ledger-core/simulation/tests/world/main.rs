//! Time, network and disks of the simulation, with small programs in the place of nodes.

mod disks;
mod echo;
mod network;

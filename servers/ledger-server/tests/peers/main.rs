//! Nodes that call each other over real sockets on loopback.

mod authority;
mod calls;
mod certificates;
mod limits;
mod node;
mod outages;

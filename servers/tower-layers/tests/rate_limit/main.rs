//! Limits in front of services: what is admitted, what is told, who waits, what is given back.

mod answers;
mod buckets;
mod metrics;
mod served;
mod settings;
mod settlement;
mod waiting;

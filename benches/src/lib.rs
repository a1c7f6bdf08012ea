//! Benchmarks of the workspace; see `benches/` and the README beside it.

//! Client addresses: what clients cannot forge, and the judgement of two other implementations.

mod chain;
mod claims;
mod layer;
mod nginx;
mod nginx_process;
mod trusted_proxies;

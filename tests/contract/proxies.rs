//! The proxies of the contract, and what differs with each.

pub mod caddy;
pub mod envoy;
pub mod haproxy;
pub mod nginx;
pub mod traefik;

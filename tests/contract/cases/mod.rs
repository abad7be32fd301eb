//! The cases, by what they are about. Each is a function of a proxy.

pub mod advisories;
pub mod identity;
pub mod login;
pub mod logout;
pub mod options;
pub mod paths;
pub mod refusals;
pub mod resource;
pub mod restart;
pub mod sender;
pub mod token;
pub mod traffic;
pub mod upgrades;

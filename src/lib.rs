//! holdfast answers one question, very often and very fast: *who sent this request, and may it pass?*
//!
//! A walk through the modules, along one request of a proxy:
//!
//! ```text
//! server::listener ─▶ server::auth ─▶ credential ─▶ tiers::digest ─▶ answers ── hit ──▶ respond
//!                                                                       │ miss                ▲
//!                                                                    verifier ─▶ identity ─▶ decision
//!                                                                       │           │
//!                                                                     token      tiers, revocation, store
//!                                                                       │           │
//!                                                                     issuer ◀──────┘   (through guard)
//! ```
//!
//! | module | is about |
//! |---|---|
//! | [`server`] | HTTP: listeners, the auth service, the admin service |
//! | [`credential`] | request → token |
//! | [`sender`] | whether a request comes from the sender that its token is bound to |
//! | [`verifier`] | token → verified claims, by its format; [`token`] has the parts |
//! | [`identity`] | claims → identity, and the order in which the email is looked for | | [`route`] | what a
//! request requires |
//! | [`decision`] | identity + tier + route → decision; pure |
//! | [`answers`] | ready answers, by token digest | | [`tiers`] | what may be answered from a record of some
//! age; [`store`]: where records are kept |
//! | [`revocation`] | what was revoked, and whether a token is covered by it; pure |
//! | [`issuer`] | calls to Auth0; [`guard`]: whether a call may be made |
//! | [`instance`] | one configuration ([`config`]), put together |
//! | [`mod@inspect`] | one token, explained to a person |
//! | [`admin_token`] | the token of operator requests to the admin listener |
//! | [`telemetry`] | metrics and logs |
//! | [`login`] | where a browser without a good credential is sent |
//! | [`logout`] | logouts that an issuer reports |
//! | [`private_file`] | files of keys and secrets, refused if others can read them |
//! | [`clock`] | the clock that tests can hold still |

pub mod admin_token;
pub mod answers;
pub mod clock;
pub mod config;
pub mod credential;
pub mod decision;
pub mod fleet;
pub mod guard;
pub mod identity;
pub mod inspect;
pub mod instance;
pub mod issuer;
pub mod login;
pub mod logout;
pub mod private_file;
pub mod resource;
pub mod respond;
pub mod revocation;
pub mod route;
pub mod sender;
pub mod server;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tiers;
pub mod tls;
pub mod token;
pub mod verifier;

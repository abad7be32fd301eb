//! Decrypting a JWE with keys that we hold (RFC 7516, RFC 7518 §4 and §5).
//!
//! The main idea: every choice is made from configured keys, before any cryptography. The header's `alg` and
//! `enc` only select among what a key was loaded for; `jwk`, `jku`, `x5c`, `x5u` are never looked at. So a
//! token can ask for no algorithm, key or amount of work that the owner did not provide, and a refusal of
//! that kind costs nothing.
//!
//! The content key is recovered by `josekit`, the content itself is decrypted here with AWS-LC, and the
//! deflate stream is inflated here. We do not let josekit (0.10.3) read whole tokens, because its reader
//! - takes a GCM tag of any length, so that a tag of one byte is guessed in 256 tries;
//! - panics on a wrapped key shorter than eight bytes and on a missing or short IV;
//! - removes the CBC padding before it checks the tag, and compares tags byte by byte, which is a padding
//!   oracle;
//! - inflates without bound.
//!
//! Every length is therefore checked here, to the byte, before josekit sees a part.
//!
//! Decrypted content is not trusted yet. **A JWE that is encrypted to a public key proves nothing about its
//! sender**, so [`Opened`] says by [`SealedWith`] what the caller must still check.

mod algorithm;
mod content;
mod error;
mod key;
mod keys;
mod open;
mod opened;

pub use algorithm::SealedWith;
pub use error::JweError;
pub use key::KeyProblem;
pub use keys::{DecryptionKeys, KeyDescription, KeyFileError};
pub use opened::Opened;

//! A decrypted JWE.

use super::algorithm::SealedWith;
use super::key::KeyId;

/// The decrypted content of a JWE.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext, inflated if it was deflated: a nested JWS, or claims.
    pub payload: Vec<u8>,
    /// What decryption says about the sender.
    pub sealed_with: SealedWith,
    /// The label of the key that decrypted it: its `kid`, or the name of its file.
    pub key: String,
    pub(in crate::token) id: KeyId,
}

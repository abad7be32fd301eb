//! Why a request is not proven to come from the sender of its token.

use thiserror::Error;

use crate::route::Closed;
use crate::token::dpop::ProofError;
use crate::token::pool::PoolError;

/// Why the sender of a request is not proven. This says nothing about the token, so it is never remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unproven {
    /// The token is bound to a key, and was not sent with the scheme `DPoP`.
    #[error("the token is bound to a key (`cnf.jkt`), and was not sent as `Authorization: DPoP`")]
    AsBearer,
    /// The token is not bound to a key, and was sent as if it were.
    #[error("the token is not bound to a key, and was sent with a DPoP proof or as `Authorization: DPoP`")]
    NotBound,
    /// There is no proof.
    #[error("the token is bound to a key, and the request has no DPoP header; does the proxy pass it on?")]
    NoProof,
    /// There is more than one.
    #[error("the request has more than one DPoP header")]
    SeveralProofs,
    /// The proof is not ASCII.
    #[error("the DPoP header has bytes that no proof can have")]
    NotAscii,
    /// The proof is not valid.
    #[error("{0}")]
    Proof(#[from] ProofError),
    /// The proof was used before.
    #[error("the DPoP proof was used before (`jti`)")]
    Replayed,
    /// The token is bound to a client certificate, and none is known.
    #[error(
        "the token is bound to a client certificate (`cnf` x5t#S256), and no trusted peer sent one in \
         the header auth.client_certificate_header"
    )]
    NoCertificate,
    /// The trusted peer did not send exactly one readable certificate.
    #[error("the header auth.client_certificate_header has no certificate that can be read, or several")]
    UnclearCertificate,
    /// The token is bound to another client certificate.
    #[error("the client's certificate is not the one that the token is bound to (`cnf` x5t#S256)")]
    OtherCertificate,
    /// The binding of the token is of an unknown kind.
    #[error("the token is bound to something (`cnf`) that cannot be checked here")]
    Unreadable,
    /// The original request is not known, so a proof has nothing to be compared with.
    #[error("the proof is about the original request, and {0}")]
    UnknownRequest(#[from] Closed),
    /// Too many tokens and proofs are being checked.
    #[error("{0}")]
    Busy(#[from] PoolError),
    /// The replay cache is full.
    #[error("more proofs came in a short time than can be remembered; try again later")]
    CacheFull,
}

impl Unproven {
    /// Whether the same token with a better proof would pass: `invalid_dpop_proof` (RFC 9449 §7.1).
    #[must_use]
    pub fn is_about_the_proof(self) -> bool {
        match self {
            Self::NoProof | Self::SeveralProofs | Self::NotAscii | Self::Replayed => true,
            Self::Proof(error) => error != ProofError::OtherKey,
            _ => false,
        }
    }

    /// The metric label.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::AsBearer => "bound_as_bearer",
            Self::NotBound => "not_bound",
            Self::NoProof => "proof_missing",
            Self::SeveralProofs => "proof_repeated",
            Self::NotAscii => "proof_malformed",
            Self::Proof(error) => error.reason(),
            Self::Replayed => "proof_replayed",
            Self::NoCertificate => "certificate_missing",
            Self::UnclearCertificate => "certificate_unclear",
            Self::OtherCertificate => "certificate_mismatch",
            Self::Unreadable => "binding_unknown",
            Self::UnknownRequest(closed) => closed.reason(),
            Self::Busy(_) => "busy",
            Self::CacheFull => "proofs_full",
        }
    }
}

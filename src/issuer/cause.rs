//! Why there is no connection to an issuer: each cause with its own message, which says what to do.

use std::error::Error;
use std::io;

use thiserror::Error;
use tokio_rustls::rustls::{self, CertificateError};

/// Why no connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoConnection {
    /// The name does not resolve.
    #[error("its name cannot be resolved: is it spelled right, and does DNS work on this machine?")]
    NameNotFound,
    /// Nobody listens there.
    #[error("the connection was refused: nothing listens at that address and port")]
    Refused,
    /// No route, or a firewall that says so.
    #[error("its address cannot be reached: is there a route, and does a firewall let this machine out?")]
    Unreachable,
    /// No connection within the timeout.
    #[error(
        "no connection within a second: is the address right, and does a firewall allow it? \
         HTTP proxies are not used"
    )]
    TimedOut,
    /// The certificate is of an authority that this machine does not trust.
    #[error(
        "its certificate is from an authority that this machine does not trust: install that authority's \
         certificate (package ca-certificates, or SSL_CERT_FILE), unless a middlebox presents its own \
         certificate"
    )]
    UntrustedAuthority,
    /// The certificate is for another name.
    #[error("its certificate is for another name: is the issuer's URL right?")]
    WrongName,
    /// The certificate has expired, by this machine's clock.
    #[error("its certificate has expired: the issuer must renew it, unless this machine's clock is wrong")]
    CertificateExpired,
    /// The certificate is not valid yet, by this machine's clock.
    #[error("its certificate is not valid yet: is this machine's clock right?")]
    CertificateNotYetValid,
    /// The server does not speak TLS.
    #[error("the server there does not speak TLS: is it http:// or another port?")]
    NoTls,
    /// Another failure of TLS.
    #[error("TLS failed: no common version or cipher, or an invalid certificate")]
    Tls,
    /// None of these.
    #[error("the connection failed")]
    Other,
}

impl NoConnection {
    /// Finds the cause in what an HTTP client says.
    #[must_use]
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut said = Some(error);
        let mut cause = Self::Other;
        while let Some(error) = said {
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Self::of_tls(error);
            }
            if let Some(error) = error.downcast_ref::<io::Error>() {
                // `source` of an I/O error skips the error that it wraps, and returns the source of that.
                if let Some(inner) = error.get_ref()
                    && let found = Self::of(inner)
                    && found != Self::Other
                {
                    return found;
                }
                cause = match error.kind() {
                    io::ErrorKind::ConnectionRefused => Self::Refused,
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
                    io::ErrorKind::TimedOut => Self::TimedOut,
                    _ => cause,
                };
            }
            // The resolver's error has no type or kind of its own.
            if error.to_string() == "dns error" {
                return Self::NameNotFound;
            }
            said = error.source();
        }
        cause
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                CertificateError::UnknownIssuer => Self::UntrustedAuthority,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongName
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::CertificateExpired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::CertificateNotYetValid
                }
                _ => Self::Tls,
            },
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            _ => Self::Tls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_found_in_the_error_that_has_it() {
        let certificate = |error| rustls::Error::InvalidCertificate(error);
        for (error, expected) in [
            (certificate(CertificateError::UnknownIssuer), NoConnection::UntrustedAuthority),
            (certificate(CertificateError::NotValidForName), NoConnection::WrongName),
            (certificate(CertificateError::Expired), NoConnection::CertificateExpired),
            (certificate(CertificateError::NotValidYet), NoConnection::CertificateNotYetValid),
            (certificate(CertificateError::BadSignature), NoConnection::Tls),
            (rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType), NoConnection::NoTls),
            (rustls::Error::HandshakeNotComplete, NoConnection::Tls),
        ] {
            assert_eq!(NoConnection::of(&error.clone()), expected, "{error}");
            assert_eq!(NoConnection::of(&io::Error::other(error)), expected);
        }
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, NoConnection::Refused),
            (io::ErrorKind::NetworkUnreachable, NoConnection::Unreachable),
            (io::ErrorKind::HostUnreachable, NoConnection::Unreachable),
            (io::ErrorKind::TimedOut, NoConnection::TimedOut),
            (io::ErrorKind::ConnectionReset, NoConnection::Other),
        ] {
            assert_eq!(NoConnection::of(&io::Error::from(kind)), expected, "{kind}");
        }
    }
}

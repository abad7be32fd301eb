//! The headers of a 200 that are not configured.

use hyper::header::HeaderName;

/// The tier that the answer is of.
pub(super) const TIER: HeaderName = HeaderName::from_static("x-auth-tier");
/// Where the email came from.
pub(super) const SOURCE: HeaderName = HeaderName::from_static("x-auth-source");
/// The email; the one name that a rule of its own concerns.
pub(super) const EMAIL: HeaderName = HeaderName::from_static("x-user-email");
/// How `X-User-Email` is encoded.
pub(super) const EMAIL_ENCODING: HeaderName = HeaderName::from_static("x-user-email-encoding");

//! The headers of a 200 that are not configured.

use hyper::header::HeaderName;

/// The tier that the answer is of.
pub const TIER: HeaderName = HeaderName::from_static("x-auth-tier");
/// Where the email came from.
pub const SOURCE: HeaderName = HeaderName::from_static("x-auth-source");
/// The email, the only header with a special encoding.
pub const EMAIL: HeaderName = HeaderName::from_static("x-user-email");
/// How `X-User-Email` is encoded.
pub const EMAIL_ENCODING: HeaderName = HeaderName::from_static("x-user-email-encoding");
/// The age of the record, in seconds.
pub const AGE: HeaderName = HeaderName::from_static("x-auth-age");

/// The headers that every 200 has, whatever is configured. A row of `[headers]` cannot have such a name, and
/// a 200 without an identity says `none` in each.
pub static FIXED: [HeaderName; 4] = [EMAIL_ENCODING, TIER, SOURCE, AGE];

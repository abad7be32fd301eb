//! Answers of the admin listener: a body and its media type, never cached.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::clock::Timestamp;

/// The last second of the year 9999, in seconds since the Unix epoch. Later dates have no RFC 3339 form.
const LAST_SECOND: u64 = 253_402_300_799;

/// An answer in plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Vec<u8>>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// An answer with a body of the media type `kind`.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A time in RFC 3339, to the second.
pub(super) fn date(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST_SECOND));
    humantime::format_rfc3339_seconds(at).to_string()
}

//! Answers of the admin listener: a body, its type, and nothing that a cache keeps.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use crate::clock::Timestamp;

/// Of the year 9999: dates have no more digits.
const LAST_SECOND: u64 = 253_402_300_799;

/// A plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Vec<u8>>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// A body of this type.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// RFC 3339, to the second.
pub(super) fn date(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST_SECOND));
    humantime::format_rfc3339_seconds(at).to_string()
}

//! Answers of the admin listener: a body and its media type, never cached. And the bodies of its requests.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use crate::clock::Timestamp;

/// The last second of the year 9999, in seconds since the Unix epoch. Later dates have no RFC 3339 form.
const LAST_SECOND: u64 = 253_402_300_799;

/// An answer of the admin listener.
pub(super) type Reply = Response<Full<Bytes>>;

/// An answer in plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Vec<u8>>) -> Reply {
    respond(status, "text/plain; charset=utf-8", body.into())
}

/// An answer with a body of the media type `kind`.
pub(super) fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Reply {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Whether `Content-Type` is this media type, with any parameters.
pub(super) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(media_type)
}

/// A whole body; `None` if it is longer than `most` bytes, or does not arrive in time.
pub(super) async fn whole(body: Incoming, most: usize, timeout: Duration) -> Option<Bytes> {
    let body = tokio::time::timeout(timeout, Limited::new(body, most).collect()).await.ok()?;
    Some(body.ok()?.to_bytes())
}

/// A time in RFC 3339, to the second.
pub(super) fn date(at: Timestamp) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(at.as_secs().min(LAST_SECOND));
    humantime::format_rfc3339_seconds(at).to_string()
}

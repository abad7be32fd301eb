//! Bodies of answers: complete ones, and two faulty ones.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};

/// Any body the dev tenant sends.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

/// A complete body.
pub(crate) fn full(bytes: impl Into<Bytes>) -> AnswerBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A JSON object of `size` bytes that is made while it is sent, without an announced length.
pub(crate) fn huge(size: usize) -> AnswerBody {
    let (start, end) = (&br#"{"sub":"auth0|alice","padding":""#[..], &br#""}"#[..]);
    Huge { start: Some(start), padding: size.saturating_sub(start.len() + end.len()), end: Some(end) }
        .boxed_unsync()
}

/// A body that breaks off after `bytes`; the caller announces a greater length.
pub(crate) fn truncated(bytes: impl Into<Bytes>) -> AnswerBody {
    Truncated { bytes: Some(bytes.into()), flushed: false }.boxed_unsync()
}

struct Huge {
    start: Option<&'static [u8]>,
    padding: usize,
    end: Option<&'static [u8]>,
}

impl Body for Huge {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        static PADDING: [u8; 16 * 1024] = [b'a'; 16 * 1024];
        let this = self.get_mut();
        let next = if let Some(start) = this.start.take() {
            Some(start)
        } else if this.padding > 0 {
            let chunk = &PADDING[..this.padding.min(PADDING.len())];
            this.padding -= chunk.len();
            Some(chunk)
        } else {
            this.end.take()
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(Bytes::from_static(bytes)))))
    }
}

struct Truncated {
    bytes: Option<Bytes>,
    flushed: bool,
}

impl Body for Truncated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if let Some(bytes) = this.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        // Pending once, so that hyper sends what it has before the error closes the connection.
        if !this.flushed {
            this.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cut off on purpose"))))
    }
}

//! The events of the status page: server-sent events (HTML Standard §9.2), one a second.
//!
//! Nothing runs unless a page is open, and all open pages share their events. The next event is sent after
//! the connection has taken the last one. So a slow reader gets fewer events, and the connection of a reader
//! that stops reading is closed like any other.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::status::Observer;

/// The media type of server-sent events.
pub(super) const MEDIA_TYPE: &str = "text/event-stream";

/// Time between two events.
const PERIOD: Duration = Duration::from_secs(1);

/// The body of an answer that ends with the service.
pub struct Events {
    observer: Arc<Observer>,
    due: Interval,
    _permit: OwnedSemaphorePermit,
}

/// An answer that sends the status once a second; `None` if too many pages are open.
pub(super) fn answer(observer: Arc<Observer>) -> Option<Response<Events>> {
    let permit = observer.try_open()?;
    let mut due = interval(PERIOD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer = Response::new(Events { observer, due, _permit: permit });
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(answer)
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        ready!(self.due.poll_tick(cx));
        if self.observer.is_leaving() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(self.observer.event(Instant::now())))))
    }
}

//! The stream of a connection, with two bounds that hyper lacks.
//!
//! - How long an answer may wait to be read. hyper only bounds how long a request may take to arrive. A
//!   client that sends requests and never reads an answer would occupy a connection for as long as the kernel
//!   at its end lives.
//! - How much one read takes. hyper compares the length of a head with its bound before each read, not after
//!   it. One long read would let a head of twice the bound pass.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::time::Sleep;

/// The most bytes of one read. hyper's first buffer is as long, so that most requests come in one read.
const READ: u64 = 8 << 10;

/// A stream that fails if a write waits longer than a timeout, and that reads at most [`READ`] bytes at once.
pub(super) struct BoundedStream<S> {
    stream: Take<S>,
    /// The byte that was already read from the stream, until the next read returns it.
    first: Option<u8>,
    timeout: Duration,
    /// Set while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + Unpin> BoundedStream<S> {
    /// Wraps a stream whose first byte was already read. `timeout` is how long a write may wait.
    pub(super) fn new(stream: S, first: u8, timeout: Duration) -> Self {
        Self { stream: stream.take(READ), first: Some(first), timeout, deadline: None }
    }

    fn poll_bounded(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.set_limit(READ);
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S> BoundedStream<S> {
    fn in_time<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let timeout = self.timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answers"));
        deadline.as_mut().poll(cx).map(|()| late())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if into.remaining() > 0
            && let Some(first) = self.first.take()
        {
            into.put_slice(&[first]);
            // Returns everything that has arrived, because hyper enlarges its buffer after a short read. If
            // there is no more data, or an error, the next read reports it.
            let _ = self.poll_bounded(cx, into);
            return Poll::Ready(Ok(()));
        }
        self.poll_bounded(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BoundedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.stream.get_mut()).poll_flush(cx);
        self.in_time(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(self.stream.get_mut()).poll_shutdown(cx);
        self.in_time(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(self.stream.get_mut()).poll_write_vectored(cx, bytes);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const MAX_HEAD: usize = 128 << 10;

    /// The answer to a request whose head has `length` bytes, all of which arrived before the first read.
    async fn answer_to(length: usize) -> String {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        let (start, end) = ("GET / HTTP/1.1\r\nHost: auth\r\nConnection: close\r\nX-Large: ", "\r\n\r\n");
        let value = "v".repeat(length - start.len() - end.len());
        client.write_all(format!("{start}{value}{end}").as_bytes()).await.unwrap();
        let first = server.read_u8().await.unwrap();
        let stream = BoundedStream::new(server, first, Duration::from_secs(10));
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let served = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        assert_eq!(served.is_err(), length > MAX_HEAD, "{length}: {served:?}");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_head_over_the_bound_is_refused_even_if_all_of_it_has_arrived() {
        assert_eq!(answer_to(MAX_HEAD).await, "HTTP/1.1 200 OK");
        for length in [MAX_HEAD + READ as usize + 1, 200_000, 2 * MAX_HEAD - 1] {
            assert_eq!(answer_to(length).await, "HTTP/1.1 431 Request Header Fields Too Large", "{length}");
        }
    }
}

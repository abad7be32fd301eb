//! The bound on replies from Redis: a reply or message that is longer than any that holdfast asks for is
//! never read.
//!
//! The client library buffers a whole reply before it parses it, so a server could fill the memory with one
//! reply. [`BoundedReplies`] is below the library, where replies and messages are still bytes. It follows
//! only the framing of [RESP3](https://github.com/redis/redis-specifications/blob/master/protocol/RESP3.md):
//! lengths of strings, numbers of values, nesting. It fails the connection at the header that announces too
//! much, before the content is read. It refuses what it does not understand, so it never reads a length
//! differently than the library.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest reply or message in bytes, with everything in it: twice the longest record. A batch of names
/// from `SCAN` takes a quarter of it.
pub(super) const MAX_REPLY: usize = 512 * 1024;

/// The most values in one reply. A value takes more memory than bytes on the wire. `SCAN` returns about 500.
const MAX_VALUES: usize = 16 * 1024;

/// How deep values may be nested. The reply to `HELLO` has three levels.
const MAX_DEPTH: usize = 8;

/// The most digits of a header.
const MAX_HEADER: usize = 20;

/// Why a reply of Redis is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The reply is longer than any that holdfast asks for.
    #[error("Redis sends a reply of {0} bytes or more; holdfast reads {MAX_REPLY} at most")]
    Length(usize),
    /// The reply has more values than any that holdfast asks for.
    #[error("Redis sends a reply of {0} values or more; holdfast reads {MAX_VALUES} at most")]
    Values(usize),
    /// The reply is nested deeper than any that holdfast asks for.
    #[error("Redis sends a reply that is nested more than {MAX_DEPTH} levels deep")]
    Depth,
    /// Not RESP3.
    #[error("what Redis sends is not RESP3")]
    Malformed,
}

/// Which part of a value the next byte belongs to.
#[derive(Debug)]
enum At {
    /// The first byte, which is the type.
    Type,
    /// The line after the type; `cr`: its last byte was a carriage return.
    Line { kind: u8, header: Vec<u8>, cr: bool },
    /// A string of announced length.
    Text { left: usize },
    /// The line end after that string.
    LineFeed { expected: u8 },
}

/// Follows the framing, in whatever pieces the bytes arrive.
#[derive(Debug)]
struct Framing {
    at: At,
    /// How many values each open aggregate still needs, from the outermost to the innermost.
    open: Vec<usize>,
    bytes: usize,
    values: usize,
}

impl Framing {
    const fn new() -> Self {
        Self { at: At::Type, open: Vec::new(), bytes: 0, values: 0 }
    }

    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), ReplyError> {
        while let [first, rest @ ..] = bytes {
            if let At::Text { left } = &mut self.at {
                let skipped = (*left).min(bytes.len());
                *left -= skipped;
                bytes = &bytes[skipped..];
                if *left == 0 {
                    self.at = At::LineFeed { expected: b'\r' };
                }
                continue;
            }
            self.spend(1)?;
            self.take(*first)?;
            bytes = rest;
        }
        Ok(())
    }

    /// One byte that is not in a string of announced length.
    fn take(&mut self, byte: u8) -> Result<(), ReplyError> {
        match &mut self.at {
            At::Type => {
                self.at = At::Line { kind: byte, header: Vec::new(), cr: false };
                b"+-:_,#($=!*~>%|".contains(&byte).then_some(()).ok_or(ReplyError::Malformed)
            }
            At::Line { kind, header, cr } => {
                let kind = *kind;
                if *cr && byte == b'\n' {
                    let header = std::mem::take(header);
                    return self.line_ended(kind, &header);
                }
                // Of other lines only the end matters.
                if has_header(kind) && (*cr || header.len() == MAX_HEADER) {
                    return Err(ReplyError::Malformed);
                }
                *cr = byte == b'\r';
                if has_header(kind) && !*cr {
                    header.push(byte);
                }
                Ok(())
            }
            At::Text { .. } => Ok(()),
            At::LineFeed { expected } if *expected != byte => Err(ReplyError::Malformed),
            At::LineFeed { expected: b'\r' } => {
                self.at = At::LineFeed { expected: b'\n' };
                Ok(())
            }
            At::LineFeed { .. } => {
                self.value_ended();
                Ok(())
            }
        }
    }

    fn line_ended(&mut self, kind: u8, header: &[u8]) -> Result<(), ReplyError> {
        if !has_header(kind) {
            self.value_ended();
            return Ok(());
        }
        if header == b"-1" && matches!(kind, b'$' | b'*' | b'~') {
            self.value_ended();
            return Ok(());
        }
        let digits = std::str::from_utf8(header).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let announced: usize = digits.and_then(|text| text.parse().ok()).ok_or(ReplyError::Malformed)?;
        match kind {
            b'$' | b'=' | b'!' => {
                self.spend(announced)?;
                self.at = match announced {
                    0 => At::LineFeed { expected: b'\r' },
                    left => At::Text { left },
                };
                Ok(())
            }
            b'%' => self.aggregate(announced.saturating_mul(2)),
            // The library reads an attribute and the value that follows as one.
            b'|' => self.aggregate(announced.saturating_mul(2).saturating_add(1)),
            _ => self.aggregate(announced),
        }
    }

    fn aggregate(&mut self, count: usize) -> Result<(), ReplyError> {
        self.values = self.values.saturating_add(count);
        if self.values > MAX_VALUES {
            return Err(ReplyError::Values(self.values));
        }
        if count == 0 {
            self.value_ended();
            return Ok(());
        }
        if self.open.len() == MAX_DEPTH {
            return Err(ReplyError::Depth);
        }
        self.open.push(count);
        self.at = At::Type;
        Ok(())
    }

    /// A value has ended. The last value of an aggregate ends the aggregate, too.
    fn value_ended(&mut self) {
        self.at = At::Type;
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        (self.bytes, self.values) = (0, 0);
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ReplyError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_REPLY { Err(ReplyError::Length(self.bytes)) } else { Ok(()) }
    }
}

/// Whether the line of this type announces a length or a number of values.
const fn has_header(kind: u8) -> bool {
    matches!(kind, b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|')
}

/// A connection to Redis that fails when a reply or message is too long. `failed` then holds the reason: the
/// client library does not pass it to all callers.
pub(super) struct BoundedReplies<S> {
    stream: S,
    framing: Framing,
    failed: Arc<OnceLock<ReplyError>>,
}

impl<S> BoundedReplies<S> {
    pub(super) const fn new(stream: S, failed: Arc<OnceLock<ReplyError>>) -> Self {
        Self { stream, framing: Framing::new(), failed }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedReplies<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.get() {
            return Poll::Ready(Err(io::Error::other(*error)));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = &read
            && let Err(error) = self.framing.follow(buffer.filled().get(before..).unwrap_or_default())
        {
            let error = *self.failed.get_or_init(|| error);
            return Poll::Ready(Err(io::Error::other(error)));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedReplies<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A value on the wire, of each type that RESP3 has.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let text = proptest::collection::vec(any::<u8>(), 0..40);
        let one = prop_oneof![
            "[a-z\r ]{0,20}".prop_map(|line| format!("+{}\r\n", line.trim_end_matches('\r')).into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            Just(b"-WRONGTYPE Operation against\r\n".to_vec()),
            prop_oneof![
                Just("$-1"),
                Just("*-1"),
                Just("_"),
                Just("#t"),
                Just(",1.5"),
                Just("(123"),
                Just("*0")
            ]
            .prop_map(|line| format!("{line}\r\n").into_bytes()),
            (prop_oneof![Just('$'), Just('='), Just('!')], text).prop_map(|(kind, text)| {
                let text = if kind == '=' { [b"txt:".as_slice(), &text].concat() } else { text };
                [format!("{kind}{}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat()
            }),
        ];
        one.prop_recursive(4, 40, 6, |inner| {
            let kind = prop_oneof![Just(b'*'), Just(b'~'), Just(b'>'), Just(b'%'), Just(b'|')];
            (kind, proptest::collection::vec(inner, 1..6)).prop_map(|(kind, mut values)| {
                let announced = match kind {
                    b'%' => {
                        values.extend(values.clone());
                        values.len() / 2
                    }
                    b'|' => {
                        values.extend([values.clone(), vec![b":1\r\n".to_vec()]].concat());
                        values.len() / 2
                    }
                    b'>' => {
                        values.insert(0, b"+message\r\n".to_vec());
                        values.len()
                    }
                    _ => values.len(),
                };
                let kind = char::from(kind);
                [format!("{kind}{announced}\r\n").into_bytes(), values.concat()].concat()
            })
        })
    }

    fn follow(bytes: &[u8]) -> Result<Framing, ReplyError> {
        let mut framing = Framing::new();
        framing.follow(bytes).map(|()| framing)
    }

    proptest! {
        #[test]
        fn what_is_resp_passes_however_it_is_split_and_ends_where_it_ends(
            values in proptest::collection::vec(value(), 1..6),
            splits in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut framing = Framing::new();
            for value in &values {
                let mut at: Vec<usize> = splits.iter().map(|split| split.index(value.len())).collect();
                at.extend([0, value.len()]);
                at.sort_unstable();
                for piece in at.windows(2) {
                    prop_assert!(framing.bytes > 0 || piece[0] == 0, "it ended at {}", piece[0]);
                    prop_assert_eq!(framing.follow(&value[piece[0]..piece[1]]), Ok(()));
                }
                prop_assert_eq!(framing.bytes, 0, "it did not end");
                prop_assert!(framing.open.is_empty());
            }
        }

        /// Otherwise the library could read a length where none was seen here.
        #[test]
        fn a_value_ends_where_the_library_ends_it(
            value in value(),
            changed: prop::sample::Index,
            by in prop_oneof![Just(0), any::<u8>()],
            earlier: prop::sample::Index,
        ) {
            let mut sent = [value.clone(), b":1\r\n".to_vec()].concat();
            sent[changed.index(value.len())] ^= by;
            let mut framing = Framing::new();
            let mut end = None;
            for (at, byte) in sent.iter().enumerate() {
                if framing.follow(&[*byte]).is_err() {
                    return Ok(());
                }
                if framing.bytes == 0 {
                    end = Some(at + 1);
                    break;
                }
            }
            let library = |bytes: &[u8]| redis::parse_redis_value(bytes);
            let Some(end) = end else {
                prop_assert!(library(&sent).is_err(), "the library ends it earlier");
                return Ok(());
            };
            let whole = library(&sent[..end]);
            prop_assert!(whole.is_ok() || by != 0, "{whole:?}");
            prop_assert!(!whole.is_err_and(|error| error.is_io_error()), "the library ends it later");
            prop_assert!(library(&sent[..earlier.index(end)]).is_err(), "the library ends it earlier");
        }

        #[test]
        fn no_bytes_make_it_panic_or_pass_the_bound(bytes: Vec<u8>, tail in value()) {
            for bytes in [bytes.clone(), [bytes, tail].concat()] {
                if let Ok(framing) = follow(&bytes) {
                    prop_assert!(framing.bytes <= MAX_REPLY && framing.open.len() <= MAX_DEPTH);
                }
            }
        }
    }

    #[test]
    fn a_reply_fails_at_the_header_that_announces_too_much() {
        let long = format!("${MAX_REPLY}\r\n");
        let length = MAX_REPLY + long.len();
        assert_eq!(follow(long.as_bytes()).unwrap_err(), ReplyError::Length(length));
        for kind in ["$", "=", "!", ">2\r\n+message\r\n$", "*1\r\n*1\r\n$"] {
            let announced = format!("{kind}400000000\r\n");
            assert!(matches!(follow(announced.as_bytes()), Err(ReplyError::Length(400_000_000..))), "{kind}");
        }
        for kind in ["*", "~", ">", "%", "|", "*1\r\n*"] {
            let announced = format!("{kind}1000000000\r\n");
            assert!(
                matches!(follow(announced.as_bytes()), Err(ReplyError::Values(1_000_000_000..))),
                "{kind}"
            );
        }
        assert_eq!(follow("*1\r\n".repeat(MAX_DEPTH + 1).as_bytes()).unwrap_err(), ReplyError::Depth);
        let endless = ["+", &"x".repeat(MAX_REPLY)].concat();
        assert_eq!(follow(endless.as_bytes()).unwrap_err(), ReplyError::Length(MAX_REPLY + 1));
    }

    #[test]
    fn many_short_values_in_one_reply_count_together() {
        let text = format!("$100000\r\n{}\r\n", "x".repeat(100_000));
        assert!(follow(text.repeat(20).as_bytes()).is_ok(), "as replies of their own");
        let together = format!("*20\r\n{}", text.repeat(20));
        assert!(matches!(follow(together.as_bytes()), Err(ReplyError::Length(_))));
        let rows = ["*1000\r\n", &["*100\r\n", &":1\r\n".repeat(100)].concat().repeat(1_000)].concat();
        assert!(matches!(follow(rows.as_bytes()), Err(ReplyError::Values(_))));
    }

    #[test]
    fn a_header_that_the_library_might_read_otherwise_is_refused() {
        for odd in ["$ 5", "$+5", "$5 ", "$-2", "$", "$?", "%-1", ">-1", "=-1", "*1e3", "$\r5", "@1", "5"] {
            let sent = format!("{odd}\r\n");
            assert_eq!(follow(sent.as_bytes()).unwrap_err(), ReplyError::Malformed, "{odd}");
        }
        assert_eq!(follow(b"$1\r\nab\r\n").unwrap_err(), ReplyError::Malformed);
    }
}

//! An allow in one piece of memory: times and flags in front, then all texts, one after the other.
//!
//! There is one for each token in memory, so its size decides how many tokens the memory store holds.
//! Structures and lists would take three times as many bytes. Each answer is made from it without an
//! allocation: header values are slices that share the buffer, and their names are in the configuration.
//!
//! A text is UTF-8, which never has the bytes `c0`, `c1` and `f5` to `ff` (RFC 3629 §1). So such bytes mark
//! the end of a text ([`END`]) and, before it, its kind ([`Mark`]).

use std::ops::Range;

use bytes::Bytes;
use hyper::header::{HeaderValue, InvalidHeaderValue};

use crate::clock::Timestamp;
use crate::tiers::table::TierIndex;

/// After each text.
const END: u8 = 0xff;

/// The overhead of a buffer: its reference count, and the rounding of the allocator.
const BUFFER_OVERHEAD: usize = 48;

/// The kind of a text that a route requirement may check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mark {
    /// `act`: somebody acts for the user. The text is empty.
    Actor = 0xc1,
    /// A requirement of a claim or of the issuer, after `+` if it is met, and `-` if not.
    Claim = 0xf5,
    /// How the user logged in.
    Acr,
    /// When the user logged in, in seconds since 1970.
    AuthTime,
    Email,
    Scope,
    Permission,
    Role,
    Org,
    /// The token's binding: `k` and the thumbprint of a key, `c` and the thumbprint of a certificate, or `i`
    /// if the binding is ignored.
    Binding,
}

/// The flags of an allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Flag {
    Stale = 1,
    FromUserinfo = 1 << 1,
    EmailEncoded = 1 << 2,
    EmailVerified = 1 << 3,
    AudienceChecked = 1 << 4,
    /// There are texts with [`Mark::Binding`].
    HasBinding = 1 << 5,
    /// The token's header says `typ: at+jwt`.
    AtJwt = 1 << 6,
    /// The claims are the token's own.
    OwnClaims = 1 << 7,
}

/// The head, before the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) verified_at: Timestamp,
    pub(super) serve_from: Timestamp,
    pub(super) serve_until: Timestamp,
    pub(super) tier: TierIndex,
    flags: u8,
}

impl Head {
    const LENGTH: usize = 26;

    pub(super) const fn new(verified_at: Timestamp, serve: Range<Timestamp>, tier: TierIndex) -> Self {
        Self { verified_at, serve_from: serve.start, serve_until: serve.end, tier, flags: 0 }
    }

    /// With this flag set, if `so`.
    pub(super) const fn with(self, flag: Flag, so: bool) -> Self {
        Self { flags: if so { self.flags | flag as u8 } else { self.flags }, ..self }
    }

    /// Whether the flag is set.
    pub(super) const fn is(self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.verified_at.as_millis().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.serve_from.as_millis().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.serve_until.as_millis().to_le_bytes());
        bytes[24..].copy_from_slice(&[self.tier.to_byte(), self.flags]);
        bytes
    }

    fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        let [times @ .., tier, flags] = bytes;
        let mut times =
            times.as_chunks().0.iter().map(|time| Timestamp::from_millis(u64::from_le_bytes(*time)));
        let mut time = || times.next().unwrap_or_default();
        Self {
            verified_at: time(),
            serve_from: time(),
            serve_until: time(),
            tier: TierIndex::from_byte(tier),
            flags,
        }
    }
}

/// Head and texts. Clones share them.
#[derive(Clone)]
pub(super) struct Packed(Bytes);

/// Collects the texts: first all that are header values, in the order of the names, then all others.
pub(super) struct Packing(Vec<u8>);

impl Packing {
    /// No texts yet.
    pub(super) fn new() -> Self {
        Self(vec![0; Head::LENGTH])
    }

    /// Adds the value of the next header, which route requirements may check as well.
    pub(super) fn header(&mut self, text: &str, mark: Option<Mark>) -> Result<(), InvalidHeaderValue> {
        HeaderValue::from_bytes(text.as_bytes())?;
        self.0.extend(mark.map(|mark| mark as u8));
        self.push(text);
        Ok(())
    }

    /// Adds a text that is not a header value.
    pub(super) fn fact(&mut self, text: &str, mark: Mark) {
        self.0.push(mark as u8);
        self.push(text);
    }

    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(END);
    }

    /// Finishes it with this head.
    pub(super) fn finish(mut self, head: Head) -> Packed {
        self.0[..Head::LENGTH].copy_from_slice(&head.to_bytes());
        let bytes = Bytes::from(self.0.into_boxed_slice());
        // The first clone moves the bytes under a reference count. Done here, so that answers allocate
        // nothing.
        drop(bytes.clone());
        Packed(bytes)
    }
}

impl Packed {
    /// The head.
    pub(super) fn head(&self) -> Head {
        // There always is a head. Without it, no flag would be set and the answer would be expired.
        Head::from_bytes(self.0.first_chunk().copied().unwrap_or_default())
    }

    /// All header values, followed by the other texts. Zip it with the list of names, which ends it.
    pub(super) fn header_values(&self) -> impl Iterator<Item = HeaderValue> + '_ {
        self.texts().map(|text| {
            let value = match text {
                [first, value @ ..] if *first == Mark::Email as u8 => value,
                value => value,
            };
            // It was valid when it was packed; even an empty one would keep out a client's own header.
            HeaderValue::from_maybe_shared(self.0.slice_ref(value))
                .unwrap_or(const { HeaderValue::from_static("") })
        })
    }

    /// The texts with this mark.
    pub(super) fn marked(&self, mark: Mark) -> impl Iterator<Item = &[u8]> {
        self.texts().filter_map(move |text| text.strip_prefix(&[mark as u8]))
    }

    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.get(Head::LENGTH..).unwrap_or_default().split(|byte| *byte == END)
    }

    /// About how many bytes it takes besides its own size.
    pub(super) fn weight(&self) -> usize {
        BUFFER_OVERHEAD + self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head::new(
        Timestamp::from_millis(1),
        Timestamp::from_millis(2)..Timestamp::from_millis(u64::MAX),
        TierIndex::YOUNGEST,
    );

    #[test]
    fn each_text_comes_out_at_its_own_place_whatever_it_is() {
        let long = "x".repeat(3_000);
        for values in
            [["a", "b", "c", "primary"], ["", "", "", ""], ["", "b\tb", "ü", "x"], [&long, "", &long, "t"]]
        {
            for marked in 0..values.len() {
                let mut packing = Packing::new();
                for (number, value) in values.iter().enumerate() {
                    packing.header(value, (number == marked).then_some(Mark::Email)).unwrap();
                }
                packing.fact("a\n\0b", Mark::Role);
                packing.fact("", Mark::Scope);
                packing.fact("ÿ\u{10ffff}", Mark::Role);
                let packed = packing.finish(HEAD);
                let found: Vec<_> = packed.header_values().take(values.len()).collect();
                assert_eq!(found, values.map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap()));
                assert!(packed.marked(Mark::Email).eq([values[marked].as_bytes()]));
                assert!(packed.marked(Mark::Role).eq(["a\n\0b".as_bytes(), "ÿ\u{10ffff}".as_bytes()]));
                assert!(packed.marked(Mark::Scope).eq([b""]));
                assert_eq!(packed.marked(Mark::Org).count(), 0);
            }
        }
    }

    #[test]
    fn the_head_comes_out_as_it_went_in() {
        for tier in [0, 1, 31, u8::MAX] {
            let head = Head { tier: TierIndex::from_byte(tier), ..HEAD }
                .with(Flag::Stale, true)
                .with(Flag::AudienceChecked, true)
                .with(Flag::EmailVerified, false);
            let found = Packing::new().finish(head).head();
            assert_eq!(found, head);
            let flags = [
                Flag::Stale,
                Flag::FromUserinfo,
                Flag::EmailEncoded,
                Flag::EmailVerified,
                Flag::AudienceChecked,
            ];
            assert_eq!(flags.map(|flag| found.is(flag)), [true, false, false, false, true]);
        }
    }

    #[test]
    fn what_is_no_header_value_cannot_be_packed_as_one() {
        for text in ["a\nb", "\n", "a\r", "\0", "\u{7f}"] {
            assert!(Packing::new().header(text, None).is_err(), "{text:?}");
        }
    }
}

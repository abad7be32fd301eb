//! The headers of an allow, packed: one buffer for all values, and names that every answer of a configuration shares.
//!
//! There is one for each token in memory, so its size decides how many tokens the memory store remembers. As a list of
//! names and values it took five times the bytes that have to be kept; names and values are made of it anew for each
//! answer, which allocates nothing.

use std::iter;
use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, InvalidHeaderValue};

use super::{EMAIL_ENCODING, SOURCE, TIER};
use crate::config::HeaderRule;
use crate::tiers::record::IdentitySource;

/// After each value: no header value has it (RFC 9110 §5.5).
const TERMINATOR: u8 = b'\n';

/// What a buffer takes besides its bytes: its reference count, and what the allocator rounds up.
const BUFFER_OVERHEAD: usize = 48;

/// The headers of an allow, but for the age.
#[derive(Debug)]
pub(super) struct PackedHeaders {
    rules: Arc<[HeaderRule]>,
    /// A value for each rule, then the tier.
    values: Bytes,
    source: IdentitySource,
    email_encoded: bool,
}

/// Collects the values.
pub(super) struct Packing {
    values: Vec<u8>,
}

impl Packing {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self { values: Vec::new() }
    }

    /// Adds the value of the next header.
    pub(super) fn push(&mut self, text: &str) -> Result<(), InvalidHeaderValue> {
        HeaderValue::from_bytes(text.as_bytes())?;
        self.values.extend_from_slice(text.as_bytes());
        self.values.push(TERMINATOR);
        Ok(())
    }

    /// With values for these rules, and one for the tier.
    pub(super) fn finish(
        self,
        rules: &Arc<[HeaderRule]>,
        source: IdentitySource,
        email_encoded: bool,
    ) -> PackedHeaders {
        let values = Bytes::from(self.values.into_boxed_slice());
        // The first clone moves the bytes under a reference count. Done here, so that answers allocate nothing.
        drop(values.clone());
        PackedHeaders { rules: rules.clone(), values, source, email_encoded }
    }
}

impl PackedHeaders {
    /// Names and values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
        let names = self.rules.iter().map(|rule| rule.name.clone()).chain(iter::once(TIER));
        let values = self.values.split(|byte| *byte == TERMINATOR).map(|value| {
            // It was one when it was packed; an empty one would still keep a client's own header out.
            HeaderValue::from_maybe_shared(self.values.slice_ref(value))
                .unwrap_or(const { HeaderValue::from_static("") })
        });
        let encoding = if self.email_encoded { "percent" } else { "none" };
        let encoding = (EMAIL_ENCODING, HeaderValue::from_static(encoding));
        let source = (SOURCE, HeaderValue::from_static(self.source.name()));
        names.zip(values).chain([encoding, source])
    }

    /// About how many bytes it takes besides its own size.
    pub(super) fn weight(&self) -> usize {
        BUFFER_OVERHEAD + self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, Source};

    fn rules() -> Arc<[HeaderRule]> {
        let text = "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[headers]\nX-Third = \"third\"\n";
        Settings::read(&Source::text("test.toml", text)).unwrap().headers
    }

    #[test]
    fn each_value_comes_out_under_its_own_name_whatever_it_is() {
        let rules = rules();
        let long = "x".repeat(3_000);
        for values in
            [["a", "b", "c", "primary"], ["", "", "", ""], ["", "b\tb", "ü", "x"], [&long, "", &long, "t"]]
        {
            let mut packing = Packing::new();
            values.iter().for_each(|value| packing.push(value).unwrap());
            let headers = packing.finish(&rules, IdentitySource::Userinfo, false);
            let names = rules.iter().map(|rule| rule.name.as_str()).chain([
                "x-auth-tier",
                "x-user-email-encoding",
                "x-auth-source",
            ]);
            let expected: Vec<_> = names.zip(values.into_iter().chain(["none", "userinfo"])).collect();
            let found: Vec<_> = headers.iter().collect();
            let found: Vec<_> = found
                .iter()
                .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).unwrap()))
                .collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_header_value_cannot_be_packed() {
        for text in ["a\nb", "\n", "a\r", "\0", "\u{7f}"] {
            assert!(Packing::new().push(text).is_err(), "{text:?}");
        }
    }
}

//! Header values for small numbers, made once.
//!
//! Each answer contains its age in seconds, and formatting a number into a header value allocates. All ages
//! of the primary tier are therefore digits of one shared buffer, of which a value is a slice.

use bytes::Bytes;
use hyper::header::HeaderValue;

/// Ages below this are prepared: a little more than the primary tier's four hours.
const READY: u64 = 16_384;

/// Digits of the largest prepared number.
const WIDTH: usize = 5;

/// The prepared values.
pub struct Ages(Bytes);

impl Ages {
    /// Prepares them: 80 KiB.
    #[must_use]
    pub fn new() -> Self {
        let digits: String = (0..READY).map(|number| format!("{number:0WIDTH$}")).collect();
        Self(Bytes::from(digits))
    }

    /// `number` as a header value. Below four hours nothing is allocated.
    #[must_use]
    pub fn value(&self, number: u64) -> HeaderValue {
        let place = usize::try_from(number).ok().filter(|_| number < READY);
        let ready = place.and_then(|place| {
            let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1);
            let end = (place + 1) * WIDTH;
            HeaderValue::from_maybe_shared(self.0.slice(end - digits..end)).ok()
        });
        ready.unwrap_or_else(|| HeaderValue::from(number))
    }
}

impl Default for Ages {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_reads_as_itself() {
        let ages = Ages::new();
        for number in (0..READY + 10).chain([100_000, u64::MAX]) {
            assert_eq!(ages.value(number).to_str().unwrap(), number.to_string());
        }
    }
}

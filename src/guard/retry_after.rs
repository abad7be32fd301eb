//! How long the issuer asks us to wait: `Retry-After` (RFC 9110 §10.2.3) and `X-RateLimit-Reset`.
//!
//! Both come from the network and may be absurd, so everything read here ends up between [`SHORTEST`] and
//! [`LONGEST`]: a "wait 0" must not make us call without pause, a "wait a year" must not stop calls for a
//! year. An unreadable value is `None`, and the breaker then falls back to its own waiting times. Dates are
//! compared with a `now` that is passed in, because a parser that reads the machine's clock can hardly be
//! tested.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Timestamp;

/// The shortest wait that is believed.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// The longest wait that is believed.
pub const LONGEST: Duration = Duration::from_secs(5 * 60);

/// Clamps a wait to this range.
#[must_use]
pub fn bounded(wait: Duration) -> Duration {
    wait.clamp(SHORTEST, LONGEST)
}

/// How long a 429 asks us to wait: `Retry-After` if it can be read, else `X-RateLimit-Reset`.
#[must_use]
pub fn hold(retry_after: Option<&str>, reset: Option<&str>, now: Timestamp) -> Option<Duration> {
    retry_after
        .and_then(|value| from_retry_after(value, now))
        .or_else(|| reset.and_then(|value| from_reset(value, now)))
}

/// Reads the value of `Retry-After`: seconds, or an HTTP-date (RFC 9110 §5.6.7, all three forms). A date that
/// has passed is [`SHORTEST`].
#[must_use]
pub fn from_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = trimmed(value);
    if let Some(seconds) = digits(value) {
        return Some(bounded(Duration::from_secs(seconds)));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(bounded(Timestamp::from_secs(date.as_secs()).since(now)))
}

/// Reads the value of `X-RateLimit-Reset`: seconds since the Unix epoch. A time that has passed is
/// [`SHORTEST`].
#[must_use]
pub fn from_reset(value: &str, now: Timestamp) -> Option<Duration> {
    digits(trimmed(value)).map(|seconds| bounded(Timestamp::from_secs(seconds).since(now)))
}

/// Reads the value of `X-RateLimit-Limit` or `X-RateLimit-Remaining`: a number of calls. What is too large
/// for the type is its maximum.
#[must_use]
pub fn calls(value: &str) -> Option<u32> {
    digits(trimmed(value)).map(|calls| u32::try_from(calls).unwrap_or(u32::MAX))
}

/// Optional whitespace around a field value (RFC 9110 §5.6.3) is space and tab, nothing else.
fn trimmed(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// `1*DIGIT` and nothing else: `str::parse` alone would also take a sign. Too many digits saturate.
fn digits(value: &str) -> Option<u64> {
    let all_digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    all_digits.then(|| value.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110 §5.6.7.
    const NOW: Timestamp = Timestamp::from_secs(784_111_777);

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn retry_after_is_read_as_seconds() {
        assert_eq!(from_retry_after("120", NOW), seconds(120));
        assert_eq!(from_retry_after(" 7\t", NOW), seconds(7));
    }

    #[test]
    fn retry_after_is_read_as_a_date_in_all_three_forms() {
        assert_eq!(from_retry_after("Sun, 06 Nov 1994 08:50:37 GMT", NOW), seconds(60));
        assert_eq!(from_retry_after("Sunday, 06-Nov-94 08:50:37 GMT", NOW), seconds(60));
        assert_eq!(from_retry_after("Sun Nov  6 08:50:37 1994", NOW), seconds(60));
    }

    #[test]
    fn the_reset_is_read_as_epoch_seconds() {
        assert_eq!(from_reset("784111790", NOW), seconds(13));
    }

    #[test]
    fn absurd_values_are_bounded() {
        for value in ["0", "00", "Sun, 06 Nov 1994 08:49:36 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(from_retry_after(value, NOW), Some(SHORTEST), "{value}");
        }
        let endless = "9".repeat(400);
        for value in ["301", "18446744073709551616", &endless, "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(from_retry_after(value, NOW), Some(LONGEST), "{value}");
        }
        assert_eq!(from_reset("0", NOW), Some(SHORTEST));
        assert_eq!(from_reset("784111777000", NOW), Some(LONGEST));
        assert_eq!(from_reset(&endless, Timestamp::MAX), Some(SHORTEST));
    }

    #[test]
    fn garbage_is_no_wait_at_all() {
        for value in ["", " ", "soon", "-5", "+5", "1.5", "5 s", "5,6", "٣", "Sun, 31 Feb 1994 08:49:37 GMT"]
        {
            assert_eq!(from_retry_after(value, NOW), None, "{value}");
            assert_eq!(from_reset(value, NOW), None, "{value}");
        }
    }

    #[test]
    fn retry_after_goes_before_the_reset_unless_it_cannot_be_read() {
        assert_eq!(hold(Some("5"), Some("784111790"), NOW), seconds(5));
        assert_eq!(hold(Some("soon"), Some("784111790"), NOW), seconds(13));
        assert_eq!(hold(None, Some("784111790"), NOW), seconds(13));
        assert_eq!(hold(None, None, NOW), None);
    }

    #[test]
    fn numbers_of_calls_saturate() {
        assert_eq!(calls("10"), Some(10));
        assert_eq!(calls("99999999999"), Some(u32::MAX));
        assert_eq!(calls("-1"), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_it_is_nothing_or_within_bounds(value in ".*", now in any::<u64>()) {
            let now = Timestamp::from_millis(now);
            for wait in [from_retry_after(&value, now), from_reset(&value, now)].into_iter().flatten() {
                prop_assert!((SHORTEST..=LONGEST).contains(&wait));
            }
        }

        #[test]
        fn a_written_date_is_read_back(now in 0_u64..4_000_000_000, ahead in 1_u64..=300) {
            let date = UNIX_EPOCH + Duration::from_secs(now + ahead);
            let value = httpdate::fmt_http_date(date);
            prop_assert_eq!(from_retry_after(&value, Timestamp::from_secs(now)), seconds(ahead));
        }
    }
}

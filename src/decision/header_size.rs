//! The size limit of the identity's headers in an answer.
//!
//! nginx reads an answer's head into one buffer of 4 KiB (`proxy_buffer_size`). It treats a longer one as an
//! error of the auth server: the user gets a 500 or 503 as long as the token lives, without a reason. So no
//! such answer is sent: the user is refused, and the log names the longest header.

use hyper::header::HeaderName;

use super::header_rule::HeaderRule;
use super::unmet::Unmet;

/// Counts the lines of an answer.
pub(super) struct HeaderSize<'n> {
    taken: usize,
    longest: Option<(usize, &'n HeaderName)>,
}

impl<'n> HeaderSize<'n> {
    /// The room that is left after the lines that are always present.
    pub(super) fn less(name: &HeaderName, value: &str) -> Self {
        Self { taken: HeaderRule::line_bytes(name, value), longest: None }
    }

    /// Subtracts the length of a line.
    pub(super) fn take(&mut self, name: &'n HeaderName, value: &str) {
        let bytes = HeaderRule::line_bytes(name, value);
        self.taken += bytes;
        if self.longest.is_none_or(|(longest, _)| bytes > longest) {
            self.longest = Some((bytes, name));
        }
    }

    /// Whether there was enough.
    pub(super) fn check(&self) -> Result<(), Unmet> {
        match self.longest {
            Some((_, longest)) if self.taken > HeaderRule::MAX_BYTES => {
                Err(Unmet::TooLarge { bytes: self.taken, longest: longest.clone() })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{identity, pass};
    use super::*;

    #[test]
    fn an_answer_that_would_be_too_large_for_a_proxy_is_a_no() {
        let rows = "X-A = \"a\"\nX-B = \"b\"\nX-C = \"c\"\nX-D = \"d\"";
        let known = ["x-user-email: a@x.org\r\n", "x-user-id: auth0|a\r\n", "x-auth-tier: primary\r\n"];
        let others = known.map(str::len).iter().sum::<usize>() + 4 * "x-a: \r\n".len();
        let rest = HeaderRule::MAX_BYTES - others - 2 * 1024 - 700;
        for (more, encoded, fits) in [(0, false, true), (1, false, false), (0, true, false)] {
            let text = |length: usize| if encoded { "ü".repeat(length / 2) } else { "d".repeat(length) };
            let claims = serde_json::json!({
                "a": text(1024), "b": text(1024), "c": "c".repeat(700), "d": "d".repeat(rest + more),
            });
            let who = identity(&claims.to_string());
            match pass(&who, rows) {
                Ok(_) => assert!(fits, "{more} {encoded}"),
                Err(Unmet::TooLarge { bytes, longest }) => {
                    assert!(!fits && bytes > HeaderRule::MAX_BYTES, "{more} {encoded}: {bytes}");
                    assert_eq!(longest, "x-a");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

//! Changing what an example says into what a test needs.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};

/// `text` with `to` in place of `from`. A number is replaced only as a whole: a free port such as 41915
/// begins with 4191, and may already be there in place of something else.
pub fn changed(text: &str, from: &str, to: &str) -> String {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let ends_in_digit = from.as_bytes().last().is_some_and(is_digit);
    let (mut changed, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once(from) {
        let goes_on = ends_in_digit && after.as_bytes().first().is_some_and(is_digit);
        changed.push_str(before);
        changed.push_str(if goes_on { from } else { to });
        rest = after;
    }
    changed + rest
}

/// A loopback address that no other test of this machine has.
pub fn loopback() -> Ipv4Addr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, GIVEN.fetch_add(1, Ordering::Relaxed))
}

//! Changing what an example says into what a test needs.

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

//! The name of a group of this machine → its number.
//!
//! Names are looked up in `/etc/group` alone. A group of a directory service is given by its number, because
//! a lookup there needs the C library, and so `unsafe`.

use std::fs;

/// The number of a group, given by name or number.
pub(super) fn id(text: &str) -> Result<u32, String> {
    let allowed = || "the name of a group in /etc/group, or the number of a group".to_owned();
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").map_err(|_| allowed())?;
    find(&groups, text).ok_or_else(allowed)
}

/// `group(5)`: `name:password:number:members`, a line each.
fn find(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nwww-data:x:33:alice,bob\nbroken\nodd:x:many:\n";
        for (name, found) in [("root", Some(0)), ("www-data", Some(33)), ("www", None), ("", None)] {
            assert_eq!(find(groups, name), found, "{name}");
        }
        for name in ["broken", "odd", "alice"] {
            assert_eq!(find(groups, name), None, "{name}");
        }
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(id("4242"), Ok(4242));
        assert_eq!(id("root"), Ok(0));
        assert!(id("no such group").is_err_and(|allowed| allowed.contains("/etc/group")));
    }
}

//! The marks by which an example says what else it can do: `[with rules]`, `[not with rules, login]`.
//!
//! A test does what the example tells its reader to do. It uncomments the lines below a `[with …]`, up to the
//! first line that is not a comment; and it removes the lines below a `[not with …]`, up to a blank line, or
//! to another mark that is not indented further. Either ends at a line that is indented less than its mark.

/// What is done with the lines below a mark.
#[derive(Clone, Copy)]
enum Below {
    Kept,
    Uncommented,
    Gone,
}

/// The example with these options.
pub fn with(options: &[&str], text: &str) -> String {
    let (mut changed, mut below, mut outer) = (String::new(), Below::Kept, 0);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let comment = ["# ", "-- "].iter().find_map(|sign| line.trim_start().strip_prefix(sign));
        if line.trim().is_empty() || indent < outer {
            (below, outer) = (Below::Kept, 0);
        }
        let is_within = matches!(below, Below::Gone) && indent > outer;
        if let Some((mark, names)) = comment.and_then(mark).filter(|_| !is_within) {
            let named = names.split(", ").any(|name| options.contains(&name));
            below = match mark {
                "[with " if named => Below::Uncommented,
                "[not with " if named => Below::Gone,
                _ => Below::Kept,
            };
            outer = indent;
            continue;
        }
        let line = match (below, comment) {
            (Below::Gone, _) => continue,
            (Below::Uncommented, Some(code)) => format!("{}{code}", &line[..indent]),
            (Below::Uncommented, None) => {
                below = Below::Kept;
                line.to_owned()
            }
            (Below::Kept, _) => line.to_owned(),
        };
        changed += &(line + "\n");
    }
    changed
}

/// A mark at the beginning of a comment, and the names in it.
fn mark(comment: &str) -> Option<(&'static str, &str)> {
    let marks = ["[with ", "[not with "].into_iter();
    let mut marked = marks.filter_map(|mark| Some((mark, comment.strip_prefix(mark)?.split_once(']')?.0)));
    marked.next()
}

#[test]
fn a_marked_example_becomes_what_its_marks_say() {
    let text = "\
a
  # [with x, y] Why.
  # b 1
  # [with z]
  # b 2
c
# [not with x] Why,
# and why.
d
  # [with x]
  # d 1

e # [with x]
# f
    # [not with x]
    g
    # [with x]
    #   h
    -- i
  # j
  # [not with x]
  k
}
";
    assert_eq!(with(&["x"], text), "a\n  b 1\n  # b 2\nc\n\ne # [with x]\n# f\n      h\n    i\n  # j\n}\n");
    assert_eq!(
        with(&["other"], text),
        "a\n  # b 1\n  # b 2\nc\n# and why.\nd\n  # d 1\n\ne # [with x]\n# f\n    g\n    #   h\n    -- i\n  # j\n  k\n}\n"
    );
}

//! The value of a header row for an identity, and how it is written in a header.
//!
//! Different claims give different values: everything but visible ASCII is percent-encoded as UTF-8, and so
//! is `%` itself. So a backend that percent-decodes a value has the claim, and a backend that compares
//! encoded values never confuses two users. Blanks at the ends, which HTTP would cut off, are encoded too, so
//! that no value arrives empty. In a list that is joined, the character between the items is encoded in each
//! of them, so that a backend that splits and decodes has the list.
//!
//! Only `X-User-Email` keeps its `%` if nothing needs encoding, because another header says
//! whether it is encoded.

use serde_json::Value;

use super::header_rule::{HeaderRule, WhenAbsent};
use super::names::EMAIL;
use super::unmet::Unmet;
use crate::identity::Identity;
use crate::token::email::{for_header, percent_encoded};
use crate::token::lenient;

/// The value of a header.
pub(super) struct HeaderText {
    pub(super) text: String,
    /// Whether it is the identity's email, unchanged.
    pub(super) is_plain_email: bool,
    /// Whether `X-User-Email-Encoding` must say that it is encoded.
    pub(super) is_encoded_email: bool,
}

impl HeaderText {
    /// The value of `rule` for `identity`.
    pub(super) fn new(identity: &Identity, rule: &HeaderRule) -> Result<Self, Unmet> {
        let is_email = rule.claim.is_member("email") && identity.email.is_some();
        let (text, encoded) = match (claim(identity, rule), &rule.absent) {
            (Some(text), _) if rule.name == EMAIL => for_header(&text),
            // Its items are encoded already.
            (Some(text), _) if rule.join.is_some() => (text, false),
            (Some(text), _) => (percent_encoded(&text), false),
            (None, WhenAbsent::Default(text)) => (text.clone(), false),
            (None, WhenAbsent::Refuse) if identity.email_not_allowed && rule.claim.is_member("email") => {
                return Err(Unmet::EmailNotAllowed);
            }
            (None, WhenAbsent::Refuse) => return Err(Unmet::Header(rule.name.clone())),
        };
        let is_plain_email = is_email && identity.email.as_ref().is_some_and(|email| email.as_str() == text);
        Ok(Self { text, is_plain_email, is_encoded_email: encoded })
    }
}

/// The claim of a row. Numbers and booleans are written as in JSON; lists and objects count as absent.
fn claim(identity: &Identity, rule: &HeaderRule) -> Option<String> {
    if rule.claim.is_member("email") {
        return identity.email.as_ref().map(|email| email.as_str().to_owned());
    }
    if rule.claim.is_member("sub") {
        return Some(identity.subject.clone());
    }
    // The issuer as configured: an `iss` in the answer of `/userinfo` is not checked.
    if rule.claim.is_member("iss") {
        return Some(identity.issuer.to_string());
    }
    // The one that belongs to the sent email, which may be in another place than a claim of this name.
    if rule.claim.is_member("email_verified") {
        return identity.email_verified.map(|verified| verified.to_string());
    }
    if rule.claim.is_member("name") && !identity.claims.contains_key("name") {
        return identity.name.clone().filter(|name| fits(name));
    }
    if let Some(join) = rule.join {
        return joined(rule.claim.values(&identity.claims), join);
    }
    let text = lenient::scalar(rule.claim.value(&identity.claims)?)?;
    fits(&text).then(|| text.into_owned())
}

/// All items of all lists, each percent-encoded, the character between them as well; `None` if there are
/// none. The length of the whole is limited by that of the answer.
fn joined<'c>(lists: impl Iterator<Item = &'c Value>, join: char) -> Option<String> {
    let encoded = format!("%{:02X}", u32::from(join));
    let items = lists.flat_map(lenient::scalars).filter(|item| !item.is_empty());
    let items = items.map(|item| percent_encoded(&item).replace(join, &encoded));
    items.reduce(|all, item| format!("{all}{join}{item}"))
}

fn fits(text: &str) -> bool {
    (1..=1024).contains(&text.len())
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::tests::{NOW, header, identity, pass};
    use super::super::{Unmet, in_query};
    use crate::tiers::table::TierTable;
    use crate::token::email::Email;
    use crate::token::json;

    #[test]
    fn no_two_claims_are_written_alike_and_none_begins_or_ends_in_a_blank() {
        let rows = "X-N = \"n\"\nX-Mail = \"email\"";
        for (claim, value) in [
            ("auth0|5f7c8ec7c33c6c004bbafe82", "auth0|5f7c8ec7c33c6c004bbafe82"),
            ("samlp|acme|alice@example.com", "samlp|acme|alice@example.com"),
            ("auth0|aü", "auth0|a%C3%BC"),
            ("auth0|a%C3%BC", "auth0|a%25C3%25BC"),
            ("auth0|a%25C3%25BC", "auth0|a%2525C3%2525BC"),
            ("100%", "100%25"),
            (" ", "%20"),
            ("\t", "%09"),
            (" a b ", "%20a%20b%20"),
            ("\u{a0}", "%C2%A0"),
        ] {
            let mut who = identity("{}");
            who.claims = json::object(serde_json::json!({ "n": claim }).to_string().as_bytes()).unwrap();
            who.subject = claim.to_owned();
            let pass = pass(&who, rows).unwrap();
            assert_eq!(header(&pass, rows, "x-n").as_deref(), Some(value));
            assert_eq!(header(&pass, rows, "x-user-id").as_deref(), Some(value));
        }
        let mut who = identity(r#"{"n":"x"}"#);
        who.email = Email::parse("a%C3%BC@x.org");
        let pass = pass(&who, rows).unwrap();
        assert_eq!(header(&pass, rows, "x-mail").as_deref(), Some("a%25C3%25BC@x.org"));
        assert_eq!(header(&pass, rows, "x-user-email").as_deref(), Some("a%C3%BC@x.org"));
        assert_eq!(header(&pass, rows, "x-user-email-encoding").as_deref(), Some("none"));
        assert_eq!(pass.meets(in_query("email=a%25C3%25BC@x.org"), &TierTable::default(), NOW), Ok(()));
    }

    #[test]
    fn the_encoding_is_that_of_x_user_email_whatever_claim_it_shows() {
        let who = identity(r#"{"nickname":"jürgen","plain":"50%"}"#);
        for (claim, value, encoding) in
            [("nickname", "j%C3%BCrgen", "percent"), ("plain", "50%", "none"), ("email", "a@x.org", "none")]
        {
            let rows = format!("X-User-Email = \"{claim}\"\nX-Nickname = \"nickname\"");
            let pass = pass(&who, &rows).unwrap();
            assert_eq!(header(&pass, &rows, "x-user-email").as_deref(), Some(value));
            assert_eq!(header(&pass, &rows, "x-user-email-encoding").as_deref(), Some(encoding));
            assert_eq!(pass.meets(in_query("email=a@x.org"), &TierTable::default(), NOW), Ok(()));
        }
    }

    #[test]
    fn a_list_comes_out_of_its_header_as_it_went_in() {
        let who = identity(
            r#"{"list":["read:a","a,b","50%","\u00fc"," x ","",null,["deep"],{"a":1},7,true],"one":"a b,c",
                "none":[],"odd":[null,{}],"object":{"a":1},"https://a/roles":["x"],"https://b/roles":["y"]}"#,
        );
        for (row, expected) in [
            ("claim = \"list\", join = \",\"", "read:a,a%2Cb,50%25,%C3%BC,%20x%20,7,true"),
            ("claim = \"list\", join = \"|\"", "read:a|a,b|50%25|%C3%BC|%20x%20|7|true"),
            ("claim = \"list\", join = \" \"", "read:a a,b 50%25 %C3%BC %20x%20 7 true"),
            ("claim = \"list\", join = \":\"", "read%3Aa:a,b:50%25:%C3%BC:%20x%20:7:true"),
            ("claim = \"one\", join = \",\"", "a%20b%2Cc"),
            ("claim = \"*/roles\", join = \",\"", "x,y"),
            ("claim = \"none\", join = \",\", default = \"-\"", "-"),
            ("claim = \"odd\", join = \",\", default = \"-\"", "-"),
            ("claim = \"object\", join = \",\", default = \"-\"", "-"),
            ("claim = \"list\", default = \"-\"", "-"),
        ] {
            let rows = format!("X-List = {{ {row} }}");
            let value = header(&pass(&who, &rows).unwrap(), &rows, "x-list");
            assert_eq!(value.as_deref(), Some(expected), "{row}");
        }
        let rows = "X-List = { claim = \"none\", join = \",\" }";
        assert!(matches!(pass(&who, rows), Err(Unmet::Header(name)) if name == "x-list"));
        let many = identity(&serde_json::json!({ "list": vec!["x".repeat(50); 80] }).to_string());
        let rows = "X-List = { claim = \"list\", join = \",\" }";
        assert!(matches!(pass(&many, rows), Err(Unmet::TooLarge { longest, .. }) if longest == "x-list"));
    }

    proptest! {
        #[test]
        fn any_list_comes_out_as_it_went_in(list in vec("\\PC{1,9}|[ -~]{1,9}|(?s).{1,9}", 1..9)) {
            let mut who = identity("{}");
            who.claims = json::object(serde_json::json!({ "list": list }).to_string().as_bytes()).unwrap();
            let rows = "X-List = { claim = \"list\", join = \",\" }";
            let value = header(&pass(&who, rows).unwrap(), rows, "x-list").unwrap();
            let items = value.split(',').map(|item| percent_decode_str(item).decode_utf8().unwrap());
            prop_assert_eq!(items.collect::<Vec<_>>(), list);
        }

        #[test]
        fn a_claim_comes_out_of_its_header_as_it_went_in(claim in "\\PC{1,40}|[ -~]{1,40}|(?s).{1,40}") {
            let mut who = identity("{}");
            who.subject = claim.clone();
            let value = header(&pass(&who, "").unwrap(), "", "x-user-id").unwrap();
            prop_assert!(!value.is_empty() && value.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            prop_assert_eq!(percent_decode_str(&value).decode_utf8().unwrap(), claim);
        }
    }
}

//! Which requirements of claims, and of the issuer, an answer can tell.
//!
//! An answer in memory holds neither the claims of its token nor its issuer. It holds, for each such
//! requirement that routes have asked this token for, whether it is met. So the memory of an answer depends
//! on the routes that the token is used on, and not on the token; other answers take no more memory than
//! without such requirements. A token that comes to a route with another such requirement is judged once
//! more.

use super::packed::{Flag, Mark, Packed, Packing};
use crate::identity::Identity;
use crate::route::Required;
use crate::route::requirement::{MAX_CLAIMS, claim};
use crate::token::{lenient, pointer};

const MET: char = '+';
const UNMET: char = '-';

/// The longest issuer that can be asked for, in bytes.
const MAX_ISSUER: usize = 2048;

/// The requirements of claims and of the issuer that a new answer is to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimsAsked(Vec<String>);

impl ClaimsAsked {
    /// Those of the route, and those that the answer before could tell, as far as there is room.
    pub(super) fn new(required: &Required<'_>, before: Option<&Packed>) -> Self {
        let mut asked = Vec::new();
        let mut add = |text: &str, room: usize| {
            if asked.len() < room && is_askable(text) && !asked.iter().any(|own| own == text) {
                asked.push(text.to_owned());
            }
        };
        required.each_claim(|text| add(text, 2 * MAX_CLAIMS));
        let told = before.into_iter().flat_map(|packed| packed.marked(Mark::Claim));
        let told = told.filter_map(|told| std::str::from_utf8(told.get(1..)?).ok());
        told.for_each(|text| add(text, MAX_CLAIMS));
        Self(asked)
    }

    /// Packs whether each is met. Of a token whose claims are not known, no claim is.
    pub(super) fn pack(&self, identity: &Identity, packing: &mut Packing) {
        for text in &self.0 {
            let is_met = match claim(text) {
                None => *identity.issuer == **text,
                Some(_) if !identity.own_claims => continue,
                Some((place, wanted)) => {
                    let value = pointer::at(&identity.claims, place);
                    value.is_some_and(|value| lenient::scalars(value).any(|found| found == wanted))
                }
            };
            packing.fact(&format!("{}{text}", if is_met { MET } else { UNMET }), Mark::Claim);
        }
    }
}

/// Whether an answer can tell it: a claim, which begins with a slash, or an issuer, which does not.
fn is_askable(text: &str) -> bool {
    claim(text).is_some() || (text.starts_with("http") && text.len() <= MAX_ISSUER)
}

/// Whether the route's requirements of claims and of the issuer are known to be met or not.
pub(super) fn are_told(required: &Required<'_>, packed: &Packed) -> bool {
    let (mut told, own_claims) = (true, packed.head().is(Flag::OwnClaims));
    required.each_claim(|text| {
        // What cannot be understood is an error without any claims.
        told &= is_met(text, packed).is_some() || !is_askable(text) || (text.starts_with('/') && !own_claims);
    });
    told
}

/// Whether this requirement is met, if that was asked before.
pub(super) fn is_met(text: &str, packed: &Packed) -> Option<bool> {
    let told = packed.marked(Mark::Claim).find(|told| told.get(1..) == Some(text.as_bytes()))?;
    Some(told.first() == Some(&(MET as u8)))
}

#[cfg(test)]
mod tests {
    use super::super::in_query;
    use super::super::tests::{NOW, identity, rules, serving};
    use super::super::{Pass, Rejection, Unmet};
    use super::*;
    use crate::route::requirement::BadRequirement;
    use crate::tiers::table::{TierIndex, TierTable};

    /// A pass that can tell what `query` requires.
    fn pass(who: &Identity, query: &str, before: Option<&Pass>) -> Pass {
        let asked = Pass::claims_asked(&Required::Query(query), before);
        let serving = serving(TierIndex::YOUNGEST, false);
        Pass::new(who, &rules(""), (&TierTable::default(), serving), &asked).unwrap()
    }

    fn judge(who: &Identity, query: &str) -> Result<(), Rejection> {
        pass(who, query, None).meets(in_query(query), &TierTable::default(), NOW)
    }

    fn unmet(requirement: &'static str) -> Result<(), Rejection> {
        Err(Rejection::Unmet(Unmet::Requirement(requirement)))
    }

    #[test]
    fn a_claim_is_met_by_its_value_and_by_nothing_that_only_looks_like_it() {
        let who = identity(
            r#"{"azp":"my-client","level":7,"half":0.5,"big":18446744073709551615,"yes":true,"no":null,
                "amr":["pwd","mfa",3,true,["deep"]],"empty":[],"object":{"a":{"b":"c"}},"text":"7",
                "https://ns.example/dept":"sales","urn:x:y":"z","https":"~1~1ns.example~1dept:evil",
                "list":"a,b","colon":"a:b","blank":"a b","umlaut":"\u00fc","twice":1,"twice":1}"#,
        );
        for (query, is) in [
            ("claim=/azp:my-client", true),
            ("claim=/azp:my", false),
            ("claim=/azp:MY-CLIENT", false),
            ("claim=/AZP:my-client", false),
            ("claim=/azp:other&claim=/azp:my-client", true),
            ("claim=/azp:my-client&claim=/level:7", true),
            ("claim=/azp:my-client&claim=/level:8", false),
            ("claim=/level:8&claim=/azp:my-client&claim=/level:7", true),
            ("claim=/level:07", false),
            ("claim=/level:7.0", false),
            ("claim=/half:0.5", true),
            ("claim=/big:18446744073709551615", true),
            ("claim=/text:7", true),
            ("claim=/yes:true", true),
            ("claim=/yes:True", false),
            ("claim=/yes:1", false),
            ("claim=/no:null", false),
            ("claim=/twice:1", false),
            ("claim=/absent:null", false),
            ("claim=/amr:mfa", true),
            ("claim=/amr:3", true),
            ("claim=/amr:deep", false),
            ("claim=/amr/1:mfa", true),
            ("claim=/amr/0:mfa", false),
            ("claim=/amr:pwd,mfa", false),
            ("claim=/empty:", false),
            ("claim=/object/a/b:c", true),
            ("claim=/object/a:c", false),
            ("claim=/list:a", false),
            ("claim=/https:~1~1ns.example~1dept:sales", true),
            ("claim=/https~2~1~1ns.example~1dept:sales", true),
            ("claim=%2Fhttps%3A~1~1ns.example~1dept%3Asales", true),
            ("claim=/https:~1~1ns.example~1dept:evil", false),
            ("claim=/urn~2x~2y:z", true),
            ("claim=/colon:a:b", true),
            ("claim=/blank:a+b", true),
            ("claim=/blank:a%20b", true),
            ("claim=/umlaut:%C3%BC", true),
            ("claim=/umlaut:%25C3%25BC", false),
        ] {
            let met = judge(&who, query);
            assert_eq!(met.is_ok(), is, "{query}: {met:?}");
            if let Err(error) = met {
                assert!(matches!(error, Rejection::Unmet(_)) || query.ends_with(':'), "{query}: {error}");
            }
        }
    }

    #[test]
    fn a_requirement_that_is_misspelt_is_an_error_and_lets_nobody_in() {
        let who = identity(r#"{"iat":1000,"auth_time":1000,"acr":"a","":""}"#);
        let long = "x".repeat(513);
        for (query, name) in [
            ("claim=", "claim"),
            ("claim=/azp", "claim"),
            ("claim=/azp:", "claim"),
            ("claim=azp:x", "claim"),
            ("claim=:x", "claim"),
            ("claim=#/azp:x", "claim"),
            ("claim=/a~:x", "claim"),
            ("claim=/a~3:x", "claim"),
            ("claim=/a:%ff", "claim"),
            (&format!("claim=/a:{long}"), "claim"),
            ("acr=", "acr"),
            ("acr=a+b", "acr"),
            ("acr=%22", "acr"),
            ("acr=%5C", "acr"),
            ("acr=%0D%0AX:1", "acr"),
            ("acr=%C3%BC", "acr"),
            (&format!("acr={long}"), "acr"),
            ("max_age=", "max_age"),
            ("max_age=0", "max_age"),
            ("max_age=-1", "max_age"),
            ("max_age=%2B5", "max_age"),
            ("max_age=5s", "max_age"),
            ("max_age=1e3", "max_age"),
            ("max_age=31536001", "max_age"),
            ("max_age=99999999999999999999", "max_age"),
            ("typ=JWT", "typ"),
            ("typ=AT%2BJWT", "typ"),
            ("typ=", "typ"),
            ("actor=any", "actor"),
            ("actor=", "actor"),
        ] {
            let bad = Err(Rejection::Bad(BadRequirement::Value(name)));
            assert_eq!(judge(&who, query), bad, "{query}");
            assert_eq!(judge(&who, &format!("scope=none&{query}&acr=b")), bad, "{query}");
        }
        for name in ["Claim", "claims", "max-age", "maxage", "ACR", "acr_values", "type", "act"] {
            let bad = Err(Rejection::Bad(BadRequirement::Unknown(name.into())));
            assert_eq!(judge(&who, &format!("{name}=a")), bad, "{name}");
        }
        let many = vec!["claim=/a:b"; MAX_CLAIMS];
        assert_eq!(judge(&identity(r#"{"a":"b"}"#), &many.join("&")), Ok(()));
        let too_many = Err(Rejection::Bad(BadRequirement::TooManyClaims));
        assert_eq!(judge(&identity(r#"{"a":"b"}"#), &format!("{}&claim=/a:b", many.join("&"))), too_many);
    }

    #[test]
    fn how_and_when_the_user_logged_in_is_told_by_acr_and_auth_time() {
        // Now it is 1,500.
        for (claims, query, expected) in [
            (r#"{"acr":"gold"}"#, "acr=gold", Ok(())),
            (r#"{"acr":"gold"}"#, "acr=silver&acr=gold", Ok(())),
            (r#"{"acr":"gold"}"#, "acr=Gold", unmet("acr")),
            (r#"{"acr":["gold"]}"#, "acr=gold", unmet("acr")),
            (r#"{"acr":7}"#, "acr=7", unmet("acr")),
            ("{}", "acr=gold", unmet("acr")),
            (r#"{"https://ns/acr":"gold"}"#, "acr=gold", Ok(())),
            (r#"{"ns/acr":"gold"}"#, "acr=gold", unmet("acr")),
            (r#"{"https://ns/xacr":"gold"}"#, "acr=gold", unmet("acr")),
            (r#"{"https://ns/acr":"gold","acr":null}"#, "acr=gold", unmet("acr")),
            (r#"{"https://a/acr":"gold","https://b/acr":"gold"}"#, "acr=gold", unmet("acr")),
            (r#"{"iat":1400,"auth_time":1400}"#, "max_age=100", Ok(())),
            (r#"{"iat":1400,"auth_time":1400}"#, "max_age=99", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":1400}"#, "max_age=99&max_age=100", Ok(())),
            (r#"{"iat":1400,"auth_time":1399.9}"#, "max_age=100", unmet("max_age")),
            (r#"{"iat":1400,"https://ns/auth_time":1400}"#, "max_age=100", Ok(())),
            (r#"{"iat":1400,"auth_time":"1400"}"#, "max_age=100", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":-1}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":1e300}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":null}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":1401}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1400,"auth_time":1400000}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1520,"auth_time":1520}"#, "max_age=1", Ok(())),
            (r#"{"auth_time":1400}"#, "max_age=31536000", unmet("max_age")),
            (r#"{"iat":1400}"#, "max_age=31536000", unmet("max_age")),
        ] {
            assert_eq!(judge(&identity(claims), query), expected, "{claims} {query}");
        }
    }

    #[test]
    fn the_kind_of_token_and_who_acts_are_told_by_the_token() {
        let mut who = identity("{}");
        assert_eq!(judge(&who, "actor=none"), Ok(()));
        assert_eq!(judge(&who, "typ=at+jwt"), unmet("typ"));
        who.at_jwt = true;
        assert_eq!(judge(&who, "typ=at+jwt"), Ok(()));
        assert_eq!(judge(&who, "typ=at%2Bjwt"), Ok(()));
        for act in [r#"{"sub":"agent"}"#, "null", "{}", "\"\"", "false", "[]"] {
            assert_eq!(
                judge(&identity(&format!(r#"{{"act":{act}}}"#)), "actor=none"),
                unmet("actor"),
                "{act}"
            );
        }
    }

    #[test]
    fn a_token_that_only_its_issuer_can_judge_meets_none_of_them() {
        let claims = r#"{"azp":"c","acr":"gold","iat":1400,"auth_time":1400,"name":"Ada"}"#;
        let mut who = identity(claims);
        (who.own_claims, who.at_jwt) = (false, true);
        for (query, name) in [
            ("claim=/azp:c", "claim"),
            ("claim=/absent:c", "claim"),
            ("acr=gold", "acr"),
            ("max_age=31536000", "max_age"),
            ("actor=none", "actor"),
        ] {
            let unknowable = Err(Rejection::Unmet(Unmet::Unknowable(name)));
            assert_eq!(judge(&who, query), unknowable, "{query}");
            let plain = pass(&who, "", None);
            assert!(plain.covers_claims(&Required::Query(query)), "nothing more could be learnt: {query}");
            assert_eq!(plain.meets(in_query(query), &TierTable::default(), NOW), unknowable, "{query}");
        }
        who.at_jwt = false;
        assert_eq!(judge(&who, "typ=at+jwt"), Err(Rejection::Unmet(Unmet::Unknowable("typ"))));
    }

    #[test]
    fn the_name_that_userinfo_has_is_no_claim_of_the_token() {
        let mut who = identity("{}");
        who.name = Some("Ada".to_owned());
        assert_eq!(judge(&who, "claim=/name:Ada"), unmet("claim"));
    }

    #[test]
    fn an_answer_tells_what_was_asked_and_is_made_anew_for_more() {
        let who = identity(r#"{"a":"1","b":"2"}"#);
        let (first, second) = ("claim=/a:1&claim=/a:2", "claim=/b:2");
        let both = format!("{first}&{second}");
        let plain = pass(&who, "", None);
        assert!(plain.covers_claims(&Required::Query("scope=x&email=a@x.org")));
        assert!(plain.covers_claims(&Required::Query("claim=nonsense")), "an error needs no claims");
        assert!(!plain.covers_claims(&Required::Query(first)));
        // Before it is made again, it is not met.
        assert_eq!(plain.meets(in_query(first), &TierTable::default(), NOW), unmet("claim"));
        let one = pass(&who, first, Some(&plain));
        assert!(one.covers_claims(&Required::Query(first)) && !one.covers_claims(&Required::Query(second)));
        let two = pass(&who, second, Some(&one));
        assert!(two.covers_claims(&Required::Query(&both)));
        assert_eq!(two.meets(in_query(&both), &TierTable::default(), NOW), Ok(()));
        assert_eq!(plain.weight(), pass(&who, "scope=x", None).weight());
    }

    #[test]
    fn the_issuer_is_told_if_it_is_asked_for_of_a_foreign_token_as_well() {
        let long = format!("https://{}", "x".repeat(MAX_ISSUER));
        for own_claims in [true, false] {
            let mut who = identity("{}");
            who.own_claims = own_claims;
            for (query, expected) in [
                ("issuer=https://t/", Ok(())),
                ("issuer=https://other/&issuer=https://t/", Ok(())),
                ("issuer=https://other/", unmet("issuer")),
                (&format!("issuer={long}"), unmet("issuer")),
            ] {
                assert_eq!(judge(&who, query), expected, "{query}");
                let plain = pass(&who, "", None);
                assert_eq!(plain.covers_claims(&Required::Query(query)), query.len() > 1_000, "{query}");
                // Before it is made again, it is not met.
                assert_eq!(plain.meets(in_query(query), &TierTable::default(), NOW), unmet("issuer"));
            }
        }
    }

    #[test]
    fn an_answer_grows_with_what_routes_require_and_not_for_ever() {
        let who = identity(r#"{"a":"1"}"#);
        let mut latest = pass(&who, "", None);
        for number in 0..200 {
            let query = format!("claim=/a:{number}");
            latest = pass(&who, &query, Some(&latest));
            assert!(latest.covers_claims(&Required::Query(&query)), "{number}");
        }
        assert!(latest.weight() < 1_024, "{}", latest.weight());
        assert!(latest.0.marked(Mark::Claim).count() == MAX_CLAIMS);
    }
}

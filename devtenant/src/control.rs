//! Control by curl: `/dev/…` mints tokens, sets faults and shows counts.

use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Response};
use serde_json::json;

use crate::body::AnswerBody;
use crate::faults::{Endpoint, Fault, Faults};
use crate::keys::KeyRing;
use crate::limits::RateLimit;
use crate::lock;
use crate::mint::TokenBuilder;
use crate::serve::{json_answer, text_answer};
use crate::state::{State, User};

const HELP: &str = "\
holdfast-devtenant: a stand-in for Auth0, for development and tests only.

GET    /.well-known/openid-configuration
GET    /.well-known/jwks.json
GET    /userinfo                        Authorization: Bearer TOKEN

GET    /dev/token                       a token; all of these may be left out:
         ?shape=jws|jwe|bare-jwe|dir|opaque
         &email=none|direct|nested|namespaced
         &sub=auth0|alice &session=S &expires_in=86400 &alg=RS256 &audience=URL &scope=...
         &jwe_alg=RSA-OAEP-256 &jwe_enc=A256GCM
POST   /dev/user?sub=S&email=E          adds somebody; without email: somebody without one
POST   /dev/revoke?token=T              /userinfo refuses this token
POST   /dev/fault?kind=K&endpoint=userinfo|jwks|discovery|all
         K: 429 (&retry_after= &reset=), user-429, any status, slow (&ms=), hang, reset, garbage,
            wrong-shape, huge (&bytes=), truncated, wrong-key, empty-keys, wrong-subject, no-subject,
            redirect (&to=), forbidden
DELETE /dev/fault                       all is well again
POST   /dev/limit?burst=10&per_second=1 limits /userinfo; &per=user for each user; without burst: no limit
POST   /dev/rotate                      new signing keys; the old ones stay listed
POST   /dev/revoke-keys                 the old ones vanish
GET    /dev/calls                       how often the tenant was asked
DELETE /dev/calls                       counts from zero again
";

/// The answer to `GET /` or `/dev/…`; `None` for any other path.
pub(crate) fn handle(
    state: &Arc<State>,
    method: &Method,
    path: &str,
    query: Option<&str>,
) -> Option<Response<AnswerBody>> {
    let query = Query::parse(query.unwrap_or_default());
    let done = || text_answer(200, "done\n");
    Some(match (method.as_str(), path) {
        ("GET", "/") => text_answer(200, HELP),
        ("GET", "/dev/token") => token(state, &query),
        ("POST", "/dev/user") => add_user(state, &query),
        ("POST", "/dev/revoke") => match query.get("token") {
            Some(token) => {
                lock(&state.revoked).insert(token.to_owned());
                done()
            }
            None => bad_request("token= is missing"),
        },
        ("POST", "/dev/fault") => set_fault(state, &query),
        ("DELETE", "/dev/fault") => {
            *lock(&state.faults) = Faults::default();
            done()
        }
        ("POST", "/dev/limit") => set_limit(state, &query),
        ("POST", "/dev/rotate") => match KeyRing::rotate(&state.keys) {
            Ok(()) => done(),
            Err(error) => text_answer(500, format!("{error}\n")),
        },
        ("POST", "/dev/revoke-keys") => {
            lock(&state.keys).revoke_old();
            done()
        }
        ("GET", "/dev/calls") => calls(state),
        ("DELETE", "/dev/calls") => {
            *lock(&state.log) = Default::default();
            done()
        }
        (_, path) if path.starts_with("/dev/") => text_answer(404, HELP),
        _ => return None,
    })
}

fn token(state: &Arc<State>, query: &Query) -> Response<AnswerBody> {
    match build_token(state, query) {
        Ok(Ok(token)) => text_answer(200, token),
        Ok(Err(error)) => bad_request(&error.to_string()),
        Err(mistake) => bad_request(&mistake),
    }
}

fn build_token(state: &Arc<State>, query: &Query) -> Result<Result<String, crate::TenantError>, String> {
    let mut builder = TokenBuilder::new(Arc::clone(state));
    let subject = query.get("sub").unwrap_or("auth0|alice");
    builder = builder.subject(subject).expires_in(query.number("expires_in")?.unwrap_or(86_400));
    if let Some(algorithm) = query.get("alg") {
        builder = builder.algorithm(algorithm);
    }
    if let Some(audience) = query.get("audience") {
        builder = builder.audience(audience);
    }
    if let Some(scope) = query.get("scope") {
        builder = builder.scope(scope);
    }

    if let Some(session) = query.get("session") {
        builder = builder.claim(format!("{}/session_id", state.audience()), session);
    }

    let known = lock(&state.users).get(subject).and_then(|user| user.email.clone());
    let email =
        known.unwrap_or_else(|| format!("{}@example.com", subject.rsplit('|').next().unwrap_or(subject)));
    builder = match query.get("email").unwrap_or("none") {
        "none" => builder,
        "direct" => builder.email_direct(email),
        "nested" => builder.email_nested(email),
        "namespaced" => builder.email_namespaced(format!("{}/email", state.audience()), email),
        other => return Err(format!("email={other} is not none, direct, nested or namespaced")),
    };

    let sealed = |builder: TokenBuilder| {
        let (alg, enc) = (query.get("jwe_alg"), query.get("jwe_enc"));
        builder.nested_jwe_with(alg.unwrap_or("RSA-OAEP-256"), enc.unwrap_or("A256GCM"))
    };
    builder = match query.get("shape").unwrap_or("jws") {
        "jws" => builder,
        "jwe" => sealed(builder),
        "bare-jwe" => sealed(builder).bare_jwe(),
        "dir" => builder.tenant_dir_jwe(),
        "opaque" => builder.opaque(),
        other => return Err(format!("shape={other} is not jws, jwe, bare-jwe, dir or opaque")),
    };
    Ok(builder.build())
}

fn add_user(state: &State, query: &Query) -> Response<AnswerBody> {
    let Some(sub) = query.get("sub") else {
        return bad_request("sub= is missing");
    };
    let mut user = User::new(sub);
    if let Some(email) = query.get("email") {
        user = user.email(email);
    }
    if let Some(name) = query.get("name") {
        user = user.name(name);
    }
    lock(&state.users).insert(sub.to_owned(), user);
    text_answer(200, "done\n")
}

fn set_fault(state: &State, query: &Query) -> Response<AnswerBody> {
    let endpoint = match query.get("endpoint").unwrap_or("all") {
        "discovery" => Endpoint::Discovery,
        "jwks" => Endpoint::Jwks,
        "userinfo" => Endpoint::Userinfo,
        "all" => Endpoint::All,
        other => return bad_request(&format!("endpoint={other} is not discovery, jwks, userinfo or all")),
    };
    match fault(query) {
        Ok(fault) => {
            state.set_fault(endpoint, &fault);
            text_answer(200, "done\n")
        }
        Err(mistake) => bad_request(&mistake),
    }
}

fn fault(query: &Query) -> Result<Fault, String> {
    Ok(match query.get("kind").unwrap_or_default() {
        "429" => Fault::RateLimited {
            retry_after: query.get("retry_after").map(str::to_owned),
            reset: query.number("reset")?,
        },
        "user-429" => Fault::UserRateLimited,
        "slow" => Fault::Slow(Duration::from_millis(query.number("ms")?.unwrap_or(2_000))),
        "hang" => Fault::Hang,
        "reset" => Fault::Reset,
        "garbage" => Fault::Garbage,
        "wrong-shape" => Fault::WrongShape,
        "huge" => Fault::Huge(query.number("bytes")?.unwrap_or(10_000_000)),
        "truncated" => Fault::Truncated,
        "wrong-key" => Fault::WrongKey,
        "empty-keys" => Fault::EmptyKeys,
        "wrong-subject" => Fault::WrongSubject,
        "no-subject" => Fault::NoSubject,
        "redirect" => Fault::Redirect(query.get("to").unwrap_or("http://127.0.0.1:1/").to_owned()),
        "forbidden" => Fault::Forbidden,
        other => match other.parse() {
            Ok(status @ 200..=599) => Fault::Status(status),
            _ => return Err(format!("kind={other} is not a fault; GET / lists them")),
        },
    })
}

fn set_limit(state: &State, query: &Query) -> Response<AnswerBody> {
    let limit = match (query.number::<u32>("burst"), query.number::<f64>("per_second")) {
        (Ok(burst), Ok(per_second)) => burst.map(|burst| RateLimit::new(burst, per_second.unwrap_or(0.0))),
        (Err(mistake), _) | (_, Err(mistake)) => return bad_request(&mistake),
    };
    match query.get("per") {
        Some("user") => lock(&state.limits).set_per_user(limit),
        _ => lock(&state.limits).set_tenant(limit, state.instant()),
    }
    text_answer(200, "done\n")
}

fn calls(state: &State) -> Response<AnswerBody> {
    let calls = lock(&state.log).calls.clone();
    json_answer(
        200,
        &json!({
            "discovery": calls.discovery,
            "jwks": calls.jwks,
            "userinfo": calls.userinfo,
            "total": calls.total,
            "userinfo_by_status": calls.userinfo_by_status,
        }),
    )
}

fn bad_request(mistake: &str) -> Response<AnswerBody> {
    text_answer(400, format!("{mistake}\n"))
}

/// A query string, decoded (`application/x-www-form-urlencoded`).
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(n, v)| (decode(n), decode(v)))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let number = |value: &str| value.parse().map_err(|_| format!("{name}={value} is not a number"));
        self.get(name).map(number).transpose()
    }
}

/// Percent-decoding; text that is not an escape stays unchanged.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%').then(|| tail.get(..2)).flatten();
        let escaped = escape.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_stray_percent_signs_stay() {
        let query = Query::parse("sub=auth0%7Calice&scope=openid+profile&odd=100%&half=%4&empty");
        assert_eq!(query.get("sub"), Some("auth0|alice"));
        assert_eq!(query.get("scope"), Some("openid profile"));
        assert_eq!(query.get("odd"), Some("100%"));
        assert_eq!(query.get("half"), Some("%4"));
        assert_eq!(query.get("empty"), Some(""));
        assert_eq!(query.get("missing"), None);
        assert_eq!(Query::parse("n=-5").number("n"), Ok(Some(-5i64)));
        assert!(Query::parse("n=x").number::<i64>("n").is_err());
    }

    #[test]
    fn every_fault_on_the_help_page_is_understood() {
        let kinds = "429 user-429 503 slow hang reset garbage wrong-shape huge truncated wrong-key \
                     empty-keys wrong-subject no-subject redirect forbidden";
        for kind in kinds.split_whitespace() {
            assert!(fault(&Query::parse(&format!("kind={kind}"))).is_ok(), "{kind}");
            assert!(kind == "503" || HELP.contains(kind), "{kind}");
        }
        assert!(fault(&Query::parse("kind=99")).is_err());
        assert!(fault(&Query::parse("")).is_err());
    }
}

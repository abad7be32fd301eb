//! `/userinfo`: the user of a token, and their claims.
//!
//! The tenant accepts what it has minted: a JWS that one of its listed keys signed, such a JWS sealed to the
//! API, bare claims under a symmetric key, its own `dir` token, an opaque string it has handed out. A signed
//! token must list the endpoint in `aud`, as Auth0 demands. Issuer and scope are not checked: holdfast must
//! refuse such tokens by itself.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::Response;
use serde_json::{Map, Value};

use crate::body::{self, AnswerBody};
use crate::faults::{Fault, header, too_many_requests};
use crate::keys;
use crate::limits::Grant;
use crate::lock;
use crate::serve::{answer, json_answer};
use crate::state::State;

/// The rate-limit headers while no limit is set: a high limit.
const UNLIMITED: Grant =
    Grant { allowed: true, limit: 300, remaining: 299, next_in: Some(Duration::from_secs(60)) };

/// The answer to one call with this `Authorization` header.
pub(crate) fn userinfo(
    state: &State,
    authorization: Option<&str>,
    fault: Option<&Fault>,
) -> Response<AnswerBody> {
    let tenant = lock(&state.limits).take_tenant(state.instant());
    if let Some(grant) = tenant.filter(|grant| !grant.allowed) {
        return too_many_requests("Global limit has been reached", &limit_headers(state, grant));
    }
    let Some(claims) = authorization.and_then(bearer).and_then(|token| judge(state, token)) else {
        return unauthorized(state, tenant);
    };
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    let Some(user) = lock(&state.users).get(subject).cloned() else {
        return unauthorized(state, tenant);
    };
    let own = lock(&state.limits).take_user(subject, state.instant());
    if let Some(grant) = own.filter(|grant| !grant.allowed) {
        return too_many_requests("User limit has been reached", &limit_headers(state, grant));
    }

    let mut profile = user.to_json();
    match fault {
        Some(Fault::WrongSubject) => {
            profile.insert("sub".to_owned(), Value::from("auth0|somebody-else"));
        }
        Some(Fault::NoSubject) => {
            profile.shift_remove("sub");
        }
        _ => {}
    }
    let mut response = json_answer(200, &Value::Object(profile));
    add_headers(&mut response, &limit_headers(state, scarcer(tenant, own)));
    response
}

/// The claims of a token that the tenant accepts now; `None` for all others.
fn judge(state: &State, token: &str) -> Option<Map<String, Value>> {
    if lock(&state.revoked).contains(token) {
        return None;
    }
    let for_userinfo = |claims: &Map<String, Value>| lists_userinfo(state, claims);
    let claims = match token.split('.').count() {
        3 => verified_claims(state, token).filter(for_userinfo)?,
        5 => {
            let opened = state.jwe.open(token)?;
            let inner = std::str::from_utf8(&opened.payload).ok()?;
            match verified_claims(state, inner) {
                Some(claims) if for_userinfo(&claims) => claims,
                Some(_) => return None,
                None if opened.symmetric => serde_json::from_str(inner).ok()?,
                None => return None,
            }
        }
        _ => lock(&state.opaque).get(token)?.clone(),
    };
    let now = i64::try_from(state.now()).unwrap_or(i64::MAX);
    let after_now = |name| claims.get(name).and_then(Value::as_i64).map(|time| time > now);
    (after_now("exp") != Some(false) && after_now("nbf") != Some(true)).then_some(claims)
}

/// Whether a token is good for `/userinfo`: only if its client asked for `openid`.
fn lists_userinfo(state: &State, claims: &Map<String, Value>) -> bool {
    let endpoint = format!("{}userinfo", state.issuer());
    match claims.get("aud") {
        Some(Value::String(one)) => *one == endpoint,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&endpoint)),
        _ => false,
    }
}

fn verified_claims(state: &State, token: &str) -> Option<Map<String, Value>> {
    let (message, signature) = token.rsplit_once('.')?;
    let (head, payload) = message.split_once('.')?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
    let algorithm = header.get("alg")?.as_str()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let message = message.as_bytes();
    let genuine = match algorithm {
        "HS256" => {
            lock(&state.hs_secrets).iter().any(|secret| keys::hmac_verifies(secret, message, &signature))
        }
        _ => lock(&state.keys).verifies(algorithm, message, &signature),
    };
    if !genuine {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// The token of a `Bearer` header (RFC 6750 §2.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorized(state: &State, grant: Option<Grant>) -> Response<AnswerBody> {
    let headers =
        [header("content-type", "text/plain"), header("www-authenticate", r#"Bearer error="invalid_token""#)];
    let mut response = answer(401, &headers, body::full("Unauthorized"));
    add_headers(&mut response, &limit_headers(state, grant.unwrap_or(UNLIMITED)));
    response
}

/// The grant with fewer remaining calls.
fn scarcer(tenant: Option<Grant>, own: Option<Grant>) -> Grant {
    match (tenant, own) {
        (Some(tenant), Some(own)) if tenant.remaining < own.remaining => tenant,
        (_, Some(own)) => own,
        (tenant, None) => tenant.unwrap_or(UNLIMITED),
    }
}

fn limit_headers(state: &State, grant: Grant) -> Vec<(String, String)> {
    // A bucket that never fills again says "in an hour".
    let wait = grant.next_in.map_or(3600, |wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
    let mut headers = vec![
        ("x-ratelimit-limit".to_owned(), grant.limit.to_string()),
        ("x-ratelimit-remaining".to_owned(), grant.remaining.to_string()),
        ("x-ratelimit-reset".to_owned(), state.now().saturating_add(wait).to_string()),
    ];
    if !grant.allowed {
        headers.push(("retry-after".to_owned(), wait.max(1).to_string()));
    }
    headers
}

fn add_headers(response: &mut Response<AnswerBody>, headers: &[(String, String)]) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) =
            (name.parse::<hyper::header::HeaderName>(), value.parse::<hyper::header::HeaderValue>())
        {
            response.headers_mut().append(name, value);
        }
    }
}

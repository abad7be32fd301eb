//! Every query of the rules and of the dashboard, asked of a real Prometheus that scrapes a holdfast under load.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_devtenant::{Endpoint, Fault, Tenant};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::drill::HOUR;
use crate::prometheus::{Prometheus, check_metrics};
use crate::rules::{RULES, rules, shipped};
use crate::support::exchange;
use crate::support::service::{Running, held_clock, issuer, request, tenant};
use crate::support::yaml::text;

/// What an alert asks, in a form that has data also while it does not fire: a comparison yields 0 or 1.
fn without_condition(query: &str) -> String {
    let query = query.strip_prefix("absent(").map_or(query, |inner| inner.trim_end_matches(')'));
    [" > ", " < ", " == "]
        .iter()
        .fold(query.to_owned(), |query, sign| query.replace(sign, &format!("{sign}bool ")))
}

/// The panels of the dashboard that ask something.
pub fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&shipped(crate::dashboard::DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row").cloned().collect()
}

/// All queries, each with where it stands.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for rule in RULES.iter().flat_map(|path| rules(path)) {
        let name = rule["record"].as_str().or(rule["alert"].as_str()).unwrap();
        queries.push((name.to_owned(), without_condition(text(&rule, "/expr").trim())));
    }
    for panel in panels() {
        for target in panel["targets"].as_array().unwrap() {
            let query = [("$job", "holdfast"), ("$instance", ".*"), ("$__rate_interval", "1m")]
                .iter()
                .fold(text(target, "/expr").to_owned(), |query, (name, value)| query.replace(name, value));
            assert!(!query.contains('$'), "an unknown variable: {query}");
            queries.push((text(&panel, "/title").to_owned(), query));
        }
    }
    queries
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_has_data_under_load() {
    let tenant = tenant().await;
    let clock = held_clock(&tenant);
    let directory = tempfile::tempdir().unwrap();
    let server = Authority::new("test CA").server(directory.path(), "server");
    let auth = format!(
        "listen = [\"127.0.0.1:0\", \"tls:127.0.0.1:0\"]\n[auth.tls]\ncertificate = {:?}\nkey = {:?}\n",
        server.certificate, server.key
    );
    let config = format!("[budget]\nwait = \"0s\"\n{}", issuer(&tenant, ""));
    let holdfast = Running::start_with_auth(&auth, &config, clock.clone()).await;
    let rules = RULES.map(|path| (path.rsplit('/').next().unwrap(), shipped(path)));
    let prometheus = Prometheus::start_with(&holdfast.admin.to_string(), &rules).await;

    let opaque = tenant.mint().opaque().build().unwrap();
    let signed = tenant.mint().email_direct("ada@example.com").expires_in(900 * 3_600).build().unwrap();
    assert_eq!([holdfast.ask(&opaque).await.status, holdfast.ask(&signed).await.status], [200, 200]);
    tenant.set_fault(Endpoint::Userinfo, Fault::Status(503));
    clock.advance(std::time::Duration::from_secs(13 * HOUR));
    assert_eq!(holdfast.ask(&opaque).await.header("x-auth-tier"), ["emergency"]);

    // Load, from memory mostly, until all is asked.
    let stop = Arc::new(AtomicBool::new(false));
    let load = [opaque, signed, "not-a-token".to_owned()].map(|token| {
        let (stop, auth) = (stop.clone(), holdfast.auth);
        tokio::spawn(async move {
            let request = request("/auth", &format!("Authorization: Bearer {token}\r\n"));
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                exchange(TcpStream::connect(auth).await.unwrap(), &request).await;
                asked += 1;
            }
            asked
        })
    });
    let queries = queries();
    for (place, query) in &queries {
        crate::support::until(&format!("data for {place}: {query}"), async || {
            prometheus.ask(query).await.filter(|series| !series.is_empty())
        })
        .await;
    }
    let cost = prometheus.ask("quantile_over_time(0.5, scrape_duration_seconds[1h])").await.unwrap();
    let series = prometheus.ask("scrape_samples_scraped").await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for load in load {
        asked += load.await.unwrap();
    }
    println!(
        "{} queries; {asked} requests meanwhile; half of the scrapes took {} s at most, of {} samples",
        queries.len(),
        cost[0]["value"][1],
        series[0]["value"][1]
    );
    let page = exchange(TcpStream::connect(holdfast.admin).await.unwrap(), &request("/metrics", "")).await;
    check_metrics(&page.body).await;
}

/// The series of a page, without their values.
fn series(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

/// Requests that have nothing in common: each of another user, token, host and key.
async fn strangers(tenant: &Tenant, to: SocketAddr, numbers: Range<u64>) {
    let mut connection = TcpStream::connect(to).await.unwrap();
    for number in numbers {
        let name = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let jws = |header: Value, claims: Value| {
            let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
            format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]))
        };
        let token = match number % 4 {
            0 => name.repeat(3),
            1 => jws(json!({"alg": "ES256", "kid": name}), json!({"iss": tenant.issuer(), "sub": name})),
            2 => jws(json!({"alg": "ES256", "kid": "a"}), json!({"iss": format!("https://{name}/")})),
            _ => {
                let email = format!("{name}@{name}.example");
                tenant.mint().algorithm("ES256").subject(&name).email_direct(email).build().unwrap()
            }
        };
        let request = format!(
            "GET /auth?{name} HTTP/1.1\r\nHost: {name}.example\r\nX-Forwarded-Host: {name}\r\n\
             X-Forwarded-Uri: /{name}\r\nX-Request-Id: {name}\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_add_no_series() {
    const FIRST: u64 = 400;
    const MORE: u64 = 100_000;
    let tenant = tenant().await;
    let config = format!("[budget]\nwait = \"0s\"\n{}", issuer(&tenant, ""));
    let holdfast = Running::start(&config, held_clock(&tenant)).await;
    let page = async || {
        let stream = TcpStream::connect(holdfast.admin).await.unwrap();
        series(&exchange(stream, &request("/metrics", "")).await.body)
    };
    strangers(&tenant, holdfast.auth, 0..FIRST).await;
    let before = page().await;
    let part = |part| FIRST + part * MORE / 4..FIRST + (part + 1) * MORE / 4;
    let some = |number| strangers(&tenant, holdfast.auth, part(number));
    tokio::join!(some(0), some(1), some(2), some(3));
    assert_eq!(page().await, before);
    println!("{} series before and after {MORE} strangers", before.len());
}

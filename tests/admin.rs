//! Who gets an answer from the admin listener.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use holdfast::clock::Clock;
use holdfast::config::Source;
use holdfast::service::Service;
use support::exchange;
use tokio::net::TcpStream;

/// An attacker's page in an operator's browser, whose name leads to the admin listener, reads nothing and
/// orders nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_leads_to_the_admin_listener_is_told_nothing() {
    let text = "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\nhosts = [\"holdfast.monitoring.svc\"]\n\
                [[issuer]]\nurl = \"http://127.0.0.1:9/\"\naudience = [\"a\"]\n";
    let service = Service::start(Source::text("test.toml", text), Clock::system()).await.unwrap();
    let ask = async |line: &str, host: &str| {
        let stream = TcpStream::connect(service.admin_address()).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(stream, request.as_bytes()).await
    };
    let port = service.admin_address().rsplit(':').next().unwrap();
    for line in [
        "GET /status",
        "HEAD /status",
        "GET /metrics",
        "GET /healthz",
        "GET /readyz",
        "GET /none",
        "POST /purge",
    ] {
        for host in [format!("rebound.example:{port}"), "rebound.example".to_owned(), String::new()] {
            let reply = ask(line, &host).await;
            assert_eq!(reply.status, 421, "{line} by {host:?}: {reply:?}");
            assert!(!reply.body.contains("127.0.0.1:9"), "{reply:?}");
        }
    }
    let reply = ask("GET http://rebound.example/status", "127.0.0.1").await;
    assert_eq!(reply.status, 421, "{reply:?}");
    // By address as kubelet and most of Prometheus do, by a loopback name, and by the configured one.
    for host in
        [service.admin_address(), "10.1.2.3:9180", "[::1]:9180", "localhost", "holdfast.monitoring.svc:9180"]
    {
        assert_eq!(ask("GET /status", host).await.status, 200, "{host}");
    }
}

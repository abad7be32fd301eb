//! Tunnels. A backend that leaves HTTP/1.1 for another protocol gets, by the same connection, requests that
//! no proxy reads and nobody asks holdfast about. A WebSocket carries no requests; so there is no other
//! upgrade, and no `CONNECT`. The backend here takes whatever it is offered.

use tokio::io::AsyncWriteExt as _;

use crate::client::{bearer, read_head};
use crate::proxy::Proxy;
use crate::stack::Stack;

/// What a client may offer. HAProxy and Caddy looked for a value that is `websocket`, and passed on others
/// with it.
const OFFERS: [&str; 16] = [
    "Upgrade: h2c\r\n",
    "Upgrade: foo\r\n",
    "Upgrade: TLS/1.0\r\n",
    "Upgrade: websocket, h2c\r\n",
    "Upgrade: h2c, websocket\r\n",
    "Upgrade: websocket, foo\r\n",
    "Upgrade: foo,websocket\r\n",
    "Upgrade: websocket\r\nUpgrade: h2c\r\n",
    "Upgrade: h2c\r\nUpgrade: websocket\r\n",
    "Upgrade: foo\r\nUpgrade: websocket\r\n",
    "Upgrade: websocket\r\nUpgrade: foo\r\n",
    "Upgrade: websocketx\r\n",
    "Upgrade: xwebsocket\r\n",
    "Upgrade: websocket/13\r\n",
    "Upgrade: websocket;h2c\r\n",
    "upgrade: WebSocket\r\nUPGRADE: H2C\r\n",
];

pub async fn no_other_upgrade_reaches_the_backend(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = bearer(&stack.alice());
    for offer in OFFERS {
        for (path, token) in [("/public/page", ""), ("/page", token.as_str())] {
            for connection in ["Upgrade", "Upgrade, HTTP2-Settings", "HTTP2-Settings, upgrade, keep-alive"] {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: example.com\r\nConnection: {connection}\r\n{offer}\
                     HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n"
                );
                let mut stream = stack.client.connect().await.unwrap();
                let exchange = async {
                    stream.write_all(request.as_bytes()).await.unwrap();
                    read_head(&mut *stream).await
                };
                let (asks, reply) = stack.asks(exchange).await;
                if asks == 0 {
                    assert_ne!(reply.status, 101, "{offer:?} {path}: {reply:?}");
                    continue;
                }
                let page = stack.backend.last_request().unwrap();
                let opened = (reply.status == 101).then_some("websocket");
                assert!(matches!(reply.status, 101 | 200), "{offer:?} {path}: {reply:?}");
                assert_eq!(
                    values(&page.to_lowercase(), "upgrade"),
                    Vec::from_iter(opened),
                    "{offer:?} {path}: {page}"
                );
                let named = values(&page, "connection").join(",").to_lowercase();
                assert!(!named.contains("http2-settings"), "{offer:?} {path}: {page}");
            }
        }
    }
}

/// What a header said when it reached the backend, line by line.
fn values<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let headers = page.lines().filter_map(|line| line.split_once(": "));
    headers.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

pub async fn no_tunnel_opens_by_connect(proxy: Proxy) {
    let stack = Stack::start(proxy).await;
    let token = stack.alice();
    for headers in [String::new(), bearer(&token)] {
        for target in
            ["example.com:80", "127.0.0.1:80", "/public/page", "/page", "http://example.com/public/page"]
        {
            let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{headers}\r\n");
            let mut stream = stack.client.connect().await.unwrap();
            let exchange = async {
                stream.write_all(request.as_bytes()).await.unwrap();
                read_head(&mut *stream).await
            };
            let (asks, reply) = stack.asks(exchange).await;
            assert_eq!(asks, 0, "{target} {headers:?}: {reply:?}");
            assert!((400..600).contains(&reply.status), "{target} {headers:?}: {reply:?}");
        }
    }
    // By HTTP/2, also the kind for WebSockets (RFC 8441), to a protocol that is none.
    let token = format!("Bearer {token}");
    for more in [&[][..], &[(":protocol", "foo"), (":scheme", "http"), (":path", "/public/page")][..]] {
        let mut headers = vec![(":method", "CONNECT"), (":authority", "example.com:80")];
        headers.extend(more);
        headers.push(("authorization", token.as_str()));
        let (asks, ()) = stack.asks(stack.http2.http2_with_trailer(&headers, None)).await;
        assert_eq!(asks, 0, "{more:?}");
    }
}

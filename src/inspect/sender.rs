//! The sender of an inspected token: the request as a trusted proxy would describe it. The check is the
//! server's own.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Uri};

use super::rows::Check;
use crate::credential::{Credential, Scheme};
use crate::instance::Instance;
use crate::route::forwarded::{Protocol, Subrequest};
use crate::route::peer::{Peer, Trusted};
use crate::route::settings::RouteSettings;
use crate::sender::{Sender, Unproven};
use crate::token::binding::Binding;
use crate::token::dpop::url::HttpUrl;

/// What the request carries in addition to the token.
#[derive(Clone, Debug, Default)]
pub struct Presented {
    /// The DPoP proof.
    pub proof: Option<String>,
    /// The method of the request.
    pub method: Option<String>,
    /// The URL of the request.
    pub url: Option<HttpUrl>,
    /// The client certificate, DER in base64.
    pub certificate: Option<String>,
}

/// The header of the certificate.
const CERTIFICATE: &str = "x-client-cert";

impl Presented {
    /// Checks the sender; `None` if the token is not bound and there is no proof.
    pub(super) async fn check(
        &self,
        instance: &Instance,
        credential: Credential<'_>,
        binding: Binding,
    ) -> Option<Result<(), Unproven>> {
        let by_key = match binding {
            Binding::Ignored => return None,
            Binding::Bearer if self.proof.is_none() => return None,
            Binding::Sender { key: None, .. } => self.proof.is_some(),
            _ => true,
        };
        let credential = credential.carried_by(if by_key { Scheme::Dpop } else { Scheme::Bearer });
        let headers = self.headers();
        let subrequest = Subrequest { method: &Method::GET, uri: &Uri::default(), headers: &headers };
        let routes = RouteSettings {
            trusted_peers: vec![Trusted::Unix],
            forwarded: Protocol::XForwarded,
            client_certificate_header: Some(HeaderName::from_static(CERTIFICATE)),
            ..instance.settings.routes.clone()
        };
        let sender = Sender { credential: &credential, subrequest, peer: Peer::Unix, routes: &routes };
        Some(instance.senders.check(binding, sender).await)
    }

    /// The headers as Traefik would send them. A text that no header can hold is left out, so the check
    /// reports it as missing.
    fn headers(&self) -> HeaderMap {
        let url = self.url.as_ref().and_then(|url| url.as_str().split_once("://"));
        let (scheme, rest) = url.unwrap_or_default();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let method = self.method.as_deref().unwrap_or("GET");
        let lines = [
            ("dpop", self.proof.as_deref().unwrap_or_default()),
            ("x-forwarded-method", method),
            ("x-forwarded-proto", scheme),
            ("x-forwarded-host", host),
            ("x-forwarded-uri", path),
            (CERTIFICATE, self.certificate.as_deref().unwrap_or_default()),
        ];
        let lines = lines.into_iter().filter(|(_, value)| !value.is_empty());
        lines
            .filter_map(|(name, value)| Some((name.parse().ok()?, HeaderValue::try_from(value).ok()?)))
            .collect()
    }
}

/// The row of a sender that was checked.
pub(super) fn row(checked: Result<(), Unproven>) -> Check {
    let hint = match checked {
        Err(Unproven::NoProof) => "; give it with --dpop, and its request with --method and --url",
        Err(Unproven::UnknownRequest(_)) => "; give it with --url",
        Err(Unproven::NoCertificate) => "; give it with --client-cert",
        _ => "",
    };
    Check {
        name: "sender",
        ok: Some(checked.is_ok()),
        expected: "proves to have the key that the token is bound to".to_owned(),
        found: checked.map_or_else(|unproven| format!("{unproven}{hint}"), |()| "proven".to_owned()),
    }
}

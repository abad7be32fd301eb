//! The client certificate as a proxy passes it on.
//!
//! Each proxy has its own form. The value itself shows which form it is:
//!
//! | form | of |
//! |---|---|
//! | `:MIIB…:` | RFC 9440 `Client-Cert` |
//! | `Hash=…;Cert="…"` | Envoy's `X-Forwarded-Client-Cert` |
//! | `-----BEGIN%20CERTIFICATE-----%0AMIIB…` | nginx's `$ssl_client_escaped_cert`, and PEM in general |
//! | `MIIB…`, also `MIIB…,MIIC…` | HAProxy, Caddy; Traefik, which sends the chain, the client's own first |
//!
//! Only the bytes of the certificate are used. The proxy has checked in its handshake that the client has the
//! key, and the token says which certificate it is bound to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use crate::token::binding::Thumbprint;

/// The fields of an element of `X-Forwarded-Client-Cert`.
const XFCC: [&str; 7] = ["by", "hash", "cert", "chain", "subject", "uri", "dns"];

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The thumbprint of the certificate in this header value (RFC 8705 §3.1). `None` if there is not exactly
/// one.
#[must_use]
pub fn thumbprint(value: &str) -> Option<Thumbprint> {
    let value = value.trim();
    if let Some(bytes) = value.strip_prefix(':') {
        return of_base64(bytes.strip_suffix(':')?);
    }
    let field = value.split_once('=').map(|(name, _)| name.trim().to_ascii_lowercase());
    if field.is_some_and(|name| XFCC.contains(&name.as_str())) {
        return of_xfcc(value);
    }
    let text = percent_decode_str(value).decode_utf8().ok()?;
    match text.split_once(BEGIN) {
        Some((before, rest)) => {
            let (body, after) = rest.split_once(END)?;
            let is_alone = before.trim().is_empty() && after.trim().is_empty();
            of_base64(&body.split_whitespace().collect::<String>()).filter(|_| is_alone)
        }
        None => of_base64(text.split(',').next()?),
    }
}

fn of_base64(text: &str) -> Option<Thumbprint> {
    let bytes = STANDARD.decode(text).ok()?;
    // A certificate is a DER sequence. Other data is not taken for a certificate by mistake.
    (bytes.first() == Some(&0x30)).then(|| Thumbprint::of(&bytes))
}

/// The `Hash` of the only element. Several elements come from several proxies, and the first of them may be
/// from the client.
fn of_xfcc(value: &str) -> Option<Thumbprint> {
    let (mut hash, mut quoted, mut start) = (None, false, 0);
    let ends = value.char_indices().chain([(value.len(), ';')]);
    let mut escaped = false;
    for (at, char) in ends {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return None,
            ';' if !quoted => {
                let (name, field) = value[start..at].split_once('=')?;
                if name.trim().eq_ignore_ascii_case("hash") && hash.replace(field.trim()).is_some() {
                    return None;
                }
                start = (at + 1).min(value.len());
                if start == value.len() {
                    break;
                }
            }
            _ => {}
        }
    }
    let hash = hash.filter(|hash| !quoted && hash.len() == 64 && hash.is_ascii())?;
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hash.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(Thumbprint::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A DER sequence is enough.
    const DER: &[u8] = b"\x30\x03\xfb\xff\xfe";

    #[test]
    fn each_proxys_form_is_the_same_certificate() {
        let base64 = STANDARD.encode(DER);
        assert_eq!(base64, "MAP7//4=");
        let hash: String = Thumbprint::of(DER).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for value in [
            format!(":{base64}:"),
            base64.clone(),
            format!("{base64},MAIBAQ=="),
            "MAP7%2F%2F4%3D".to_owned(),
            "MAP7%2F%2F4%3D,MAIBAQ%3D%3D".to_owned(),
            "-----BEGIN%20CERTIFICATE-----%0AMAP7%2F%2F4%3D%0A-----END%20CERTIFICATE-----%0A".to_owned(),
            "-----BEGIN%20CERTIFICATE-----%0AMAP7%0A//4=%0A-----END%20CERTIFICATE-----".to_owned(),
            format!("{BEGIN} {base64} {END}"),
            format!("Hash={hash}"),
            format!("By=spiffe://a;Hash={hash};Subject=\"CN=a,O=\\\"b;Hash=c\\\"\";URI="),
            format!("hash={};Cert=\"-----BEGIN%20\"", hash.to_uppercase()),
        ] {
            assert_eq!(thumbprint(&value), Some(Thumbprint::of(DER)), "{value}");
        }
    }

    #[test]
    fn what_is_not_plainly_one_certificate_is_none() {
        let hash = "ab".repeat(32);
        for value in [
            String::new(),
            ":".to_owned(),
            "::".to_owned(),
            ":MAP7//4=".to_owned(),
            "MAP7//4".to_owned(),
            "MAP7__4=".to_owned(),
            "MAP7//4=, MAP7//4=:".replace(", ", ":"),
            "AAAA".to_owned(),
            ",MAP7//4=".to_owned(),
            "(null)".to_owned(),
            "%".to_owned(),
            "-----BEGIN%20CERTIFICATE-----%0AMAP7%2F%2F4%3D%0A".to_owned(),
            format!("{BEGIN}MAP7//4={END}{BEGIN}MAP7//4={END}"),
            format!("x{BEGIN}MAP7//4={END}"),
            "Hash=".to_owned(),
            format!("Hash={hash}00"),
            format!("Hash={};", &hash[2..]),
            format!("Hash={hash};Hash={hash}"),
            format!("Hash={hash},Hash={hash}"),
            format!("By=a,Hash={hash}"),
            format!("Subject=\"a;Hash={hash}"),
            format!("Hash=+{}", &hash[1..]),
            format!("Subject=\"a\";{hash}"),
        ] {
            assert_eq!(thumbprint(&value), None, "{value}");
        }
    }
}

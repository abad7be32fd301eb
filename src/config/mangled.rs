//! Finds values that are allowed but look damaged by a file format or a shell.
//!
//! An audience in the quotes of an env file is a valid text, but refuses everybody. Such a value may be
//! intended, so this only warns. Values of keys other than an issuer's are never shown: one may hold a
//! password.

use url::Url;

use super::node::Node;
use super::origin::Origin;
use super::settings::Settings;
use super::source::Source;
use crate::issuer::settings::IssuerSettings;

/// The warnings, one sentence each, with the place or the key of the value.
#[must_use]
pub fn warnings(source: &Source, settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(tree) = source.tree() {
        tree.walk("", &mut |key, node| {
            let Node::Scalar { text, origin, .. } = node else { return };
            // In a variable, commas separate, and blanks next to them are ignored.
            let is_list = matches!(origin, Origin::Environment(_)) && text.contains(',');
            let odd = match is_list {
                true => text.split(',').find_map(|item| odd_text(item.trim())).or_else(|| odd_end(text)),
                false => odd_text(text),
            };
            found.extend(odd.map(|odd| format!("{origin}: {key} has {odd}")));
        });
    }
    for (row, issuer) in settings.issuers.iter().enumerate() {
        found.extend(odd_url(&issuer.url).map(|odd| format!("issuer[{row}].url = {:?}: {odd}", issuer.url)));
        for alias in &issuer.aliases {
            found.extend(odd_url(alias).map(|odd| format!("issuer[{row}].aliases = {alias:?}: {odd}")));
        }
        for audience in &issuer.audience {
            let odd = odd_audience(audience, issuer);
            found.extend(odd.map(|odd| format!("issuer[{row}].audience = {audience:?}: {odd}")));
        }
    }
    found
}

fn odd_text(text: &str) -> Option<&'static str> {
    let quotes = ['"', '\'', '`', '“', '”', '„', '‘', '’', '‚', '«', '»'];
    // No-break space, soft hyphen, zero-width characters and marks of direction, byte order mark.
    let unseen =
        |c: char| matches!(c, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    if text.contains(['\r', '\n']) {
        Some("a line end in it")
    } else if text.contains('\t') {
        Some("a tab in it")
    } else if text.contains(unseen) {
        Some("a character in it that cannot be seen, such as a byte order mark or a no-break space")
    } else if text.trim() != text {
        Some("a space at its beginning or end")
    } else if text.starts_with(quotes) || text.ends_with(quotes) {
        Some("a quotation mark at its beginning or end; Docker's --env-file, for one, keeps the quotes")
    } else if text.starts_with('[') && text.ends_with(']') {
        Some("brackets around it; in a variable, a list is written without them")
    } else {
        odd_end(text)
    }
}

fn odd_end(text: &str) -> Option<&'static str> {
    text.ends_with([',', ';']).then_some("a comma or semicolon at its end")
}

fn odd_url(url: &str) -> Option<String> {
    let base = Url::parse(url).ok()?;
    let is_auth0 = base.host_str().is_some_and(|host| host.ends_with(".auth0.com"));
    if base.path().contains("/.well-known") {
        Some(
            "this is the address of the discovery document; the issuer is the part before /.well-known"
                .into(),
        )
    } else if without_slash(url) != without_slash(base.as_str()) {
        Some(format!("it is compared byte for byte with a token's `iss`, which usually reads {base}"))
    } else if is_auth0 && !url.ends_with('/') {
        Some(
            "an issuer of Auth0 ends in a slash, and it is compared byte for byte with a token's `iss`"
                .into(),
        )
    } else {
        None
    }
}

fn odd_audience(audience: &str, issuer: &IssuerSettings) -> Option<&'static str> {
    let issuer = without_slash(&issuer.url);
    let plain = audience.strip_prefix("http://");
    let loopback = |rest: &str| ["localhost", "127.", "[::1]"].iter().any(|host| rest.starts_with(host));
    match without_slash(audience).strip_prefix(issuer) {
        Some("") => Some("this is the issuer itself; the audience is the identifier of the API"),
        Some("/userinfo") => {
            Some("the issuer puts this into tokens for every API, so it does not tell APIs apart")
        }
        Some("/api/v2") => Some("this is Auth0's own Management API"),
        Some(rest) if rest.starts_with("/.well-known") => Some("this is an address of the issuer"),
        _ if plain.is_some_and(|rest| !loopback(rest)) => {
            Some("http, not https: compare it with the identifier of the API")
        }
        _ => None,
    }
}

fn without_slash(url: &str) -> &str {
    url.strip_suffix('/').unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = Source { environment, ..Source::text("holdfast.toml", text) };
        warnings(&source, &Settings::read(&source).unwrap())
    }

    fn issuer(url: &str, audience: &str) -> String {
        // TOML escapes invisible characters in another way than Rust.
        let audience = format!("{audience:?}").replace("\\u{feff}", "\\uFEFF");
        format!("[[issuer]]\nurl = {url:?}\naudience = [{audience}]\n")
    }

    #[test]
    fn values_that_look_mangled_are_named_with_where_they_stand() {
        for (audience, expected) in [
            ("\"https://api\"", "a quotation mark"),
            ("“https://api”", "a quotation mark"),
            ("https://api ", "a space"),
            ("https://api\r\n", "a line end"),
            ("https://api\t", "a tab"),
            ("\u{feff}https://api", "cannot be seen"),
            ("https://api,", "a comma"),
            ("http://api.example.com", "http, not https"),
            ("https://t.eu.auth0.com/", "the issuer itself"),
            ("https://t.eu.auth0.com", "the issuer itself"),
            ("https://t.eu.auth0.com/userinfo", "for every API"),
            ("https://t.eu.auth0.com/api/v2/", "Management API"),
        ] {
            let found = warned(&issuer("https://t.eu.auth0.com/", audience), &[]);
            assert!(found.len() == 1 && found[0].contains(expected), "{audience:?}: {found:?}");
            assert!(found[0].contains("issuer[0].audience"), "{found:?}");
        }
        let found = warned(&issuer("https://t/", "\"a\""), &[]);
        assert!(
            found[0].starts_with("holdfast.toml:3: issuer[0].audience[0] has a quotation mark"),
            "{found:?}"
        );
    }

    #[test]
    fn an_issuer_that_is_written_as_no_token_writes_it_is_named() {
        for (url, expected) in [
            ("https://t.eu.auth0.com", "ends in a slash"),
            ("https://t.eu.auth0.com/.well-known/openid-configuration", "before /.well-known"),
            ("https://T.eu.auth0.com/", "usually reads https://t.eu.auth0.com/"),
            ("https://t.eu.auth0.com:443/", "usually reads https://t.eu.auth0.com/"),
        ] {
            let found = warned(&issuer(url, "https://api"), &[]);
            assert!(found.len() == 1 && found[0].contains(expected), "{url}: {found:?}");
        }
    }

    #[test]
    fn an_env_file_is_looked_at_item_by_item() {
        let text = issuer("https://t/", "https://api");
        let audience = "HOLDFAST_ISSUER__0__AUDIENCE";
        for value in ["\"https://a\"", "\"https://a,https://b\"", "[\"https://a\"]", "'https://a', https://b"]
        {
            let found = warned(&text, &[(audience, value)]);
            let [one] = &found[..] else { panic!("{value}: {found:?}") };
            assert!(
                one.starts_with(&format!("environment variable {audience}: issuer[0].audience")),
                "{one}"
            );
        }
        assert_eq!(warned(&text, &[(audience, "https://a, https://b")]), [""; 0]);
    }

    #[test]
    fn good_values_are_not_complained_of_and_no_value_of_another_key_is_shown() {
        let good = "[auth]\nlisten = [\"[::1]:4180\", \"unix:/run/a.sock\"]\n[log]\nlevel = \"info\"\n";
        for (url, audience) in [
            ("https://t.eu.auth0.com/", "https://api.example.com"),
            ("https://t.eu.auth0.com/", "https://api.example.com/"),
            ("https://idp.example.com/realms/a", "my-api"),
            ("http://127.0.0.1:4190/", "http://localhost:8080"),
        ] {
            assert_eq!(warned(&format!("{good}{}", issuer(url, audience)), &[]), [""; 0], "{audience}");
        }
        let redis = "[store]\nredis = \"redis://:hunter2@h/0\"\nsecret_file = \"/secret \"\n";
        let found = warned(&format!("{redis}{}", issuer("https://t/", "a")), &[]);
        assert!(found.len() == 1 && found[0].contains("store.secret_file has a space"), "{found:?}");
        assert!(!found.concat().contains("hunter2"));
    }
}

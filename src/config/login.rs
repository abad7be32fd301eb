//! `[login]`: where a browser without a good credential is sent.

use url::Url;

use super::section::Section;
use super::value::{self, DAY, SECOND};
use crate::login::{LoginAnswer, LoginSettings, ReturnHost};

/// The longest URL of a login page, in bytes: it is part of an answer's head, for which nginx has 4 KiB.
const MAX_URL_BYTES: usize = 1024;

impl LoginSettings {
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let page = "the login page, such as https://app.example.com/login";
        let url = section.required("url", login_url, page);
        let answer = section.value("answer", LoginAnswer::Redirect, |text| match text {
            "redirect" => Ok(LoginAnswer::Redirect),
            "header" => Ok(LoginAnswer::Header),
            _ => Err("redirect, or header (for nginx)".to_owned()),
        });
        let return_hosts: Vec<ReturnHost> = section.list("return_hosts", str::parse).unwrap_or_default();
        let secret_file = section.optional("secret_file", value::path);
        let lifetime = section.value("lifetime", 600 * SECOND, value::duration(10 * SECOND, DAY));
        if secret_file.is_some() == return_hosts.is_empty() {
            section.report(
                "secret_file",
                "nothing",
                "a file if return_hosts are set, and only then: return addresses are always signed",
            );
        }
        Some(Self { url: url?, answer, return_hosts, secret_file, lifetime })
    }
}

fn login_url(text: &str) -> Result<Url, String> {
    let allowed = "the login page as an https:// URL without user, query and fragment, such as \
                   https://app.example.com/login (http:// only for loopback), up to 1024 bytes";
    let fits = |url: &Url| url.password().is_none() && url.as_str().len() <= MAX_URL_BYTES;
    value::issuer(text).ok().filter(fits).ok_or_else(|| allowed.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, Source};
    use crate::login::LoginAnswer;

    fn read(lines: &str) -> Result<Settings, String> {
        let issuer = "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n";
        Settings::read(&Source::text("holdfast.toml", &format!("{issuer}{lines}")))
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn no_login_page_is_known_by_default_and_one_needs_no_more_than_its_url() {
        assert!(read("").unwrap().login.is_none());
        let login = read("[login]\nurl = \"https://app.example.com/login\"\n").unwrap().login.unwrap();
        assert_eq!((login.answer, login.lifetime.as_secs()), (LoginAnswer::Redirect, 600));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (lines, expected) in [
            ("", "holdfast.toml:4: login.url = nothing: allowed is the login page"),
            ("url = \"http://app.example.com/\"", "holdfast.toml:5: login.url = \"http://app.example.com/\""),
            ("url = \"https://app/?a=b\"", "without user, query and fragment"),
            ("url = \"https://:pw@app/\"", "without user, query and fragment"),
            ("url = \"//app/\"", "without user, query and fragment"),
            ("url = \"https://app/\"\nanswer = \"303\"", "redirect, or header"),
            ("url = \"https://app/\"\nreturn_hosts = [\"app\"]", "login.secret_file = nothing"),
            (
                "url = \"https://app/\"\nsecret_file = \"/s\"",
                "holdfast.toml:6: login.secret_file = \"/s\": allowed is a file if return_hosts are set",
            ),
            ("url = \"https://app/\"\nreturn_hosts = [\"*\"]\nsecret_file = \"/s\"", "login.return_hosts"),
            (
                "url = \"https://app/\"\nreturn_hosts = [\"app\"]\nsecret_file = \"/s\"",
                "auth.trusted_peers = nothing",
            ),
            ("url = \"https://app/\"\nlifetime = \"1s\"", "login.lifetime"),
        ] {
            let said = read(&format!("[login]\n{lines}\n")).unwrap_err();
            assert!(said.contains(expected), "{lines}\n{said}");
        }
    }
}

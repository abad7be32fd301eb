//! `[credential]`: where the token is looked for besides `Authorization`.

use super::section::Section;
use crate::credential::CredentialSettings;

impl CredentialSettings {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let name = |text: &str| {
            // RFC 6265 §4.1.1: a cookie name is an RFC 9110 token. Empty switches it off.
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if text.bytes().all(token) { Ok(text.to_owned()) } else { Err("the name of a cookie".to_owned()) }
        };
        Self { cookie: section.optional("cookie", name).filter(|name| !name.is_empty()) }
    }
}

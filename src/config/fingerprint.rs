//! Shows whether two configurations belong to the same holdfast, without revealing them.

use aws_lc_rs::digest::{SHA256, digest};

use super::settings::Settings;

/// How many bytes of a hash are kept. It only distinguishes instances, and protects no secret.
const BYTES: usize = 8;

/// The identity of a holdfast: whose tokens it accepts, and where it keeps records. `/status` shows it, so
/// that a command can check whether it reached the right holdfast. It contains no file of keys or secrets,
/// and no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// A hash, in hex, of all issuers' URLs with their audiences, in any order; none without issuers.
    pub issuers: Option<String>,
    /// A hash, in hex, of the data directory's absolute path; none without one.
    pub store: Option<String>,
}

impl Settings {
    /// The fingerprint of these settings.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut issuers: Vec<(&str, Vec<&str>)> = self
            .issuers
            .iter()
            .map(|issuer| {
                let mut audience: Vec<&str> = issuer.audience.iter().map(String::as_str).collect();
                audience.sort_unstable();
                (issuer.url.as_str(), audience)
            })
            .collect();
        issuers.sort_unstable();
        // As Rust writes them, each text is quoted and escaped, so that no two lists are written alike.
        let issuers = (!issuers.is_empty()).then(|| hash(format!("{issuers:?}").as_bytes()));
        let store = self.store.path.as_ref().map(|path| {
            // A link or a relative path is the same directory as its target. A path that does not exist yet,
            // or that this user may not read, is used as it is written.
            let path = path.canonicalize().or_else(|_| std::path::absolute(path));
            let path = path.unwrap_or_else(|_| self.store.path.clone().unwrap_or_default());
            hash(path.as_os_str().as_encoded_bytes())
        });
        Fingerprint { issuers, store }
    }

    /// A hash, in hex, of all these settings, to tell instances that run with different ones. It contains no
    /// password, no content of other files, and no address of Redis.
    #[must_use]
    pub fn hash(&self) -> String {
        hash(format!("{self:?}").as_bytes())
    }
}

fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn of(text: &str) -> Fingerprint {
        Settings::read_for_upkeep(&Source::text("test.toml", text)).unwrap().fingerprint()
    }

    #[test]
    fn the_same_issuers_in_any_order_have_the_same_hash_and_others_another() {
        let a = "[[issuer]]\nurl = \"https://a/\"\naudience = [\"x\", \"y\"]\n";
        let swapped =
            "[[issuer]]\nurl = \"https://a/\"\naudience = [\"y\", \"x\"]\nalgorithms = [\"RS512\"]\n";
        let b = "[[issuer]]\nurl = \"https://b/\"\naudience = [\"x\"]\n";
        assert_eq!(of(&format!("{a}{b}")).issuers, of(&format!("{b}{swapped}")).issuers);
        let mut all = vec![of(a), of(b), of(&format!("{a}{b}")), of(&a.replace("\"x\", \"y\"", "\"x, y\""))];
        all.dedup();
        assert_eq!(all.len(), 4, "{all:?}");
        assert_eq!(of(""), Fingerprint { issuers: None, store: None });
    }

    #[test]
    fn the_hash_is_of_all_settings_and_the_same_for_the_same() {
        let hash = |text: &str| Settings::read_for_upkeep(&Source::text("test.toml", text)).unwrap().hash();
        let text = "[headers]\n\"X-A\" = \"a\"\n\"X-B\" = \"b\"\n[policy]\nleeway = \"10s\"\n";
        assert_eq!(hash(text), hash(text));
        assert_ne!(hash(text), hash(&text.replace("10s", "20s")));
        assert_ne!(hash(text), hash(&text.replace("X-B", "X-C")));
    }

    #[test]
    fn a_data_directory_is_itself_by_whichever_path() {
        let directory = tempfile::tempdir().unwrap();
        let (data, link) = (directory.path().join("data"), directory.path().join("link"));
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let store = |path: &std::path::Path| of(&format!("[store]\npath = {path:?}\n")).store;
        assert!(store(&data).is_some_and(|hash| hash.len() == 2 * BYTES));
        assert_eq!(store(&data), store(&link));
        assert_ne!(store(&data), store(directory.path()));
    }
}

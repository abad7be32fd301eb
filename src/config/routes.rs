//! The settings for the requirements of requests: part of `[auth]`, and the rules (`[[rule]]`).

use hyper::header::{HeaderName, HeaderValue};

use super::node::Node;
use super::problems::Problems;
use super::section::Section;
use super::value;
use crate::route::forwarded::{Protocol, is_host, is_method};
use crate::route::path::NormalPath;
use crate::route::peer;
use crate::route::requirement::{MAX_CLAIMS, Requirement};
use crate::route::rules::{HostPattern, Requirements, Rule, Rules, Verdict};
use crate::route::settings::{RequirementsFrom, RouteSettings};
use crate::tiers::table::TierTable;

impl RouteSettings {
    /// Reads the rules, and its part of `[auth]`. Other readers read the rest of that section.
    pub(super) fn read(auth: &mut Section<'_>, root: &mut Section<'_>, problems: &Problems) -> Self {
        let names_header = auth.has("requirements_header");
        let says_how = auth.has("forwarded");
        let words = [
            ("query", RequirementsFrom::Query),
            ("header", RequirementsFrom::Header),
            ("rules", RequirementsFrom::Rules),
        ];
        let requirements_from =
            auth.value("requirements_from", RequirementsFrom::Query, value::one_of(words));
        let protocols = [
            ("x-forwarded", Protocol::XForwarded),
            ("x-original", Protocol::XOriginal),
            ("x-original-url", Protocol::XOriginalUrl),
            ("request", Protocol::Request),
        ];
        let settings = Self {
            requirements_from,
            requirements_header: auth.value(
                "requirements_header",
                HeaderName::from_static("x-holdfast-require"),
                value::header_name,
            ),
            trusted_peers: auth.list("trusted_peers", str::parse).unwrap_or_default(),
            forwarded: auth.value("forwarded", Protocol::default(), value::one_of(protocols)),
            client_certificate_header: auth.optional("client_certificate_header", value::header_name),
            preflight: auth.value("preflight", false, value::one_of([("deny", false), ("allow", true)])),
            anonymous: auth.value("anonymous", HeaderValue::from_static("anonymous"), |text| {
                let allowed = || "1 to 256 visible ASCII characters without @ and %".to_owned();
                let text = super::headers::default_value(text).map_err(|_| allowed())?;
                if text.contains('@') {
                    Err(allowed())
                } else {
                    HeaderValue::try_from(text).map_err(|_| allowed())
                }
            }),
            rules: read_rules(auth, root, problems),
        };
        settings.check(auth, root);
        if !says_how && !settings.trusted_peers.is_empty() {
            // A default would be dangerous: clients can set headers that the proxy does not set
            // (CVE-2026-40575).
            auth.report(
                "forwarded",
                "nothing",
                "how the trusted_peers describe the original request: x-forwarded, x-original, \
                 x-original-url or request. They must set it on every request, whatever the client sends",
            );
        }
        if names_header && settings.requirements_from != RequirementsFrom::Header {
            auth.report(
                "requirements_header",
                "set",
                "a header only with requirements_from = \"header\": otherwise it is not read",
            );
        }
        settings
    }

    fn check(&self, auth: &Section<'_>, root: &Section<'_>) {
        let by_rules = self.requirements_from == RequirementsFrom::Rules;
        if by_rules && self.rules.0.is_empty() {
            root.report(
                "rule",
                "nothing",
                "at least one [[rule]], because auth.requirements_from = \"rules\"",
            );
        }
        if !by_rules && !self.rules.0.is_empty() {
            root.report(
                "rule",
                "given",
                "rules only with auth.requirements_from = \"rules\": otherwise they are not read",
            );
        }
        if self.forwarded == Protocol::XOriginalUrl && self.rules.0.iter().any(|rule| !rule.hosts.is_empty())
        {
            root.report(
                "rule",
                "with host",
                "no host conditions with auth.forwarded = \"x-original-url\": ingress-nginx writes the \
                 client's Host header there, which need not be the host that it serves",
            );
        }
        if let Some(version) = peer::everybody(&self.trusted_peers) {
            let allowed = format!("not every public address of {version}; name the proxies' own addresses");
            auth.report("trusted_peers", "all addresses", allowed);
        }
        if self.client_certificate_header.is_some() && self.trusted_peers.is_empty() {
            auth.report(
                "trusted_peers",
                "nothing",
                "the proxies that are trusted to pass on the client's certificate, because \
                 client_certificate_header is set",
            );
        }
        if (by_rules || self.preflight) && self.trusted_peers.is_empty() {
            auth.report(
                "trusted_peers",
                "nothing",
                "the proxies that are trusted to describe the original request, such as 127.0.0.1 or unix, \
                 because rules and preflight = \"allow\" depend on it",
            );
        }
    }

    /// Checks the tiers that rules name, once the tiers are known.
    pub(super) fn check_tiers(&self, table: &TierTable, root: &Section<'_>) {
        for (row, tier) in self.required(Requirement::MaxTier).filter(|(_, tier)| table.find(tier).is_none())
        {
            let names: Vec<&str> = table.iter().map(|(_, row)| row.name.as_str()).collect();
            root.report(
                &format!("rule[{row}].require.max_tier"),
                tier,
                format!("one of {}", names.join(", ")),
            );
        }
        if self.pass_nobody() && table.find("none").is_some() {
            root.report(
                "tier",
                "none",
                "another name: X-Auth-Tier: none marks an answer without an identity",
            );
        }
    }
}

/// The rules of this file or of the file that it names.
fn read_rules(auth: &mut Section<'_>, root: &mut Section<'_>, problems: &Problems) -> Rules {
    let here = root.rows("rule");
    let file = auth.optional("rules_file", value::path);
    let rows = match (here, file) {
        (Some(_), Some(file)) => {
            auth.report("rules_file", file.display().to_string(), "rules_file or [[rule]] tables, not both");
            return Rules::default();
        }
        (Some(rows), None) => rows,
        (None, Some(file)) => match Node::from_file(&file) {
            Ok(tree) => {
                problems.locate(&tree);
                Section::new("", tree, problems).rows("rule").unwrap_or_default()
            }
            Err(error) => {
                problems.add(error);
                return Rules::default();
            }
        },
        (None, None) => return Rules::default(),
    };
    let last = rows.len().saturating_sub(1);
    Rules(rows.into_iter().enumerate().filter_map(|(place, row)| read_rule(row, place == last)).collect())
}

fn read_rule(mut row: Section<'_>, is_last: bool) -> Option<Rule> {
    let some = "at least one valid value; without the key, any value matches";
    let hosts = row.some("host", host, some);
    let paths = row.some("path", normal_path, some);
    let prefixes = row.some("path_prefix", normal_path, some);
    let method = |text: &str| match is_method(text) {
        true => Ok(text.to_owned()),
        false => Err("a method in capital letters, such as GET".to_owned()),
    };
    let methods = row.some("methods", method, some);
    let is_true =
        |text: &str| if text == "true" { Ok(()) } else { Err("true, or leave the key out".to_owned()) };
    let ignore_case = row.optional("ignore_case", is_true).is_some();
    if ignore_case && paths.is_none() && prefixes.is_none() {
        row.report("ignore_case", "true", "path or path_prefix in the same rule");
    }
    let public = row.optional("public", is_true).map(|()| Verdict::Public);
    let deny = row.optional("deny", is_true).map(|()| Verdict::Deny);
    let require = row.table("require").map(|section| Verdict::Require(read_requirements(section)));
    let verdicts: Vec<Verdict> = [public, deny, require].into_iter().flatten().collect();
    let Ok([verdict]) = <[Verdict; 1]>::try_from(verdicts) else {
        row.report("", "this rule", "exactly one of require = { … }, public = true and deny = true");
        return None;
    };
    let rule = Rule {
        hosts: hosts.unwrap_or_default(),
        paths: paths.unwrap_or_default(),
        prefixes: prefixes.unwrap_or_default(),
        ignore_case,
        methods: methods.unwrap_or_default(),
        verdict,
    };
    match (is_last, rule.is_unconditional()) {
        (true, false) => row.report(
            "",
            "the last rule",
            "one without host, path, path_prefix and methods, which covers every other request",
        ),
        (false, true) => row.report(
            "",
            "this rule",
            "a condition in every rule but the last: rules below one without a condition never match",
        ),
        (true, true) if rule.verdict == Verdict::Public => row.report(
            "public",
            "true",
            "require or deny: requests that no other rule covers must not be public",
        ),
        _ => {}
    }
    Some(rule)
}

fn read_requirements(mut section: Section<'_>) -> Requirements {
    let mut requirements = Vec::new();
    for requirement in Requirement::all() {
        let check = |text: &str| {
            // Tiers are not known yet: `check_tiers`.
            let good = match requirement {
                Requirement::MaxTier => !text.is_empty(),
                _ => requirement.check(text, &TierTable::default()).is_ok(),
            };
            if good { Ok(text.to_owned()) } else { Err(allowed(requirement).to_owned()) }
        };
        let values = section.some(requirement.name(), check, "at least one valid value");
        if requirement == Requirement::Claim && values.as_ref().is_some_and(|all| all.len() > MAX_CLAIMS) {
            section.report("claim", "too many", format!("at most {MAX_CLAIMS} values"));
        }
        requirements.extend(values.into_iter().flatten().map(|text| (requirement, text)));
    }
    Requirements(requirements)
}

fn allowed(requirement: Requirement) -> &'static str {
    match requirement {
        Requirement::Verified => "true",
        Requirement::Audience => "checked",
        Requirement::Issuer => "an issuer's url, exactly as it is configured",
        Requirement::Email => "a whole address, such as alice@example.com",
        Requirement::EmailDomain => "a domain, the part of an address after the @, such as example.com",
        Requirement::Revocation => "current",
        Requirement::Claim => {
            "a JSON pointer, a colon and a value, such as /azp:my-client; a colon in a name is written ~2"
        }
        Requirement::Acr => "a visible ASCII text without quotation marks and backslashes",
        Requirement::MaxAge => "a whole number of seconds from 1 to 31536000, such as 300",
        Requirement::Typ => "at+jwt",
        Requirement::Actor => "none",
        _ => "a text, not empty",
    }
}

/// A condition is written as the path that it means, so nothing may be encoded or ambiguous in it.
fn normal_path(text: &str) -> Result<NormalPath<'static>, String> {
    let read = NormalPath::parse(text.as_bytes()).map(NormalPath::into_owned);
    match read {
        Ok(path) if path.as_str() == text => Ok(path),
        Ok(path) => Err(format!("the path in its decoded form, without a query: {}", path.as_str())),
        Err(problem) => Err(format!("a path with one reading, such as /api; {problem}")),
    }
}

fn host(text: &str) -> Result<HostPattern, String> {
    let pattern = match text.strip_prefix("*.") {
        Some(domain) if is_host(domain) && !domain.starts_with('[') => {
            HostPattern::Below(format!(".{domain}"))
        }
        None if is_host(text) => HostPattern::Exact(text.to_owned()),
        _ => return Err("a host name without port, or *. and a domain".to_owned()),
    };
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, Source};

    #[test]
    fn bad_rules_are_refused_with_their_place() {
        let read = |auth: &str, rules: &str| {
            let text =
                format!("[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n[auth]\n{auth}\n{rules}");
            Settings::read(&Source::text("test.toml", &text)).map_err(|errors| errors.to_string())
        };
        let by_rules =
            "requirements_from = \"rules\"\ntrusted_peers = [\"unix\"]\nforwarded = \"x-original\"";
        let rest = "[[rule]]\nrequire = {}\n";
        read(by_rules, rest).unwrap();
        for (auth, rules, expected) in [
            (by_rules, "", "rule = nothing"),
            ("", rest, "rules only with auth.requirements_from = \"rules\""),
            ("requirements_from = \"rules\"", rest, "auth.trusted_peers = nothing"),
            ("preflight = \"allow\"", "", "auth.trusted_peers = nothing"),
            ("trusted_peers = [\"unix\"]", "", "auth.forwarded = nothing: allowed is how the trusted_peers"),
            ("trusted_peers = [\"0.0.0.0/0\"]", "", "test.toml:5: auth.trusted_peers = \"0.0.0.0/0\""),
            ("trusted_peers = [\"::/0\"]", "", "not all addresses"),
            ("client_certificate_header = \"X-Cert\"", "", "auth.trusted_peers = nothing"),
            ("requirements_from = \"both\"", "", "query, header or rules"),
            ("forwarded = \"forwarded\"", "", "x-forwarded, x-original, x-original-url or request"),
            ("anonymous = \"\"", "", "without @"),
            (
                by_rules,
                "[[rule]]\nhost = \"a\"\nignore_case = true\ndeny = true\n[[rule]]\nrequire = {}\n",
                "path or path_prefix in the same rule",
            ),
            (
                by_rules,
                "[[rule]]\npath = \"/a\"\nignore_case = false\ndeny = true\n[[rule]]\nrequire = {}\n",
                "true, or leave the key out",
            ),
            ("anonymous = \"nobody@example.com\"", "", "without @"),
            ("requirements_header = \"X_Require\"", "", "letters, digits and hyphens"),
            ("requirements_header = \"X-Require\"", "", "a header only with requirements_from = \"header\""),
            (
                "requirements_from = \"rules\"\ntrusted_peers = \"unix\"\nforwarded = \"x-original-url\"",
                "[[rule]]\nhost = \"a\"\npublic = true\n[[rule]]\nrequire = {}\n",
                "no host conditions with auth.forwarded = \"x-original-url\"",
            ),
            ("rules_file = \"/nonexistent/rules.toml\"", "", "cannot read /nonexistent/rules.toml"),
            ("rules_file = \"x\"", rest, "rules_file or [[rule]] tables"),
            (by_rules, "[[rule]]\npublic = true\n", "rule[0].public = true: allowed is require or deny"),
            (by_rules, "[[rule]]\npath = \"/a\"\ndeny = true\n", "test.toml:8: rule[0] = the last rule"),
            (
                by_rules,
                "[[rule]]\ndeny = true\n[[rule]]\nrequire = {}\n",
                "a condition in every rule but the last",
            ),
            (by_rules, "[[rule]]\npath = \"/a\"\n[[rule]]\nrequire = {}\n", "exactly one of require"),
            (
                by_rules,
                "[[rule]]\npublic = true\ndeny = true\npath = \"/\"\n[[rule]]\nrequire = {}\n",
                "exactly one of require",
            ),
            (
                by_rules,
                "[[rule]]\npublic = false\npath = \"/\"\n[[rule]]\nrequire = {}\n",
                "true, or leave the key out",
            ),
            (by_rules, "[[rule]]\nrequire = { scopes = \"a\" }\n", "did you mean rule[0].require.scope?"),
            (
                by_rules,
                "[[rule]]\nrequire = { max_tier = \"third\" }\n",
                "test.toml:9: rule[0].require.max_tier = \"third\": allowed is one of primary",
            ),
            (by_rules, "[[rule]]\nrequire = { claim = \"azp:x\" }\n", "a JSON pointer, a colon and a value"),
            (
                by_rules,
                "[[rule]]\nrequire = { claims = \"/azp:x\" }\n",
                "did you mean rule[0].require.claim?",
            ),
            (by_rules, "[[rule]]\nrequire = { acr = \"a b\" }\n", "without quotation marks"),
            (by_rules, "[[rule]]\nrequire = { max_age = \"5m\" }\n", "a whole number of seconds"),
            (by_rules, "[[rule]]\nrequire = { max_age = 0 }\n", "a whole number of seconds"),
            (by_rules, "[[rule]]\nrequire = { typ = \"JWT\" }\n", "allowed is at+jwt"),
            (by_rules, "[[rule]]\nrequire = { actor = \"any\" }\n", "allowed is none"),
            (by_rules, "[[rule]]\nrequire = { verified = \"false\" }\n", "rule[0].require.verified"),
            (by_rules, "[[rule]]\nrequire = { verified = false }\n", "test.toml:9: rule[0].require.verified"),
            (by_rules, "[[rule]]\nrequire = { email = \"alice\" }\n", "a whole address"),
            (by_rules, "[[rule]]\nrequire = { scope = [] }\n", "at least one valid value"),
            (by_rules, "[[rule]]\nrequire = \"any\"\n", "a table of settings"),
            (
                by_rules,
                "[[rule]]\npath = []\ndeny = true\n[[rule]]\nrequire = {}\n",
                "at least one valid value",
            ),
            (
                by_rules,
                "[[rule]]\nprefix = \"/a\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "did you mean rule[0].path_prefix?",
            ),
            (
                by_rules,
                "[[rule]]\npath = \"a\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "it does not begin with a slash",
            ),
            (
                by_rules,
                "[[rule]]\npath = \"/a/../b\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "a path with one reading",
            ),
            (
                by_rules,
                "[[rule]]\npath = \"/%61\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "the path in its decoded form, without a query: /a",
            ),
            (
                by_rules,
                "[[rule]]\npath_prefix = \"/a?b\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "without a query: /a",
            ),
            (
                by_rules,
                "[[rule]]\nhost = \"a:80\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "a host name without port",
            ),
            (
                by_rules,
                "[[rule]]\nhost = \"*\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "a host name without port",
            ),
            (
                by_rules,
                "[[rule]]\nmethods = \"get\"\ndeny = true\n[[rule]]\nrequire = {}\n",
                "a method in capital letters",
            ),
        ] {
            let found = read(auth, rules).expect_err("the configuration is bad");
            assert!(found.contains(expected), "{auth}\n{rules}\n{found}");
        }
    }
}

//! Which original request needs what: the rules of the configuration.
//!
//! The first matching rule counts, so that rules are easy to follow. The last one matches everything, so that
//! an explicit rule also decides about requests that nobody thought of.

use super::forwarded::Original;
use super::path::NormalPath;
use super::requirement::{BadRequirement, Requirement};

/// One rule. An empty condition matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Any of these hosts.
    pub hosts: Vec<HostPattern>,
    /// Any of these paths, or of `prefixes`.
    pub paths: Vec<NormalPath<'static>>,
    /// At or below any of these, or any of `paths`.
    pub prefixes: Vec<NormalPath<'static>>,
    /// Whether ASCII letters of paths are compared in any case, for a backend that does so.
    pub ignore_case: bool,
    /// Any of these methods.
    pub methods: Vec<String>,
    /// The requirement for matching requests.
    pub verdict: Verdict,
}

/// The requirement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A verified identity that meets these; there may be none.
    Require(Requirements),
    /// Nothing is needed.
    Public,
    /// Nobody passes.
    Deny,
}

/// Requirements whose names and values were checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements(pub Vec<(Requirement, String)>);

/// A host, or `*.` and a domain whose hosts are meant, however deep, but not the domain itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This host.
    Exact(String),
    /// Hosts with this suffix, which begins with a dot.
    Below(String),
}

/// All rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// The requirement of the first matching rule. Without one, nobody passes.
    #[must_use]
    pub fn verdict(&self, original: &Original<'_>) -> &Verdict {
        self.0.iter().find(|rule| rule.fits(original)).map_or(&Verdict::Deny, |rule| &rule.verdict)
    }

    /// The rules that make something public.
    pub fn public(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter().filter(|rule| rule.verdict == Verdict::Public)
    }
}

impl Rule {
    /// Whether it matches every request.
    #[must_use]
    pub fn is_unconditional(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.prefixes.is_empty() && self.methods.is_empty()
    }

    fn fits(&self, original: &Original<'_>) -> bool {
        let any_path = self.paths.is_empty() && self.prefixes.is_empty();
        (self.hosts.is_empty() || self.hosts.iter().any(|host| host.fits(original.host)))
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == original.method))
            && (any_path
                || self.paths.iter().any(|path| original.path.is(path, self.ignore_case))
                || self.prefixes.iter().any(|prefix| original.path.is_below(prefix, self.ignore_case)))
    }
}

impl HostPattern {
    fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(end) => {
                let start = host.len().saturating_sub(end.len());
                start > 0 && host.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes())
            }
        }
    }
}

impl Requirements {
    /// One after the other, as [`crate::decision::Pass::meets`] takes them.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Requirement, &str), BadRequirement>> + Clone {
        self.0.iter().map(|(requirement, value)| Ok((*requirement, value.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NormalPath<'static> {
        NormalPath::parse(text.as_bytes()).unwrap().into_owned()
    }

    fn rule(verdict: Verdict) -> Rule {
        Rule { hosts: vec![], paths: vec![], prefixes: vec![], ignore_case: false, methods: vec![], verdict }
    }

    fn says<'r>(rules: &'r Rules, method: &str, host: &str, target: &str) -> &'r Verdict {
        rules.verdict(&Original { method, host, path: path(target) })
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_counts() {
        let require =
            |scope: &str| Verdict::Require(Requirements(vec![(Requirement::Scope, scope.to_owned())]));
        let rules = Rules(vec![
            Rule { methods: vec!["DELETE".to_owned()], prefixes: vec![path("/api")], ..rule(Verdict::Deny) },
            Rule {
                hosts: vec![
                    HostPattern::Exact("app.example".to_owned()),
                    HostPattern::Below(".cdn.example".to_owned()),
                ],
                paths: vec![path("/robots.txt")],
                prefixes: vec![path("/static/")],
                ..rule(Verdict::Public)
            },
            Rule { prefixes: vec![path("/api")], ..rule(require("api")) },
            rule(require("any")),
        ]);
        for (method, host, target, verdict) in [
            ("DELETE", "x", "/api/1", Verdict::Deny),
            ("GET", "x", "/api/1", require("api")),
            ("GET", "x", "/apis", require("any")),
            ("GET", "APP.example", "/robots.txt", Verdict::Public),
            ("GET", "app.example", "/robots.txt/", require("any")),
            ("GET", "app.example", "/static", Verdict::Public),
            ("GET", "a.CDN.example", "/static/x", Verdict::Public),
            ("GET", "a.b.cdn.example", "/static/x", Verdict::Public),
            ("GET", "cdn.example", "/static/x", require("any")),
            ("GET", ".cdn.example", "/static/x", require("any")),
            ("GET", "evilcdn.example", "/static/x", require("any")),
            ("GET", "app.example.evil", "/static/x", require("any")),
            ("DELETE", "x", "/other", require("any")),
        ] {
            assert_eq!(says(&rules, method, host, target), &verdict, "{method} {host}{target}");
        }
    }

    #[test]
    fn a_rule_may_ignore_the_case_of_ascii_letters_in_paths() {
        let protects = |ignore_case| {
            let (paths, prefixes) = (vec![path("/Internal")], vec![path("/admin")]);
            Rules(vec![Rule { paths, prefixes, ignore_case, ..rule(Verdict::Deny) }, rule(Verdict::Public)])
        };
        for target in ["/ADMIN/x", "/aDmIn", "/%41dmin/", "/Admin/X", "/internal", "/INTERNAL"] {
            assert_eq!(says(&protects(true), "GET", "x", target), &Verdict::Deny, "{target}");
            assert_eq!(says(&protects(false), "GET", "x", target), &Verdict::Public, "{target}");
        }
        // Letters that only Unicode case folding treats as equal: U+0131, U+212A.
        for target in ["/admins", "/adm\u{131}n", "/ADM\u{130}N", "/internal/", "/x/admin"] {
            assert_eq!(says(&protects(true), "GET", "x", target), &Verdict::Public, "{target}");
        }
    }

    #[test]
    fn without_a_rule_nobody_passes() {
        assert_eq!(says(&Rules::default(), "GET", "x", "/"), &Verdict::Deny);
    }
}

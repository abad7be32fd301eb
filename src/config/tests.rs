use std::path::Path;
use std::time::Duration;

use super::*;
use crate::store::disk::DiskSettings;
use crate::store::shared::RedisServers;

const MINIMAL: &str = "[[issuer]]\nurl = \"https://t.eu.auth0.com/\"\naudience = [\"https://api\"]\n";

fn read(text: &str) -> Result<Settings, Vec<String>> {
    Settings::read(&Source::text("holdfast.toml", text))
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

fn problems(text: &str) -> Vec<String> {
    read(text).expect_err("the configuration is bad")
}

#[test]
fn two_values_are_enough() {
    let settings = read(MINIMAL).unwrap();
    assert_eq!(settings.auth.listen, [Listen::Tcp("127.0.0.1:4180".parse().unwrap())]);
    assert_eq!(settings.admin.listen, "127.0.0.1:9180".parse().unwrap());
    assert_eq!(settings.policy.leeway, Duration::from_secs(30));
    assert_eq!(settings.tiers.iter().count(), 7);
    let headers: Vec<_> = settings.headers.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(headers, ["x-user-email", "x-user-id"]);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_name_and_its_line() {
    let text = format!("{MINIMAL}\n[policy]\nleway = \"10s\"\n");
    assert_eq!(problems(&text), ["holdfast.toml:6: unknown key policy.leway; did you mean policy.leeway?"]);
    let text = format!("{MINIMAL}algorithm = \"RS256\"\n[polizy]\n");
    assert_eq!(
        problems(&text),
        [
            "holdfast.toml:4: unknown key issuer[0].algorithm; did you mean issuer[0].algorithms?",
            "holdfast.toml:5: unknown key polizy; did you mean policy?",
        ]
    );
}

#[test]
fn a_bad_value_is_refused_with_its_line_and_what_is_allowed() {
    for (line, expected) in [
        (
            "[policy]\nleeway = \"5m\"",
            "holdfast.toml:5: policy.leeway = \"5m\": allowed is a duration from 0s to 2m",
        ),
        ("[store]\nmemory = \"1KB\"", "holdfast.toml:5: store.memory = \"1KB\": allowed is a size from"),
        (
            "[auth]\nlisten = [\"nonsense\"]",
            "holdfast.toml:5: auth.listen = \"nonsense\": allowed is an address",
        ),
        ("[auth]\nlisten = []", "holdfast.toml:5: auth.listen = []: allowed is at least one"),
        ("[auth]\nundecided_status = 200", "auth.undecided_status = 200: allowed is 503"),
        (
            "[policy]\nverdict_ceiling = \"x\"",
            "holdfast.toml:5: policy.verdict_ceiling = \"x\": allowed is one of primary",
        ),
        ("[headers]\n\"X-A\" = { claim = \"a\", required = false }", "if a 200 lacks the header"),
        ("[headers]\n\"X_A\" = \"a\"", "allowed is a header name of letters, digits and hyphens"),
        ("[headers]\n\"Set-Cookie\" = \"a\"", "allowed is a name that HTTP or holdfast itself does not use"),
        ("[headers]\n\"X-A\" = { claim = \"a\", default = \"a b\" }", "allowed is 1 to 256 visible ASCII"),
        ("[headers]\n\"X-A\" = { claim = \"a\", default = \"a%20b\" }", "visible ASCII characters without %"),
        (
            "[[tier]]\nname = \"a\"\nage = \"1h\"\nrole = \"fresh\"\n[[tier]]\nname = \"b\"\nage = \
             \"1h\"\nrole = \"outage\"",
            "holdfast.toml:8: tier[1]: tier 2 (b): its age is not above that of the tier before it",
        ),
        (
            "[breaker]\nopen_for = \"1m\"\nopen_for_max = \"30s\"",
            "holdfast.toml:6: breaker.open_for_max = \"30s\": allowed is at least as long as open_for",
        ),
        ("[breaker]\nfailure_rate = 1.5", "breaker.failure_rate = 1.5: allowed is a fraction"),
        ("[log]\nlevel = \"loud=1=2\"", "log.level"),
    ] {
        let found = problems(&format!("{MINIMAL}{line}\n"));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{line}\n{found:#?}");
    }
}

#[test]
fn an_issuer_is_checked_as_a_whole() {
    for (row, expected) in [
        ("url = \"http://t.eu.auth0.com/\"\naudience = [\"a\"]", "http:// only for loopback"),
        ("url = \"https://t/?x\"\naudience = [\"a\"]", "exactly as in the token's `iss`"),
        ("url = \"https://t/\"", "at least one audience"),
        ("audience = [\"a\"]", "issuer[0].url = nothing"),
        ("url = \"https://t/\"\naudience = [\"a\"]\nalgorithms = [\"none\"]", "allowed is one of RS256"),
        ("url = \"https://t/\"\naudience = [\"a\"]\nalgorithms = [\"RS256\", \"HS256\"]", "never mixed"),
        ("url = \"https://t/\"\naudience = [\"a\"]\nalgorithms = [\"HS256\"]", "set if and only if"),
        ("url = \"https://t/\"\naudience = [\"a\"]\nforeign_tokens = \"allow\"", "ask-issuer or refuse"),
    ] {
        let found = problems(&format!("[[issuer]]\n{row}\n"));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{row}\n{found:#?}");
    }
    assert!(problems("").iter().any(|problem| problem.contains("at least one [[issuer]]")));
    assert!(problems(&format!("{MINIMAL}{MINIMAL}")).iter().any(|problem| problem.contains("only once")));
}

#[test]
fn settings_that_do_not_go_together_are_told_once_where_they_stand() {
    for (text, expected) in [
        (
            "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\nsecret_file = \"/s\"\n",
            "holdfast.toml:4: issuer[0].secret_file = \"/s\": allowed is set if and only if algorithms are \
             HS256, HS384 or HS512",
        ),
        (
            "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\nalgorithms = [\"RS256\", \
             \"HS256\"]\nsecret_file = \"/s\"\n",
            "holdfast.toml:4: issuer[0].algorithms = [\"RS256\", \"HS256\"]: allowed is at least one \
             algorithm, all asymmetric or all HS, never mixed",
        ),
        (
            "[[issuer]]\nurl = \"ftp://t/\"\naudience = [\"a\"]\n",
            "holdfast.toml:2: issuer[0].url = \"ftp://t/\": allowed is the issuer's URL exactly as in the \
             token's `iss`, such as https://tenant.eu.auth0.com/ (http:// only for loopback)",
        ),
    ] {
        assert_eq!(problems(text), [expected]);
    }
    let twice = problems(&format!("{MINIMAL}{MINIMAL}"));
    assert_eq!(
        twice,
        ["holdfast.toml:5: issuer[1].url = \"https://t.eu.auth0.com/\": allowed is each issuer only once"]
    );
    let listen = problems(&format!("{MINIMAL}[auth]\nlisten = [\"nonsense\"]\n"));
    assert!(matches!(listen.as_slice(), [one] if one.contains("auth.listen = \"nonsense\"")), "{listen:?}");
    let tier = problems(&format!("{MINIMAL}[[tier]]\nname = \"a\"\nage = \"soon\"\nrole = \"fresh\"\n"));
    assert!(matches!(tier.as_slice(), [one] if one.contains(":6: tier[0].age = \"soon\"")), "{tier:?}");

    let mut source = Source::text("holdfast.toml", MINIMAL);
    source.environment = vec![("HOLDFAST_POLICY__VERDICT_CEILING".to_owned(), "x".to_owned())];
    let found = Settings::read(&source).unwrap_err().to_string();
    assert!(
        found.starts_with("environment variable HOLDFAST_POLICY__VERDICT_CEILING: policy.verdict_ceiling ="),
        "{found}"
    );
}

#[test]
fn one_table_of_an_issuer_is_a_list_of_one_for_flags_too() {
    let mut source = Source::text("holdfast.toml", "[issuer]\nurl = \"https://t/\"\n");
    let values = vec!["a".to_owned()];
    source.flags = vec![Flag { path: &["issuer", "0", "audience"], name: "--audience", values }];
    let settings = Settings::read(&source).unwrap();
    assert_eq!((settings.issuers.len(), settings.issuers[0].audience.as_slice()), (1, &["a".to_owned()][..]));
}

#[test]
fn a_syntax_error_names_its_line() {
    let found = problems(&format!("{MINIMAL}[policy\n"));
    assert!(found[0].starts_with("holdfast.toml:4: not valid TOML"), "{found:?}");
}

#[test]
fn a_key_that_is_set_twice_is_named_with_where_it_was_first() {
    for (text, expected) in [
        (
            "[policy]\nleeway = \"1s\"\n\n  leeway = \"2s\"\n",
            "holdfast.toml:4: not valid TOML: duplicate key policy.leeway: it is already set in line 2",
        ),
        (
            "[store]\npath = \"a\"\n[policy]\nleeway = \"1s\"\n[store]\n",
            "holdfast.toml:5: not valid TOML: duplicate key [store]: it is already set in line 1",
        ),
        (
            "[[issuer]]\nurl = \"a\"\n[[issuer]]\nurl = \"b\"\nurl = \"c\"\n",
            "holdfast.toml:5: not valid TOML: duplicate key issuer.url: it is already set in line 4",
        ),
        (
            "[headers]\nX-A = { claim = \"a\", claim = \"b\" }\n",
            "holdfast.toml:2: not valid TOML: duplicate key headers.claim: it is already set above",
        ),
    ] {
        assert_eq!(problems(text), [expected]);
    }
}

#[test]
fn without_an_issuer_the_two_flags_are_named() {
    let found = Settings::read(&Source::default()).unwrap_err().to_string();
    assert!(found.starts_with("without a configuration file: issuer = nothing: "), "{found}");
    assert!(found.contains("--issuer https://") && found.contains("--audience "), "{found}");
    let values = vec!["https://t/".to_owned()];
    let flags = vec![Flag { path: &["issuer", "0", "url"], name: "--issuer", values }];
    let found = Settings::read(&Source { flags, ..Source::default() }).unwrap_err().to_string();
    assert!(found.contains("issuer[0].audience = ") && found.contains("give --audience"), "{found}");
}

#[test]
fn variables_win_over_the_file_and_flags_over_variables() {
    let mut source = Source::text("holdfast.toml", &format!("{MINIMAL}[auth]\nlisten = \"127.0.0.1:1\"\n"));
    source.environment = [
        ("HOLDFAST_POLICY__LEEWAY", "7s"),
        ("HOLDFAST_ISSUER__0__AUDIENCE", "https://a, https://b"),
        ("HOLDFAST_AUTH__LISTEN", "127.0.0.1:2"),
        ("HOLDFAST_HEADERS__X_USER_NAME", "name"),
        // What Kubernetes sets for a service of this name is not ours.
        ("HOLDFAST_PORT", "tcp://10.0.0.1:4180"),
        ("HOLDFAST_SERVICE_HOST", "10.0.0.1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    source.flags =
        vec![Flag { path: &["auth", "listen"], name: "--listen", values: vec!["127.0.0.1:3".to_owned()] }];
    let settings = Settings::read(&source).unwrap();
    assert_eq!(settings.policy.leeway, Duration::from_secs(7));
    assert_eq!(settings.issuers[0].audience, ["https://a", "https://b"]);
    assert_eq!(settings.auth.listen, [Listen::Tcp("127.0.0.1:3".parse().unwrap())]);
    assert!(settings.headers.iter().any(|rule| rule.name == "x-user-name"));
}

#[test]
fn a_bad_variable_or_flag_is_named() {
    let mut source = Source::text("holdfast.toml", MINIMAL);
    source.environment = vec![("HOLDFAST_POLICY__LEEWAY".to_owned(), "soon".to_owned())];
    let found = Settings::read(&source).unwrap_err().to_string();
    assert!(
        found.starts_with("environment variable HOLDFAST_POLICY__LEEWAY: policy.leeway = \"soon\""),
        "{found}"
    );
    let source = Source {
        flags: vec![
            Flag { path: &["issuer", "0", "url"], name: "--issuer", values: vec!["ftp://t/".to_owned()] },
            Flag { path: &["issuer", "0", "audience"], name: "--audience", values: vec!["a".to_owned()] },
        ],
        ..Source::default()
    };
    let found = Settings::read(&source).unwrap_err().to_string();
    assert!(found.starts_with("flag --issuer: issuer[0].url = \"ftp://t/\""), "{found}");
}

#[test]
fn the_disk_store_has_its_own_defaults_and_takes_what_is_set() {
    assert_eq!(read(MINIMAL).unwrap().store.disk(), None);
    let store =
        |lines: &str| read(&format!("{MINIMAL}[store]\npath = \"/data\"\n{lines}")).map(|read| read.store);
    assert_eq!(store("").unwrap().disk(), Some(DiskSettings::at("/data")));
    let set = "block_cache = \"1GiB\"\nsync_interval = \"20ms\"\ncheckpoint_interval = \"0s\"\nsecret_file = \
               \"/s\"";
    let set = store(set).unwrap();
    let disk = set.disk().unwrap();
    assert_eq!((disk.block_cache, disk.sync_interval.as_millis()), (1 << 30, 20));
    assert_eq!(disk.checkpoint_interval, Duration::ZERO);
    assert_eq!(set.secret_file.as_deref(), Some(Path::new("/s")));
    for (line, allowed) in [
        ("checkpoint_interval = \"10ms\"", "0s (never) or a duration from 1s to 30days"),
        ("sync_interval = \"0s\"", "a duration from 1ms to 1m"),
        ("block_cache = \"1KiB\"", "a size from 1048576 B"),
        ("secret_file = \"\"", "a path, not empty"),
    ] {
        let problems = store(line).unwrap_err();
        assert!(matches!(problems.as_slice(), [one] if one.contains(allowed)), "{problems:?}");
    }
}

#[test]
fn upkeep_needs_no_issuer_and_is_as_strict_otherwise() {
    let upkeep = |text: &str| Settings::read_for_upkeep(&Source::text("holdfast.toml", text));
    assert!(upkeep("[store]\npath = \"/data\"\n").unwrap().issuers.is_empty());
    assert!(upkeep("[stor]\n").is_err());
    assert!(upkeep("[[issuer]]\nurl = \"nonsense\"\n").is_err());
}

#[test]
fn a_redis_needs_a_secret_that_instances_share_and_its_url_is_never_shown() {
    let store = |lines: &str| read(&format!("{MINIMAL}[store]\n{lines}")).map(|read| read.store);
    let url = "redis = \"redis://name:hunter2@host/1\"\n";
    let errors = store(url).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("store.secret_file = nothing: allowed is a file of 32 random bytes"),
        "{errors:?}"
    );
    let settings = store(&format!("{url}secret_file = \"/secret\"\nredis_timeout = \"20ms\"")).unwrap();
    let (shared, secret) = settings.shared().unwrap();
    assert_eq!((shared.read_timeout.as_millis(), secret), (20, Path::new("/secret")));
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert!(store("").unwrap().shared().is_none());

    for bad in ["http://:hunter2@host", "rediss://:hunter2@host/#insecure", "redis://:hunter2@host/x"] {
        let errors = store(&format!("redis = \"{bad}\"\nsecret_file = \"/secret\"")).unwrap_err();
        assert!(errors[0].contains("store.redis = (not shown): allowed is a URL such as"), "{errors:?}");
        assert!(!errors.concat().contains("hunter2"), "{errors:?}");
    }
    let errors = store("redis_password_file = \"/password\"").unwrap_err();
    assert!(errors[0].contains("a file only with store.redis"), "{errors:?}");
}

#[test]
fn sentinels_and_clusters_are_named_whole_alone_and_never_shown() {
    let store = |lines: &str| {
        read(&format!("{MINIMAL}[store]\nsecret_file = \"/secret\"\n{lines}")).map(|read| read.store)
    };
    let sentinels = "redis_sentinels = [\"redis://a:hunter2@s1:26379\", \"redis://s2:26379\"]\n";
    let master = "redis_sentinel_master = \"mymaster\"\n";
    let settings = store(&format!("{sentinels}{master}redis_password_file = \"/password\"")).unwrap();
    let Some(RedisServers::Sentinels(read)) = &settings.redis else { panic!("{settings:?}") };
    assert_eq!((read.addresses.len(), read.primary_name.as_str(), &read.user), (2, "mymaster", &None));
    assert!(!format!("{settings:?}").contains("hunter2"));

    let nodes = "redis_cluster = [\"redis://a:hunter2@n1:6379\"]\n";
    assert!(matches!(store(nodes).unwrap().redis, Some(RedisServers::Cluster(nodes)) if nodes.len() == 1));

    for (lines, problem) in [
        (
            format!("{nodes}redis = \"redis://:hunter2@host\""),
            "store.redis_cluster: is set as well as store.redis;",
        ),
        (
            format!("{nodes}{sentinels}{master}"),
            "store.redis_sentinels: is set as well as store.redis_cluster;",
        ),
        ("redis_cluster = []".to_owned(), "store.redis_cluster = []: allowed is at least one URL"),
        (
            sentinels.to_owned(),
            "store.redis_sentinel_master = nothing: allowed is with store.redis_sentinels, the",
        ),
        (
            master.to_owned(),
            "store.redis_sentinel_master = \"mymaster\": allowed is only together with store.red",
        ),
        ("redis_user = \"holdfast\"".to_owned(), "store.redis_user = \"holdfast\": allowed is only together"),
        (
            format!("{sentinels}{master}redis = \"redis://:hunter2@host\""),
            "store.redis_sentinels: is set as well as",
        ),
        (format!("{master}redis_sentinels = []"), "store.redis_sentinels = []: allowed is at least one URL"),
        (
            format!("{master}redis_sentinels = [\"unix:///s?pass=hunter2\"]"),
            "store.redis_sentinels = (not shown): allowed is URLs such as redis://host:26379,",
        ),
    ] {
        let errors = store(&lines).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(problem) && !errors[0].contains("hunter2"), "{errors:?}");
    }
}

#[test]
fn a_list_is_joined_by_one_character_and_only_where_lists_can_be() {
    let read = |row: &str| read(&format!("{MINIMAL}[headers]\n{row}\n"));
    for join in [",", "|", ";", " ", ":"] {
        let settings =
            read(&format!("\"X-Groups\" = {{ claim = \"permissions\", join = \"{join}\" }}")).unwrap();
        assert_eq!(settings.headers[2].join, join.chars().next());
    }
    for join in ["", ", ", "a", "0", "%", "\u{fc}", "\\n", "\\u007f"] {
        let problems = read(&format!("\"X-Groups\" = {{ claim = \"a\", join = \"{join}\" }}")).unwrap_err();
        assert!(problems[0].contains("headers.X-Groups.join"), "{problems:?}");
    }
    for (name, claim) in [("X-A", "email"), ("X-A", "sub"), ("X-A", "iss"), ("x-user-email", "a")] {
        let problems = read(&format!("\"{name}\" = {{ claim = \"{claim}\", join = \",\" }}")).unwrap_err();
        assert!(problems[0].contains("never lists"), "{problems:?}");
    }
}

#[test]
fn rows_that_leave_no_room_for_anybody_are_refused() {
    let issuer = "[[issuer]]\nurl = \"https://t/\"\naudience = [\"a\"]\n";
    let read = |auth: &str, rows: usize, default: usize| {
        let row = |row| format!("X-{row} = {{ claim = \"c\", default = \"{}\" }}\n", "d".repeat(default));
        let rows: String = (0..rows).map(row).collect();
        let text = format!("{issuer}{auth}\n[headers]\n{rows}");
        Settings::read(&Source::text("holdfast.toml", &text)).map_err(|errors| errors.to_string())
    };
    read("", 13, 256).unwrap();
    let error = read("", 14, 256).unwrap_err();
    assert!(error.contains("headers = ") && error.contains("up to 3584 bytes in an answer"), "{error}");

    let anonymous = format!("[auth]\nanonymous = \"{}\"\n", "n".repeat(256));
    read(&anonymous, 20, 1).unwrap();
    let preflight = "preflight = \"allow\"\ntrusted_peers = \"unix\"\nforwarded = \"x-original\"\n";
    let error = read(&format!("{anonymous}{preflight}"), 20, 1).unwrap_err();
    assert!(error.contains("auth.anonymous = "), "{error}");
}

#[test]
fn each_name_belongs_to_one_issuer() {
    let issuers = |one: &str, other: &str| {
        read(&format!(
            "[[issuer]]\nurl = \"https://a/\"\naudience = [\"x\"]\naliases = [{one}]\n\
             [[issuer]]\nurl = \"https://b/\"\naudience = [\"x\"]\naliases = [{other}]\n"
        ))
    };
    let settings = issuers("\"https://c/\", \"https://c\"", "\"https://d/\"").unwrap();
    assert_eq!(settings.issuers[0].aliases, ["https://c/", "https://c"]);
    for (one, other, place) in [
        ("\"https://b/\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("", "\"https://a/\"", "holdfast.toml:8: issuer[1].aliases"),
        ("\"https://a/\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("\"https://c/\"", "\"https://c/\"", "holdfast.toml:8: issuer[1].aliases"),
        ("\"https://c/\", \"https://c/\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("\"http://c.example/\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("\"https://c/?x\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("\"c.example\"", "", "holdfast.toml:4: issuer[0].aliases"),
        ("\"\"", "", "holdfast.toml:4: issuer[0].aliases"),
    ] {
        let problems = issuers(one, other).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with(place), "{one} {other}: {problems:?}");
    }
}

#[test]
fn an_issuer_is_bound_to_domains_and_a_rule_to_an_issuer_that_there_is() {
    let settings =
        read(&format!("{MINIMAL}email_domains = [\"Example.COM\", \"b\u{fc}cher.example\"]\n")).unwrap();
    assert_eq!(settings.issuers[0].email_domains, ["example.com", "b\u{fc}cher.example"]);
    for (lines, expected) in [
        ("email_domains = []", "issuer[0].email_domains = []: allowed is at least one domain"),
        ("email_domains = [\"@example.com\"]", "a domain, the part of an address after the @"),
        ("email_domains = [\".example.com\"]", "a domain, the part of an address after the @"),
        ("email_domains = [\"*\"]", "a domain, the part of an address after the @"),
        ("pss_with_rs_keys = true", "issuer[0].pss_with_rs_keys = true: allowed is false, unless"),
    ] {
        let found = problems(&format!("{MINIMAL}{lines}\n"));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{lines}\n{found:#?}");
    }
    let rules = "[auth]\nrequirements_from = \"rules\"\ntrusted_peers = [\"unix\"]\nforwarded = \
                 \"x-original\"\n[[rule]]\n";
    let rule = |issuer: &str| format!("{MINIMAL}{rules}require = {{ issuer = \"{issuer}\" }}\n");
    assert!(read(&rule("https://t.eu.auth0.com/")).is_ok());
    for (issuer, allowed) in
        [("https://t.eu.auth0.com", "one of https://t.eu.auth0.com/"), ("t.eu.auth0.com", "an issuer's url")]
    {
        let found = problems(&rule(issuer));
        assert!(found.iter().any(|problem| problem.contains(allowed)), "{issuer}\n{found:#?}");
    }
}

#[test]
fn networks_that_together_are_everybody_are_not_trusted() {
    for (list, version) in [
        ("\"0.0.0.0/1\", \"128.0.0.0/1\"", "IPv4"),
        ("\"unix\", \"0.0.0.0/2\", \"64.0.0.0/2\", \"128.0.0.0/1\"", "IPv4"),
        ("\"::/1\", \"8000::/1\"", "IPv6"),
    ] {
        let text = format!(
            "[auth]\ntrusted_peers = [{list}]\nforwarded = \"x-forwarded\"\n[[issuer]]\n\
             url = \"https://t.eu.auth0.com/\"\naudience = \"a\"\n"
        );
        let problem = Settings::read(&Source::text("test.toml", &text)).unwrap_err().to_string();
        assert!(
            problem.contains("auth.trusted_peers") && problem.contains(&format!("address of {version}")),
            "{problem}"
        );
    }
}

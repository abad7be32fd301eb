//! The commands as people type them: their input, their output, and what they do not change.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;

use holdfast_devtenant::{Options, Tenant};
use support::Holdfast;
use support::yaml::in_repository;
use tokio::process::Command;

/// Runs `holdfast` to its end: exit code, stdout, stderr.
async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let output = command.args(arguments).envs(variables.iter().copied()).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A holdfast that serves the tenant and keeps its records in `data`.
async fn serve(directory: &Path, tenant: &Tenant, data: &Path) -> Holdfast {
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = {data:?}\n\
         [[issuer]]\nurl = {:?}\naudience = [{:?}]\n",
        tenant.issuer(),
        tenant.audience()
    );
    Holdfast::start(directory, &config, 1).await.ready().await
}

#[tokio::test]
async fn each_command_lists_its_own_flags_and_no_others() {
    let flags = |help: &str| {
        let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
        let words = lines.filter_map(|line| line.split_whitespace().next());
        let mut flags: Vec<String> = words.map(str::to_owned).filter(|flag| flag != "--help").collect();
        flags.sort();
        flags.join(" ")
    };
    for (command, expected) in [
        ("serve", "--admin --audience --config --data --issuer --listen"),
        ("check", "--admin --audience --config --data --issuer --listen --offline"),
        ("config", "--admin --audience --config --data --issuer --listen"),
        (
            "inspect",
            "--ask --audience --client-cert --config --dpop --file --issuer --json --method --require --url",
        ),
        ("tiers", "--admin --any-instance --config"),
        ("purge", "--admin --all --any-instance --config --issuer --subject --token-file --yes"),
        (
            "revoke",
            "--admin --all --any-instance --config --issued-before --issuer --kid --list --session --subject \
             --token-file --yes",
        ),
        ("unrevoke", "--admin --all --any-instance --config --issuer --kid --session --subject --token-file"),
        ("breaker", "--admin --any-instance --config --endpoint --for --issuer"),
        ("backup", "--admin --any-instance --config --data --to"),
        ("restore", "--config --data --from"),
        ("import", "--admin --any-instance --config --data --exported-at --issuer --profiles"),
        ("health", "--admin --config --ready"),
    ] {
        let (code, help, _) = run(&[command, "-h"], &[]).await;
        assert_eq!((code, flags(&help.replace("-h, ", "")).as_str()), (Some(0), expected), "{help}");
    }
    let (_, help, _) = run(&["--help"], &[]).await;
    for proxy in ["nginx", "Traefik", "Caddy", "Envoy", "HAProxy"] {
        assert!(help.contains(proxy), "{help}");
    }
    let (_, help, _) = run(&["serve", "--help"], &[]).await;
    assert!(help.contains("tls:ADDRESS:PORT"), "{help}");
}

#[tokio::test]
async fn the_commands_on_the_status_page_have_the_flags_that_it_names() {
    let page = std::fs::read_to_string(in_repository("src/server/page/page.html")).unwrap();
    let commands = page.split("<code>holdfast ").skip(1);
    let commands: Vec<&str> = commands.filter_map(|rest| rest.split("</code>").next()).collect();
    assert!(!commands.is_empty());
    for command in commands {
        let mut words = command.split(' ');
        let (code, help, _) = run(&[words.next().unwrap(), "--help"], &[]).await;
        assert_eq!(code, Some(0), "{command}");
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{flag} ")), "{command}");
        }
    }
}

#[tokio::test]
async fn no_line_of_help_is_wider_than_110_columns() {
    let (_, overview, _) = run(&["--help"], &[]).await;
    let commands = overview.split("Commands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let mut pages = vec![overview.clone()];
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        pages.push(run(&[command, "--help"], &[]).await.1);
        pages.push(run(&[command, "-h"], &[]).await.1);
    }
    assert!(pages.len() > 20, "{overview}");
    let wide: Vec<&str> =
        pages.iter().flat_map(|page| page.lines()).filter(|line| line.chars().count() > 110).collect();
    assert!(wide.is_empty(), "{}", wide.join("\n"));
}

#[tokio::test]
async fn the_reference_has_one_row_for_each_command() {
    let (_, help, _) = run(&["--help"], &[]).await;
    let commands = help.split("Commands:\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
    let commands: BTreeSet<&str> = commands.map(|line| line.split_whitespace().next().unwrap()).collect();
    let page = std::fs::read_to_string(in_repository("docs/reference/commands.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `holdfast "));
    let rows: Vec<&str> = rows.map(|row| row.split([' ', '`']).next().unwrap()).collect();
    assert_eq!(rows.len(), commands.len(), "{rows:?}");
    assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), commands);
}

/// The exit codes that the reference names for each command: of each, the number that begins a part of the
/// last column.
fn documented_codes() -> BTreeMap<String, BTreeSet<i32>> {
    let page = std::fs::read_to_string(in_repository("docs/reference/commands.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `holdfast "));
    let codes = rows.map(|row| {
        let column = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let codes = column.split("; ").map(|part| {
            let number = part.split(' ').next().unwrap();
            number.parse().unwrap_or_else(|_| panic!("this part does not begin with an exit code: {part}"))
        });
        (row.split([' ', '`']).next().unwrap().to_owned(), codes.collect())
    });
    codes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_exits_with_the_codes_that_the_reference_names_and_no_others() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let text = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut holdfast = serve(directory.path(), &tenant, Path::new(&text("data"))).await;
    let (config, admin) = (text("holdfast.toml"), holdfast.admin.to_string());
    for (file, token) in
        [("good", tenant.mint().email_direct("a@x.org")), ("bad", tenant.mint().expires_in(-999))]
    {
        std::fs::write(text(file), token.build().unwrap()).unwrap();
    }
    let (good, bad, copy, none) = (text("good"), text("bad"), text("copy"), text("none"));
    let mut seen: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    let mut ends = async |arguments: &[&str], code: i32| {
        // The system chose the port, so the configuration does not name it.
        let ours = [("HOLDFAST_ADMIN__LISTEN", admin.as_str())];
        let given = [arguments, &["--config", &config]].concat();
        let (ended, said, why) = run(&given, &ours).await;
        assert_eq!(ended, Some(code), "{arguments:?}: {said}{why}");
        seen.entry(arguments[0].to_owned()).or_default().insert(code);
    };

    // While it runs, and the issuer answers.
    ends(&["check"], 0).await;
    ends(&["inspect", "--file", &good], 0).await;
    ends(&["inspect", "--file", &bad], 1).await;
    ends(&["inspect", "--file", &none], 2).await;
    ends(&["tiers"], 0).await;
    ends(&["purge", "--subject", "auth0|a"], 0).await;
    ends(&["purge", "--subject", "auth0|a", "--issuer", "https://other.example.com/"], 2).await;
    for command in ["revoke", "unrevoke"] {
        ends(&[command, "--subject", "auth0|a"], 0).await;
        ends(&[command, "--subject", "auth0|a", "--issuer", "https://other.example.com/"], 2).await;
        ends(&[command, "--subject", ""], 2).await;
    }
    ends(&["revoke", "--subject", "auth0|a", "--issued-before", "yesterday"], 2).await;
    ends(&["revoke", "--list"], 0).await;
    ends(&["breaker", "status"], 0).await;
    ends(&["breaker", "status", "--issuer", "https://other.example.com/"], 1).await;
    ends(&["health"], 0).await;
    ends(&["health", "--ready"], 0).await;
    ends(&["config"], 0).await;
    ends(&["backup", "--to", &copy], 0).await;
    ends(&["backup", "--to", &copy], 1).await;
    ends(&["restore", "--from", &copy], 1).await;
    ends(&["serve"], 1).await;
    let other = text("other.toml");
    std::fs::write(&other, "[[issuer]]\nurl = \"https://other.example.com/\"\naudience = \"a\"\n").unwrap();
    let (code, _, why) = run(&["tiers", "--config", &other, "--admin", &admin], &[]).await;
    assert_eq!(code, Some(1), "{why}");

    // After it has ended, and the issuer with it.
    holdfast.signal("TERM").await;
    assert_eq!(holdfast.ended().await, Some(0));
    tenant.go_down().await;
    ends(&["check"], 1).await;
    ends(&["restore", "--from", &copy], 0).await;
    let user = r#"{"user_id":"a","email":"a@x.org"}"#;
    for (users, code) in [(user.to_owned(), 0), (String::new(), 1), (format!("{user}\n{{"), 3)] {
        std::fs::write(text("users"), users).unwrap();
        ends(&["import", "--profiles", &text("users")], code).await;
    }
    ends(&["tiers"], 0).await;
    ends(&["purge", "--all", "--yes"], 1).await;
    ends(&["revoke", "--all", "--yes"], 1).await;
    ends(&["unrevoke", "--all"], 1).await;
    ends(&["breaker", "status"], 1).await;
    ends(&["health"], 1).await;

    let pages = directory.path().to_str().unwrap();
    for (arguments, expected) in [
        (["completions", "bash", ""], 0),
        (["completions", "no-such-shell", ""], 2),
        (["man", "--to", pages], 0),
        (["man", "--to", &none], 1),
        (["man", "--too", pages], 2),
    ] {
        let given: Vec<&str> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
        let (code, _, why) = run(&given, &[]).await;
        assert_eq!(code, Some(expected), "{arguments:?}: {why}");
        seen.entry(arguments[0].to_owned()).or_default().insert(expected);
    }
    // The shell that reads the completions may be gone.
    let script = format!("{} completions bash >/dev/full", env!("CARGO_BIN_EXE_holdfast"));
    let ended = Command::new("sh").args(["-c", &script]).output().await.unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    seen.entry("completions".to_owned()).or_default().insert(1);

    let seen_here = [("serve", 0), ("tiers", 1)];
    // A disk that is full: tests/full_disk.rs.
    let seen_elsewhere = [("purge", 3), ("revoke", 3), ("unrevoke", 3)];
    for (command, code) in seen_here.into_iter().chain(seen_elsewhere) {
        seen.entry(command.to_owned()).or_default().insert(code);
    }
    let documented = documented_codes();
    let needed = |command: &str| match command {
        "purge" | "revoke" | "unrevoke" => &["--all"][..],
        "breaker" => &["status"],
        "backup" => &["--to", "copy"],
        "restore" => &["--from", "copy"],
        "import" => &["--profiles", "users"],
        _ => &[],
    };
    let reads_settings = |command: &&String| !["completions", "man"].contains(&command.as_str());
    for command in documented.keys().filter(reads_settings) {
        for variable in [("HOLDFAST_ADMIN__LISTEN", "nowhere"), ("HOLDFAST_NO__SUCH", "setting")] {
            let (code, _, why) = run(&[&[command.as_str()], needed(command)].concat(), &[variable]).await;
            assert_eq!(code, Some(2), "{command} {variable:?}: {why}");
        }
        let (code, _, why) = run(&[command, "--no-such-flag"], &[]).await;
        assert_eq!(code, Some(2), "{command}: {why}");
        seen.entry(command.to_owned()).or_default().insert(2);
    }
    for (command, codes) in documented {
        // A command with a test file of its own is tried there; here it is tried with what is bad for all.
        let only_misused = seen[&command] == BTreeSet::from([2]);
        let good = if only_misused { codes.contains(&2) } else { codes == seen[&command] };
        assert!(
            good,
            "{command}: docs/reference/commands.md names {codes:?}, seen were {:?}",
            seen[&command]
        );
    }
}

#[tokio::test]
async fn config_shows_what_is_set_with_its_source_and_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holdfast.toml");
    std::fs::write(&file, "[store]\nredis = \"redis://me:s3cret@127.0.0.1:1/0\"\nsecret_file = \"/s\"\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let variables = [("HOLDFAST_POLICY__LEEWAY", "5s"), ("HOLDFAST_PORT", "of Kubernetes")];
    let (code, shown, why) = run(&["config", "--config", file, "--listen", "127.0.0.1:1"], &variables).await;
    assert_eq!(code, Some(0), "{why}");
    let expected = format!(
        "auth.listen = \"127.0.0.1:1\"  # flag --listen\n\
         policy.leeway = \"5s\"  # environment variable HOLDFAST_POLICY__LEEWAY\n\
         store.redis = \"redis://me:***@127.0.0.1:1/0\"  # {file}:2\n\
         store.secret_file = \"/s\"  # {file}:3\n\
         # Every other setting has its default; see docs/configuration.md.\n"
    );
    assert_eq!(shown, expected);

    // A mistyped URL might be shown with its password, so that nothing is shown.
    let mistyped = [("HOLDFAST_STORE__REDIS", "redis//me:s3cret@127.0.0.1")];
    let (code, shown, why) = run(&["config", "--config", file], &mistyped).await;
    assert_eq!((code, shown.as_str()), (Some(2), ""));
    assert!(why.contains("store.redis") && !why.contains("s3cret"), "{why}");
}

#[tokio::test]
async fn bash_completes_commands_and_flags() {
    let directory = tempfile::tempdir().unwrap();
    let (_, script, _) = run(&["completions", "bash"], &[]).await;
    let file = directory.path().join("holdfast");
    std::fs::write(&file, script).unwrap();
    for (words, expected) in [("holdfast rev", "revoke"), ("holdfast health --re", "--ready")] {
        let last = words.rsplit(' ').next().unwrap();
        let complete = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _holdfast holdfast {last} ''; echo \"${{COMPREPLY[*]}}\"",
            file.display()
        );
        let output = Command::new("bash").args(["-euc", &complete]).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{output:?}");
    }
    for (shell, first) in [("zsh", "#compdef holdfast"), ("fish", "# Print an optspec")] {
        let (_, script, _) = run(&["completions", shell], &[]).await;
        assert!(script.starts_with(first), "{script:.200}");
    }
}

#[tokio::test]
async fn each_command_has_a_manual_page_with_its_flags_and_examples() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, why) = run(&["man", "--to", directory.path().to_str().unwrap()], &[]).await;
    assert_eq!(code, Some(0), "{why}");
    let page = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap().replace('\\', "");
    let overview = page("holdfast.1");
    for command in documented_codes().keys() {
        assert!(overview.contains(&format!("holdfast-{command}(1)")), "{command}: {overview}");
        let text = page(&format!("holdfast-{command}.1"));
        assert!(text.contains("Examples:") && text.contains(&format!("holdfast {command}")), "{text}");
    }
    assert!(page("holdfast-health.1").contains("--ready"));
}

#[tokio::test]
async fn serve_without_an_issuer_names_the_two_flags_to_give() {
    let (code, _, said) = run(&["serve"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("--issuer https://") && said.contains("--audience IDENTIFIER"), "{said}");
}

#[tokio::test]
async fn check_offline_asks_nobody_and_still_finds_what_is_wrong_here() {
    // Nothing listens there; a call to it would fail.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}/", silent.local_addr().unwrap());
    let arguments = ["check", "--offline", "--issuer", &issuer, "--audience", "https://api.example.com"];
    let (code, said, _) = run(&arguments, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("configuration: good") && said.contains(": not asked"), "{said}");
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "somebody was asked");
    let (code, _, said) = run(&arguments, &[("HOLDFAST_STORE__SECRET_FILE", "/nonexistent")]).await;
    assert_eq!(code, Some(2), "{said}");
}

#[tokio::test]
async fn check_warns_of_an_audience_in_quotes_and_still_succeeds() {
    let quoted = [("HOLDFAST_ISSUER__0__AUDIENCE", "\"https://api.example.com\"")];
    let arguments = ["check", "--offline", "--issuer", "https://tenant.eu.auth0.com/"];
    let (code, said, _) = run(&arguments, &quoted).await;
    assert_eq!(code, Some(0), "{said}");
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
    let [warning] = warnings[..] else { panic!("{said}") };
    assert!(warning.contains("environment variable HOLDFAST_ISSUER__0__AUDIENCE"), "{warning}");
    assert!(warning.contains("a quotation mark"), "{warning}");
    let (_, said, _) = run(&arguments, &[("HOLDFAST_ISSUER__0__AUDIENCE", "https://api.example.com")]).await;
    assert!(!said.contains("warning"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_which_final_slash_the_issuer_lacks() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let without = tenant.issuer().trim_end_matches('/').to_owned();
    let (code, said, _) =
        run(&["check", "--issuer", &without, "--audience", "https://api.example.com"], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("with a final slash, and the configuration without"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_onto_a_directory_that_exists_makes_nothing_at_all() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let holdfast = serve(directory.path(), &tenant, &data).await;
    std::fs::create_dir(&copy).unwrap();
    let (data, copy, admin) = (data.to_str().unwrap(), copy.to_str().unwrap(), holdfast.admin.to_string());
    let (code, _, said) = run(&["backup", "--data", data, "--to", copy, "--admin", &admin], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("exists already"), "{said}");
    let checkpoints = Path::new(data).join("checkpoints");
    let made = std::fs::read_dir(checkpoints).map_or(0, Iterator::count);
    assert_eq!(made, 0, "a checkpoint was made for a backup that cannot be");
}

#[tokio::test]
async fn a_restore_from_what_is_no_backup_makes_nothing_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let (data, from) = (directory.path().join("data"), directory.path().join("none"));
    let arguments = ["restore", "--data", data.to_str().unwrap(), "--from", from.to_str().unwrap()];
    let (code, _, said) = run(&arguments, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!data.exists(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_by_its_exit_code_whether_holdfast_is_alive_and_ready() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut holdfast = serve(directory.path(), &tenant, &directory.path().join("data")).await;
    let admin = holdfast.admin.to_string();
    assert_eq!(run(&["health", "--admin", &admin], &[]).await.0, Some(0));
    assert_eq!(run(&["health"], &[("HOLDFAST_ADMIN__LISTEN", &admin)]).await.0, Some(0));
    let (code, said, _) = run(&["health", "--ready", "--admin", &admin], &[]).await;
    assert_eq!((code, said.as_str()), (Some(0), "ready\n"));
    holdfast.kill().await;
    let (code, _, said) = run(&["health", "--admin", &admin], &[]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&admin), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_not_ready_before_the_keys_are_known() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    tenant.go_down().await;
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "[auth]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[[issuer]]\nurl = {:?}\naudience = \"a\"\n",
        tenant.issuer()
    );
    let holdfast = Holdfast::start(directory.path(), &config, 1).await;
    let admin = holdfast.admin.to_string();
    assert_eq!(run(&["health", "--admin", &admin], &[]).await.0, Some(0));
    assert_eq!(run(&["health", "--ready", "--admin", &admin], &[]).await.0, Some(1));
}

/// There is no Docker here, so its file is read: images by minor version, and a health check that is a
/// command of ours.
#[tokio::test]
async fn the_dockerfile_pins_its_images_and_its_health_check_is_a_command_that_there_is() {
    let text = std::fs::read_to_string(in_repository("deploy/docker/Dockerfile")).unwrap();
    let images: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(images.len(), 2);
    for image in images {
        let (_, tag) = image.split_whitespace().next().unwrap().split_once(':').unwrap();
        let version = tag.split('-').next().unwrap();
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = version.split('.').collect();
        assert!(parts.len() >= 2 && parts.iter().all(|part| is_number(part)), "{image} has no minor version");
    }
    let check = text.lines().find_map(|line| line.strip_prefix("    CMD [")).unwrap();
    let words: Vec<&str> =
        check.trim_end_matches(']').split(", ").map(|word| word.trim_matches('"')).collect();
    assert!(text.contains("HEALTHCHECK ") && words[0] == "holdfast", "{words:?}");
    let (code, ..) = run(&[&words[1..], &["--help"]].concat(), &[]).await;
    assert_eq!(code, Some(0), "{words:?}");
    // Kubernetes cannot tell of a name that it is not root's, and does not start the container.
    let user = text.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    assert!(user.parse::<u32>().is_ok() && text.contains(&format!("--uid {user} ")), "{user}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_whom_it_reached_and_leaves_another_holdfast_than_its_own_alone() {
    let tenant = Tenant::start(Options::default()).await.unwrap();
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = directory.path().join("data");
    let holdfast = serve(directory.path(), &tenant, &data).await;
    let token = tenant.mint().opaque().build().unwrap();
    assert_eq!(holdfast.ask(&token).await.status, 200);
    let admin = holdfast.admin.to_string();
    let own = directory.path().join("holdfast.toml").to_str().unwrap().to_owned();
    let (other, same) = (elsewhere.path().join("other.toml"), elsewhere.path().join("same.toml"));
    let text = std::fs::read_to_string(&own).unwrap();
    std::fs::write(&other, text.replace(&tenant.audience(), "https://other.example.com")).unwrap();
    // What is not about who it is may differ.
    std::fs::write(&same, format!("{text}[policy]\nleeway = \"7s\"\n")).unwrap();
    let (other, same) = (other.to_str().unwrap(), same.to_str().unwrap());

    tenant.reset_calls();
    for command in [&["purge", "--all"][..], &["breaker", "force-open"], &["breaker", "status"], &["tiers"]] {
        let (code, said, why) = run(&[command, &["--config", other, "--admin", &admin]].concat(), &[]).await;
        assert_eq!((code, said.as_str()), (Some(1), ""), "{command:?}: {why}");
        assert!(why.contains(&format!("holdfast at {admin}:")) && why.contains("other issuers"), "{why}");
        assert!(why.contains("--any-instance"), "{why}");
        assert!(!why.contains(&tenant.issuer()), "{why}");
    }
    assert_eq!(holdfast.ask(&token).await.status, 200);
    assert_eq!(tenant.calls().userinfo, 0, "it was forgotten for another");

    // A data directory is a configuration, too.
    let store = ("HOLDFAST_STORE__PATH", elsewhere.path().to_str().unwrap());
    let (code, _, why) = run(&["purge", "--all", "--admin", &admin], &[store]).await;
    assert!(code == Some(1) && why.contains("another data directory"), "{why}");

    for given in
        [&["--config", own.as_str()][..], &["--config", same], &[], &["--config", other, "--any-instance"]]
    {
        let arguments = [&["purge", "--all", "--admin", &admin][..], given].concat();
        let (code, _, why) = run(&arguments, &[]).await;
        assert_eq!(code, Some(0), "{given:?}: {why}");
        assert!(why.contains(&format!("holdfast at {admin}:")), "{why}");
    }
}

/// With less, the runtime panics, and RocksDB aborts or hangs. The limit does not hold for root, so the test
/// becomes another user.
#[tokio::test]
async fn too_few_threads_are_said_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let (binary, data) = (directory.path().join("holdfast"), directory.path().join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &binary).unwrap();
    let id = Command::new("id").arg("-u").output().await.unwrap();
    for most in [1, 3, 5] {
        let mut command = match id.stdout.trim_ascii() {
            b"0" => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=54321", "--clear-groups", "prlimit"]);
                command
            }
            _ => Command::new("prlimit"),
        };
        command.arg(format!("--nproc={most}")).arg(&binary).args([
            "serve",
            "--issuer",
            "http://127.0.0.1:1/",
        ]);
        command.args(["--audience", "a", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data").arg(&data).kill_on_drop(true);
        let output = tokio::time::timeout(std::time::Duration::from_secs(20), command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("{most}: it started or hangs")).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{most}: {said}");
        assert!(said.contains("threads, and the system gave") && said.contains("TasksMax="), "{said}");
    }
    assert!(!data.exists(), "nothing was begun");
}

/// With less, the C libraries abort or hang in the middle of the start.
#[tokio::test]
async fn too_little_address_space_is_said_before_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for (mebibytes, store) in [(100, ""), (300, ""), (300, "with"), (1000, "with")] {
        let mut command = Command::new("prlimit");
        command.arg(format!("--as={}", mebibytes << 20)).arg(env!("CARGO_BIN_EXE_holdfast")).args([
            "serve",
            "--issuer",
            "http://127.0.0.1:1/",
            "--audience",
            "a",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        if !store.is_empty() {
            command.arg("--data").arg(&data);
        }
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(60), command.kill_on_drop(true).output());
        let output = ended.await.unwrap_or_else(|_| panic!("{mebibytes} MiB {store}: it started")).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mebibytes} MiB {store}: {said}");
        let expected = format!("the address space is limited to {mebibytes} MiB");
        assert!(said.contains(&expected) && said.contains("MemoryMax="), "{said}");
    }
    assert!(!data.exists(), "nothing was begun");
}

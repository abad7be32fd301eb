//! What docker compose makes of the example: the command lines of its services, without Docker.

use serde_json::{Value, json};

use crate::dynamic::set;
use crate::support::yaml::{documents, in_repository, texts};

/// The command line of the service `holdfast`: the image's ENTRYPOINT, and the service's `command` behind it.
pub fn holdfast(compose: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let service = &documents(compose)[0]["services"]["holdfast"];
    let image = service["build"]["dockerfile"].as_str().unwrap();
    let image = std::fs::read_to_string(in_repository(image)).unwrap();
    let entry = image.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let entry: Vec<String> = serde_json::from_str(entry).unwrap();
    let command = texts(service, "/command").into_iter().map(|word| interpolated(word, variables));
    entry.into_iter().chain(command).collect()
}

/// The command line of the service `traefik`.
pub fn traefik(compose: &str) -> Vec<String> {
    texts(&documents(compose)[0], "/services/traefik/command").into_iter().map(str::to_owned).collect()
}

/// What these flags say of entry points, as the static file would.
pub fn entry_points(command: &[String]) -> Value {
    let mut tree = json!({});
    for flag in command.iter().filter(|flag| flag.starts_with("--entryPoints.")) {
        let (path, value) = flag.strip_prefix("--").unwrap().split_once('=').unwrap();
        set(&mut tree, path.split('.'), json!(value));
    }
    tree["entryPoints"].take()
}

/// `${NAME:?}` is the variable, which must be set, and `$$` a dollar sign. Nothing else with a dollar sign is
/// known here.
pub fn interpolated(text: &str, variables: &[(&str, &str)]) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        done += before;
        rest = if let Some(after) = after.strip_prefix('$') {
            done.push('$');
            after
        } else {
            let name = after.strip_prefix('{').and_then(|after| after.split_once(":?}"));
            let (name, after) =
                name.unwrap_or_else(|| panic!("{text:?} has a dollar sign that is no variable"));
            done += variables.iter().find(|(known, _)| *known == name).unwrap().1;
            after
        };
    }
    done + rest
}

//! Traefik's dynamic configuration, in whichever of the three ways it is written: file, labels, or resources
//! of Kubernetes. Labels and resources become the file that says the same, so that no Docker and no cluster
//! is needed to ask the real Traefik about them.

use serde_json::{Map, Value, json};

use crate::compose::interpolated;
use crate::support::example::changed;
use crate::support::yaml::{documents, text, texts};

/// As the file has it: routers, middlewares, services.
#[derive(Debug)]
pub struct Dynamic(pub Value);

/// The one service that all examples have.
const BACKEND: &str = "backend";

/// Traefik's own, which answers by itself.
const NOOP: &str = "noop@internal";

/// How a rule may begin without a difference to the others: that every path is meant, and the host, which the
/// file has not.
const SAYS_NOTHING: [&str; 2] = ["PathPrefix(`/`) && ", "Host(`app.example.com`) && "];

impl Dynamic {
    pub fn of_file(text: &str) -> Self {
        Self(documents(text).remove(0))
    }

    /// What the labels of `whoami` in a compose file say. Docker's provider gives a router without a service
    /// the one of its container.
    pub fn of_labels(compose: &str) -> Self {
        let labels = &documents(compose)[0]["services"]["whoami"]["labels"];
        let mut tree = json!({});
        for (label, value) in labels.as_object().unwrap() {
            let value = interpolated(value.as_str().unwrap(), &[]);
            match label.strip_prefix("traefik.http.") {
                Some(path) => set(&mut tree, path.split('.'), listed(path, &value)),
                None => {
                    assert!(["traefik.enable", "traefik.docker.network"].contains(&label.as_str()), "{label}")
                }
            }
        }
        for router in tree["routers"].as_object_mut().unwrap().values_mut() {
            if router["service"].is_null() {
                router["service"] = json!(BACKEND);
            }
        }
        Self(json!({ "http": tree }))
    }

    /// What `Middleware` and `IngressRoute` say, with the names that Traefik's provider gives them.
    pub fn of_resources(manifest: &str) -> Self {
        let (mut routers, mut middlewares) = (Map::new(), Map::new());
        for resource in documents(manifest) {
            let [namespace, name] =
                ["namespace", "name"].map(|key| text(&resource["metadata"], &format!("/{key}")));
            match text(&resource, "/kind") {
                "Middleware" => {
                    middlewares.insert(format!("{namespace}-{name}"), resource["spec"].clone());
                }
                "IngressRoute" => {
                    for (number, route) in resource["spec"]["routes"].as_array().unwrap().iter().enumerate() {
                        let chain = route["middlewares"].as_array().into_iter().flatten().map(|middleware| {
                            let own = middleware["namespace"].as_str().unwrap_or(namespace);
                            format!("{own}-{}", text(middleware, "/name"))
                        });
                        let service = &route["services"][0];
                        let is_internal = service["kind"] == "TraefikService";
                        let router = json!({
                            "entryPoints": resource["spec"]["entryPoints"],
                            "rule": route["match"],
                            "priority": route["priority"],
                            "middlewares": chain.collect::<Vec<_>>(),
                            "service": if is_internal { text(service, "/name") } else { BACKEND },
                        });
                        routers.insert(format!("{namespace}-{name}-{number}"), router);
                    }
                }
                other => panic!("{other} is not looked at"),
            }
        }
        Self(json!({ "http": { "routers": routers, "middlewares": middlewares } }))
    }

    /// The file for a Traefik that asks `auth` and has its backend at `backend`.
    pub fn file(&self, auth: &str, backend: &str) -> String {
        let mut tree = self.0.clone();
        tree["http"]["services"] =
            json!({ BACKEND: { "loadBalancer": { "servers": [{ "url": backend }] } } });
        let mut file = serde_json::to_string_pretty(&tree).unwrap();
        for own in ["127.0.0.1:4180", "holdfast:4180", "holdfast.holdfast.svc.cluster.local:4180"] {
            file = changed(&file, &format!("http://{own}/"), &format!("http://{auth}/"));
        }
        file
    }

    pub fn middlewares(&self) -> &Map<String, Value> {
        self.0["http"]["middlewares"].as_object().unwrap()
    }

    /// What is wrong with how its middlewares deal with these headers, if anything is: each router to the
    /// backend has exactly one that asks holdfast or takes away what a client claims to be, and that one
    /// knows every header.
    pub fn check_identity(&self, headers: &[&str]) -> Result<(), String> {
        for (name, router) in self.0["http"]["routers"].as_object().unwrap() {
            let dealt_with = chain(router).into_iter().filter_map(|middleware| {
                let middleware = &self.middlewares().get(middleware)?;
                let removed = middleware.pointer("/headers/customRequestHeaders");
                match (middleware.pointer("/forwardAuth"), removed) {
                    (Some(asking), None) => Some(names(texts(asking, "/authResponseHeaders"))),
                    (None, Some(Value::Object(removed))) => {
                        let removed = removed.iter().filter(|(_, value)| *value == "");
                        Some(names(removed.map(|(name, _)| name.as_str())))
                    }
                    _ => None,
                }
            });
            let dealt_with: Vec<_> = dealt_with.collect();
            let expected = names(headers.iter().copied());
            if router["service"] != NOOP && dealt_with != [expected] {
                return Err(format!("the router {name} deals with {dealt_with:?}"));
            }
        }
        Ok(())
    }

    /// What it says, in one form for all three ways: routers by priority and without names, since resources
    /// have none.
    pub fn said(&self) -> Value {
        let plain = |name: &str| name.strip_prefix("app-").unwrap_or(name).to_owned();
        let mut routers: Vec<_> = self.0["http"]["routers"].as_object().unwrap().values().collect();
        routers.sort_by_key(|router| as_text(&router["priority"]));
        let routers = routers.into_iter().map(|router| {
            let rule = SAYS_NOTHING
                .iter()
                .fold(text(router, "/rule"), |rule, start| rule.strip_prefix(start).unwrap_or(rule));
            json!({
                "priority": as_text(&router["priority"]),
                "entryPoints": router["entryPoints"],
                "rule": rule,
                "service": router["service"],
                "middlewares": chain(router).into_iter().map(plain).collect::<Vec<_>>(),
            })
        });
        let middlewares = self.middlewares().iter().map(|(name, middleware)| {
            let mut middleware = middleware.clone();
            if let Some(asking) = middleware.get_mut("forwardAuth") {
                let (_, target) = text(asking, "/address").split_once(":4180").unwrap();
                asking["address"] = json!(target);
                asking["maxResponseBodySize"] = json!(as_text(&asking["maxResponseBodySize"]));
            }
            (plain(name), middleware)
        });
        json!({ "routers": routers.collect::<Vec<_>>(), "middlewares": middlewares.collect::<Map<_, _>>() })
    }
}

/// The middlewares of a router, if it has any.
fn chain(router: &Value) -> Vec<&str> {
    if router["middlewares"].is_null() { Vec::new() } else { texts(router, "/middlewares") }
}

fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().map(str::to_lowercase).collect();
    names.sort();
    names
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// In a label, commas separate the items of what is a list.
fn listed(path: &str, value: &str) -> Value {
    let is_list = ["entryPoints", "middlewares", "authResponseHeaders", "authRequestHeaders"];
    match path.rsplit('.').next() {
        Some(last) if is_list.contains(&last) => json!(value.split(',').collect::<Vec<_>>()),
        _ => json!(value),
    }
}

pub fn set<'p>(tree: &mut Value, path: impl Iterator<Item = &'p str>, value: Value) {
    let place = path.fold(tree, |place, key| {
        if place.is_null() {
            *place = json!({});
        }
        &mut place[key]
    });
    *place = value;
}

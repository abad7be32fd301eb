//! What ingress-nginx reads in its manifests. Kubernetes accepts any annotation and any key of a ConfigMap,
//! and the controller silently ignores unknown ones: `auth-urll` leaves an application open to everybody.

use serde_json::Value;

use super::support::IDENTITY;
use crate::support::yaml::{documents, text};

/// The annotations that an example may have: those about external authentication, by the controller's
/// documentation (`annotations.md`) and its template. None whose name ends in `-snippet` is here, on purpose.
const ANNOTATIONS: [&str; 23] = [
    "auth-always-set-cookie",
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-url",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "enable-cors",
    "enable-global-auth",
];

/// The keys of the controller's ConfigMap that an example may have (`configmap.md`), in the same way.
const SETTINGS: [&str; 12] = [
    "allow-snippet-annotations",
    "enable-underscores-in-headers",
    "global-auth-always-set-cookie",
    "global-auth-method",
    "global-auth-request-redirect",
    "global-auth-response-headers",
    "global-auth-signin",
    "global-auth-url",
    "ignore-invalid-headers",
    "large-client-header-buffers",
    "no-auth-locations",
    "proxy-buffer-size",
];

/// What the whole example rests on.
const NEEDED: [(&str, &str); 3] = [
    ("allow-snippet-annotations", "false"),
    ("enable-underscores-in-headers", "false"),
    ("ignore-invalid-headers", "true"),
];

/// Paths that the controller asks holdfast about.
#[derive(Debug)]
pub struct Subrequest {
    /// The paths, all that begin so.
    pub path: String,
    /// The question's target.
    pub target: String,
}

/// What an Ingress manifest protects, or what is wrong with it.
pub fn ingresses(manifest: &str) -> Result<Vec<Subrequest>, String> {
    documents(manifest).iter().map(ingress).collect()
}

fn ingress(resource: &Value) -> Result<Subrequest, String> {
    let annotations = resource["metadata"]["annotations"].as_object().ok_or("no annotations")?;
    for annotation in annotations.keys() {
        let name = annotation.strip_prefix("nginx.ingress.kubernetes.io/");
        if !name.is_some_and(|name| ANNOTATIONS.contains(&name)) {
            return Err(format!("the controller has no annotation {annotation}"));
        }
    }
    let value =
        |name: &str| annotations.get(&format!("nginx.ingress.kubernetes.io/{name}")).and_then(Value::as_str);
    headers(value("auth-response-headers"))?;
    Ok(Subrequest {
        path: text(resource, "/spec/rules/0/http/paths/0/path").to_owned(),
        target: target(value("auth-url"))?,
    })
}

/// What the controller's ConfigMap has asked for every Ingress, or what is wrong with it. The lines that are
/// commented out there count, since they are there to be taken in.
pub fn config_map(manifest: &str) -> Result<Subrequest, String> {
    let manifest = manifest.replace("  # global-auth", "  global-auth");
    let data = &documents(&manifest)[0]["data"];
    for key in data.as_object().ok_or("no data")?.keys() {
        if !SETTINGS.contains(&key.as_str()) {
            return Err(format!("the controller has no setting {key}"));
        }
    }
    for (key, needed) in NEEDED {
        if data[key] != needed {
            return Err(format!("{key} is {}", data[key]));
        }
    }
    headers(data["global-auth-response-headers"].as_str())?;
    Ok(Subrequest { path: "/".to_owned(), target: target(data["global-auth-url"].as_str())? })
}

fn target(url: Option<&str>) -> Result<String, String> {
    let target = url.and_then(|url| url.strip_prefix("http://holdfast.holdfast.svc.cluster.local:4180"));
    target.map(str::to_owned).ok_or_else(|| format!("holdfast is not asked: {url:?}"))
}

fn headers(list: Option<&str>) -> Result<(), String> {
    super::check_names(list.unwrap_or_default().split(','))
        .map_err(|problem| format!("response headers: {problem}, not {IDENTITY:?}"))
}

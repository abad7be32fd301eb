//! What a gateway reads in an HTTPRoute with the filter `ExternalAuth`.

use crate::support::yaml::{documents, text, texts};

/// Where holdfast is asked: what stands before the client's path.
pub fn path(manifest: &str, listen: &str) -> Result<String, String> {
    let resources = documents(manifest);
    let [route, grant] = resources.as_slice() else { return Err("not two resources".to_owned()) };
    let filters = route["spec"]["rules"][0]["filters"].as_array().ok_or("no filters")?;
    let [removing, asking] = filters.as_slice() else { return Err("not two filters".to_owned()) };
    let asking = &asking["externalAuth"];
    super::check_names(texts(removing, "/requestHeaderModifier/remove"))?;
    super::check_names(texts(asking, "/http/allowedResponseHeaders"))?;

    let service = &asking["backendRef"];
    if !listen.ends_with(&format!(":{}", service["port"])) {
        return Err(format!("holdfast listens on {listen}, not on {}", service["port"]));
    }
    // Without this grant the gateway may not ask a service in another namespace.
    let [from, to] = [&grant["spec"]["from"][0], &grant["spec"]["to"][0]];
    let granted = to["name"] == service["name"]
        && grant["metadata"]["namespace"] == service["namespace"]
        && from["namespace"] == route["metadata"]["namespace"];
    if granted { Ok(text(asking, "/http/path").to_owned()) } else { Err(format!("{service} is not granted")) }
}

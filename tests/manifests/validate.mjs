// Holds Kubernetes manifests against the published schemas of their kinds: `node validate.mjs MODULES FILE...`, where
// MODULES has node_modules in it. Prints one line for each resource, or what is wrong.
//
// A schema of Kubernetes lets unknown fields pass, and the API server drops them silently. So the resource is handed to the
// validator behind a proxy that notes what is looked at: a field nobody looks at does not exist.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, ...files] = process.argv.slice(2);
const { parseAllDocuments } = createRequire(join(modules, "x.js"))("yaml");

const SCHEMAS = {
  "apps/v1 Deployment": ["kubernetes-models", "IoK8sApiAppsV1Deployment"],
  "gateway.networking.k8s.io/v1 HTTPRoute": ["@kubernetes-models/gateway-api", "IoK8sSigsGatewayApiApisV1HTTPRoute"],
  "gateway.networking.k8s.io/v1beta1 ReferenceGrant": ["@kubernetes-models/gateway-api", "IoK8sSigsGatewayApiApisV1beta1ReferenceGrant"],
  "networking.k8s.io/v1 Ingress": ["kubernetes-models", "IoK8sApiNetworkingV1Ingress"],
  "networking.k8s.io/v1 NetworkPolicy": ["kubernetes-models", "IoK8sApiNetworkingV1NetworkPolicy"],
  "traefik.io/v1alpha1 IngressRoute": ["@kubernetes-models/traefik", "ComGithubTraefikTraefikV3PkgProviderKubernetesCrdTraefikioV1alpha1IngressRoute"],
  "traefik.io/v1alpha1 Middleware": ["@kubernetes-models/traefik", "ComGithubTraefikTraefikV3PkgProviderKubernetesCrdTraefikioV1alpha1Middleware"],
  "policy/v1 PodDisruptionBudget": ["kubernetes-models", "IoK8sApiPolicyV1PodDisruptionBudget"],
  "v1 ConfigMap": ["kubernetes-models", "IoK8sApiCoreV1ConfigMap"],
  "v1 Service": ["kubernetes-models", "IoK8sApiCoreV1Service"],
};

const problems = [];

function noting(value, path, looked) {
  if (value === null || typeof value !== "object") return value;
  return new Proxy(value, {
    get(target, name) {
      if (typeof name !== "string" || !Object.hasOwn(target, name)) return target[name];
      looked.add(`${path}/${name}`);
      return noting(target[name], `${path}/${name}`, looked);
    },
  });
}

// The package lists the filter types of the standard channel, though it has the schema of `externalAuth`; the type is of the
// experimental one.
function isExperimental({ keyword, instancePath }, resource) {
  const [, rule, filter] = /^\/spec\/rules\/(\d+)\/filters\/(\d+)\/type$/.exec(instancePath) ?? [];
  const found = rule && resource.spec.rules[rule].filters[filter];
  return keyword === "enum" && found && found.type === "ExternalAuth" && found.externalAuth !== undefined;
}

function* paths(value, path) {
  if (value === null || typeof value !== "object") return;
  for (const [name, inner] of Object.entries(value)) {
    yield `${path}/${name}`;
    yield* paths(inner, `${path}/${name}`);
  }
}

for (const file of files) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const resource = document.toJS();
    const kind = `${resource.apiVersion} ${resource.kind}`;
    const where = `${file}: ${kind} ${resource.metadata?.name}`;
    const [name, schema] = SCHEMAS[kind] ?? [];
    if (document.errors.length > 0 || !schema) {
      problems.push(`${where}: ${document.errors[0] ?? "no schema"}`);
      continue;
    }
    const module = join(modules, "node_modules", name, "_schemas", `${schema}.js`);
    const { validate } = await import(pathToFileURL(module));
    const looked = new Set();
    validate(noting(resource, "", looked));
    const errors = (validate.errors ?? []).filter((error) => !isExperimental(error, resource));
    if (errors.length > 0) problems.push(`${where}: ${JSON.stringify(errors)}`);
    for (const path of paths(resource, "")) {
      if (!looked.has(path)) problems.push(`${where}: no such field: ${path}`);
    }
    console.log(kind);
  }
}
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}

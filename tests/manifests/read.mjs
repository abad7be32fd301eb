// Prints the documents of a YAML text as JSON: `node read.mjs MODULES <TEXT`, where MODULES has node_modules in it.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules] = process.argv.slice(2);
const { parseAllDocuments } = createRequire(join(modules, "x.js"))("yaml");

// `merge`: dynamic.yml of Traefik's example has `<<`.
const documents = parseAllDocuments(readFileSync(0, "utf8"), { merge: true });
for (const { errors } of documents) {
  if (errors.length > 0) throw errors[0];
}
console.log(JSON.stringify(documents.map((document) => document.toJS())));

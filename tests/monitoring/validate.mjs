// Holds a dashboard against the types of Grafana's own schema: node validate.mjs MODULES DASHBOARD.json
//
// The npm package @grafana/schema has the schema as TypeScript. So the dashboard becomes a literal of TypeScript, and the
// compiler says what is missing, misspelt, or of another kind. Exit code 1 and its words if something is.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [modules, file] = process.argv.slice(2);
const ts = createRequire(join(modules, 'node_modules', 'x.js'))('typescript');
const dashboard = JSON.parse(readFileSync(file, 'utf8'));

// The package and the stem of the file with the options of each type of panel.
const KINDS = { timeseries: 'TimeSeries', stat: 'Stat', 'state-timeline': 'StateTimeline' };
const panelcfg = (type) => {
  const folder = type.replace('-', '');
  return `@grafana/schema/dist/esm/raw/composable/${folder}/panelcfg/x/${KINDS[type]}PanelCfg_types.gen`;
};

const { panels, ...rest } = dashboard;
const lines = ["import type { Dashboard, Panel, RowPanel } from '@grafana/schema';"];
for (const type of Object.keys(KINDS)) {
  lines.push(`import type * as ${KINDS[type]} from '${panelcfg(type)}';`);
}
lines.push(
  // JSON has no enums: their values stand for them.
  'type Plain<T> = T extends string ? (string extends T ? T : `${T}`) : T extends (infer U)[] ? Plain<U>[]',
  '  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;',
  // What is not set has its default.
  'type Set<T> = { [K in keyof T]?: T[K] extends object ? Partial<T[K]> : T[K] };',
  'type Own<O, F = object> = Omit<Plain<Panel>, "options" | "fieldConfig"> & { options: Plain<Set<O>>;',
  '  fieldConfig: Omit<Plain<Panel>["fieldConfig"] & object, "defaults"> & {',
  '    defaults: Omit<(Plain<Panel>["fieldConfig"] & object)["defaults"], "custom"> & { custom?: Plain<Partial<F>> } } };',
  `export const rest: Plain<Dashboard> = ${JSON.stringify(rest, null, 1)};`,
);
panels.forEach((panel, index) => {
  const kind = KINDS[panel.type];
  const custom = panel.type === 'stat' ? '' : `, ${kind}.FieldConfig`;
  const type = panel.type === 'row' ? 'Plain<RowPanel>' : kind ? `Own<${kind}.Options${custom}>` : 'never';
  lines.push(`// ${panel.title}`, `export const panel${index}: ${type} = ${JSON.stringify(panel, null, 1)};`);
});

const name = join(modules, 'dashboard.ts');
const text = lines.join('\n');
const options = {
  strict: true, noEmit: true, skipLibCheck: true, types: [], target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
};
const host = ts.createCompilerHost(options);
const { getSourceFile, fileExists, readFile } = host;
host.fileExists = (path) => path === name || fileExists(path);
host.readFile = (path) => (path === name ? text : readFile(path));
host.getSourceFile = (path, ...more) =>
  path === name ? ts.createSourceFile(path, text, options.target) : getSourceFile(path, ...more);
const found = ts.getPreEmitDiagnostics(ts.createProgram([name], options, host));
for (const { file: source, start, messageText } of found) {
  const before = source ? source.text.slice(0, start) : '';
  const panel = before.split('\n').findLast((line) => line.startsWith('// ')) ?? '// the dashboard';
  console.error(`${panel.slice(3)}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`);
}
process.exit(found.length ? 1 : 0);

import { readFileSync } from 'node:fs';
import { parse as parseYaml } from 'yaml';
import { environmentName, isSetting, nearest, parseSetting, type Setting, type SettingTree, walkSettings } from './config-setting.ts';
import { type Config, settings } from './config-settings.ts';
import { CairnError } from './errors.ts';

export type { Config } from './config-settings.ts';

export type ConfigSource = 'default' | 'file' | 'environment' | 'flag';

export interface ConfigInput {
  /** Path of a YAML file; its keys are groups and names of the settings. */
  readonly file?: string;
  /** The environment; only the names of settings are read. Others that begin with CAIRN_ are let be: Kubernetes makes such ones for services. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `path=value`, each overriding all else; the last one of a path wins. */
  readonly sets?: readonly string[];
}

export interface ConfigLine {
  readonly path: string;
  readonly environment: string;
  readonly value: unknown;
  readonly default: unknown;
  readonly source: ConfigSource;
  readonly doc: string;
  readonly expects: string;
}

const known: ReadonlyMap<string, Setting<unknown>> = new Map([...walkSettings(settings)].map((entry) => [entry.path, entry.setting]));
const sources = new WeakMap<Config, ReadonlyMap<string, ConfigSource>>();

/**
 * Defaults, then the file, then the environment, then flags. Unknown keys of the file and of flags, and values that are none, are errors
 * (InvalidParameter) that name the key, the value and what is expected, or the nearest key there is.
 */
export function loadConfig(input: ConfigInput): Config {
  const values = new Map<string, unknown>();
  const from = new Map<string, ConfigSource>();
  const set = (path: string, raw: unknown, source: ConfigSource, where: string): void => {
    const node = known.get(path);
    if (!node) throw unknownKey(path, where);
    values.set(path, parseSetting(path, node, raw, where));
    from.set(path, source);
  };
  if (input.file !== undefined) {
    for (const [path, raw] of fileValues(input.file)) set(path, raw, 'file', input.file);
  }
  for (const path of known.keys()) {
    const name = environmentName(path);
    const raw = input.env[name];
    // An empty variable is how shells and compose files say "not set".
    if (raw !== undefined && raw !== '') set(path, raw, 'environment', name);
  }
  for (const assignment of input.sets ?? []) {
    const at = assignment.indexOf('=');
    if (at <= 0) throw new CairnError('InvalidParameter', `config: --set ${JSON.stringify(assignment)} is not path=value`);
    set(assignment.slice(0, at).trim(), assignment.slice(at + 1), 'flag', '--set');
  }
  const config = build(settings, '', values) as Config;
  sources.set(config, from);
  return config;
}

/** Every setting with its value and where that came from, for `cairn config show`. Secrets are masked. */
export function describeConfig(config: Config): ConfigLine[] {
  const from = sources.get(config);
  return [...known].map(([path, node]) => ({
    path,
    environment: environmentName(path),
    value: masked(node, valueAt(config, path)),
    default: masked(node, node.default),
    source: from?.get(path) ?? 'default',
    doc: node.doc,
    expects: node.expects,
  }));
}

function masked(node: Setting<unknown>, value: unknown): unknown {
  return node.secret && value !== '' ? '***' : value;
}

function valueAt(config: Config, path: string): unknown {
  let node: unknown = config;
  for (const name of path.split('.')) node = (node as Record<string, unknown>)[name];
  return node;
}

function build(tree: SettingTree, prefix: string, values: ReadonlyMap<string, unknown>): unknown {
  const entries = Object.entries(tree).map(([name, node]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (!isSetting(node)) return [name, build(node, path, values)];
    const value = values.has(path) ? values.get(path) : node.default;
    return [name, Array.isArray(value) ? Object.freeze([...value]) : value];
  });
  return Object.freeze(Object.fromEntries(entries));
}

function* fileValues(file: string): Generator<[string, unknown]> {
  let document: unknown;
  try {
    document = parseYaml(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new CairnError('InvalidParameter', `config: ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
  if (document === null || document === undefined) return;
  yield* flatten(document, '', settings, file);
}

function* flatten(node: unknown, path: string, tree: SettingTree, file: string): Generator<[string, unknown]> {
  if (typeof node !== 'object' || node === null || Array.isArray(node)) {
    throw new CairnError(
      'InvalidParameter',
      `config: ${path === '' ? 'the document' : path} is ${JSON.stringify(node)} (${file}), expected a group of settings`,
    );
  }
  for (const [name, value] of Object.entries(node)) {
    const inner = path === '' ? name : `${path}.${name}`;
    const known = Object.hasOwn(tree, name) ? tree[name] : undefined;
    if (known === undefined) throw unknownKey(inner, file);
    if (isSetting(known)) yield [inner, value];
    // A group that is named and left empty in YAML is null.
    else if (value !== null) yield* flatten(value, inner, known, file);
  }
}

function unknownKey(path: string, where: string): CairnError {
  const near = nearest(path, known.keys());
  return new CairnError('InvalidParameter', `config: unknown key ${path} (${where})${near === undefined ? '' : `; did you mean ${near}?`}`);
}

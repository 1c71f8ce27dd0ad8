import { CairnError } from './errors.ts';

/** One value that can be configured: how it is parsed, what it is when nobody says, and what it is for. */
export interface Setting<T> {
  readonly isSetting: true;
  readonly default: T;
  readonly doc: string;
  /** What a value must be, for messages: "an integer from 0 to 65535". */
  readonly expects: string;
  /** Shown as *** by `describeConfig`. */
  readonly secret: boolean;
  /** The value as typed, or undefined when `raw` (a YAML value, or text of the environment or a flag) is not one. */
  parse(raw: unknown): T | undefined;
}

/** Settings by name, in groups of any depth. */
export interface SettingTree {
  readonly [name: string]: Setting<unknown> | SettingTree;
}

/** The values of a tree of settings, in its shape. */
export type ConfigOf<T> = { readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : ConfigOf<T[K]> };

export function isSetting(node: Setting<unknown> | SettingTree): node is Setting<unknown> {
  return node.isSetting === true;
}

function setting<T>(fallback: T, doc: string, expects: string, parse: (raw: unknown) => T | undefined, secret = false): Setting<T> {
  return { isSetting: true, default: fallback, doc, expects, secret, parse };
}

export function text(fallback: string, doc: string): Setting<string> {
  return setting(fallback, doc, 'a text', asText);
}

/** A text that is never printed. */
export function secret(fallback: string, doc: string): Setting<string> {
  return setting(fallback, doc, 'a text', asText, true);
}

export function flag(fallback: boolean, doc: string): Setting<boolean> {
  return setting(fallback, doc, 'true or false', (raw) =>
    raw === true || raw === 'true' || raw === '1' ? true : raw === false || raw === 'false' || raw === '0' ? false : undefined,
  );
}

export function choice<const T extends string>(options: readonly T[], fallback: NoInfer<T>, doc: string): Setting<T> {
  return setting<T>(fallback, doc, `one of ${options.join(', ')}`, (raw) => options.find((option) => option === raw));
}

function range(min: number, max: number): string {
  return max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `from ${min} to ${max}`;
}

export function integer(fallback: number, doc: string, min = 0, max = Number.MAX_SAFE_INTEGER): Setting<number> {
  return setting(fallback, doc, `an integer ${range(min, max)}`, (raw) => within(asNumber(raw, {}), min, max));
}

const byteUnits = { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30 };

/** A size: plain bytes, or with a unit (`960KiB`, `64 MB`). */
export function bytes(fallback: number, doc: string, min = 0, max = Number.MAX_SAFE_INTEGER): Setting<number> {
  return setting(fallback, doc, `bytes ${range(min, max)}, or with a unit such as 64MiB`, (raw) =>
    within(asNumber(raw, byteUnits), min, max),
  );
}

const timeUnits = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A duration: plain milliseconds, or with a unit (`3s`, `3h`). */
export function milliseconds(fallback: number, doc: string, min = 0, max = Number.MAX_SAFE_INTEGER): Setting<number> {
  return setting(fallback, doc, `milliseconds ${range(min, max)}, or with a unit such as 3s`, (raw) =>
    within(asNumber(raw, timeUnits), min, max),
  );
}

/** Texts: a YAML list, or one text with commas. */
export function list(fallback: readonly string[], doc: string): Setting<readonly string[]> {
  return setting(fallback, doc, 'a list of texts, or texts with commas between', (raw) => {
    const items = Array.isArray(raw) ? raw : typeof raw === 'string' ? raw.split(',') : undefined;
    if (!items?.every((item) => typeof item === 'string')) return undefined;
    return items.map((item: string) => item.trim()).filter((item) => item !== '');
  });
}

/** `proxy.maxTopK` -> `CAIRN_PROXY_MAX_TOP_K`. */
export function environmentName(path: string): string {
  const words = path.replace(/([a-z0-9])([A-Z])/g, '$1_$2').replace(/([A-Z])([A-Z][a-z])/g, '$1_$2');
  return `CAIRN_${words.replaceAll('.', '_').toUpperCase()}`;
}

/** All settings of a tree with their dotted paths, in the order they are written. */
export function* walkSettings(tree: SettingTree, prefix = ''): Generator<{ readonly path: string; readonly setting: Setting<unknown> }> {
  for (const [name, node] of Object.entries(tree)) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (isSetting(node)) yield { path, setting: node };
    else yield* walkSettings(node, path);
  }
}

/** The known name closest to a mistyped one (edit distance), for the suggestion in the error. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Parses one value or says what is wrong with it: key, value, where it came from, and what is expected. */
export function parseSetting(path: string, node: Setting<unknown>, raw: unknown, source: string): unknown {
  const value = node.parse(raw);
  if (value === undefined) {
    const shown = node.secret ? '***' : JSON.stringify(raw);
    throw new CairnError('InvalidParameter', `config: ${path} is ${shown} (${source}), expected ${node.expects}`);
  }
  return value;
}

function asText(raw: unknown): string | undefined {
  return typeof raw === 'string' ? raw : typeof raw === 'number' || typeof raw === 'boolean' ? String(raw) : undefined;
}

function asNumber(raw: unknown, units: Readonly<Record<string, number>>): number | undefined {
  if (typeof raw === 'number') return raw;
  if (typeof raw !== 'string') return undefined;
  const match = /^\s*(-?\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(raw);
  if (!match) return undefined;
  const unit = match[2] === '' ? 1 : units[match[2].toLowerCase()];
  return unit === undefined ? undefined : Math.round(Number(match[1]) * unit * 1e6) / 1e6;
}

function within(value: number | undefined, min: number, max: number): number | undefined {
  return value !== undefined && Number.isSafeInteger(value) && value >= min && value <= max ? value : undefined;
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    previous = row;
  }
  return previous[b.length];
}

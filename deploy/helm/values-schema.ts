/**
 * Writes deploy/helm/cairn/values.schema.json: the chart's own values by the shape of values.yaml, and `config` by the table of settings, so that
 * a mistyped name fails `helm install` with that name. Run it after a setting or a value changed; a test holds the file to it.
 *
 *   node deploy/helm/values-schema.ts            writes the file
 *   node deploy/helm/values-schema.ts --print    prints it
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isSetting, type Setting, type SettingTree, settings } from '@cairn/base';
import { parse } from 'yaml';

type Schema = Readonly<Record<string, unknown>>;

const chart = join(import.meta.dirname, 'cairn');

/** Values of any shape: they are handed to Kubernetes as they are. */
const OPEN = new Set(['commonLabels', 'labels', 'annotations', 'podAnnotations', 'nodeSelector', 'affinity', 'resources']);
/** Settings that the chart itself makes, for each pod or for its ports. */
const OF_CHART = new Set(['dataDir', 'proxy.port', 'http.port', 'node.id', 'node.port', 'node.advertiseHost', 'objects.s3.accessKeyId']);
/** Stores that can be shared by pods. */
const KINDS: Readonly<Record<string, string>> = { 'meta.kind': 'etcd', 'wal.kind': 'jetstream', 'objects.kind': 's3' };
const LIMITS: Readonly<Record<string, Schema>> = {
  'embedded.etcd.replicas': { enum: [1, 3] },
  'embedded.nats.replicas': { enum: [1, 3] },
  'embedded.minio.replicas': { enum: [1, 3] },
  'proxy.service.type': { enum: ['ClusterIP', 'NodePort', 'LoadBalancer'] },
  'image.pullPolicy': { enum: ['Always', 'IfNotPresent', 'Never'] },
  'topologySpread.whenUnsatisfiable': { enum: ['ScheduleAnyway', 'DoNotSchedule'] },
};

/** Schema of a setting, by what it says it expects; the server itself checks more strictly at start. */
function ofSetting(path: string, setting: Setting<unknown>): Schema {
  const description = `${setting.doc} (${setting.expects})`;
  const kind = KINDS[path];
  if (kind !== undefined) return { description, const: kind };
  const { expects } = setting;
  if (expects === 'true or false') return { description, type: 'boolean' };
  if (expects.startsWith('one of ')) return { description, enum: expects.slice('one of '.length).split(', ') };
  if (expects.startsWith('a list')) return { description, type: ['array', 'string'], items: { type: 'string' } };
  if (expects.startsWith('an integer')) {
    const range = /from (-?\d+) to (\d+)/.exec(expects);
    const least = /(-?\d+) or more/.exec(expects);
    return {
      description,
      type: 'integer',
      ...(range ? { minimum: Number(range[1]), maximum: Number(range[2]) } : least ? { minimum: Number(least[1]) } : {}),
    };
  }
  if (expects.startsWith('bytes') || expects.startsWith('milliseconds')) return { description, type: ['integer', 'string'] };
  return { description, type: ['string', 'number', 'boolean'] };
}

function ofSettings(tree: SettingTree, prefix = ''): Schema {
  const properties: Record<string, Schema> = {};
  for (const [name, node] of Object.entries(tree)) {
    const path = prefix === '' ? name : `${prefix}.${name}`;
    if (OF_CHART.has(path)) continue;
    if (!isSetting(node)) properties[name] = ofSettings(node, path);
    // A secret has no place in a ConfigMap.
    else if (!node.secret) properties[name] = ofSetting(path, node);
  }
  return { type: 'object', additionalProperties: false, properties };
}

function ofValue(name: string, path: string, value: unknown): Schema {
  const limits = LIMITS[path] ?? {};
  if (path === 'config') return { description: 'Settings of the servers', ...ofSettings(settings) };
  if (OPEN.has(name)) return { type: 'object' };
  if (Array.isArray(value)) return { type: 'array' };
  if (value === null) return { type: ['integer', 'null'] };
  if (typeof value === 'object') {
    const properties = Object.fromEntries(
      Object.entries(value).map(([inner, held]) => [inner, ofValue(inner, path === '' ? inner : `${path}.${inner}`, held)]),
    );
    return { type: 'object', additionalProperties: false, properties };
  }
  if (typeof value === 'boolean') return { type: 'boolean' };
  if (typeof value === 'number') return { type: 'integer', minimum: 0, ...limits };
  return { type: 'string', ...limits };
}

/** Helm adds `global` to every chart's values. */
export function valuesSchema(): string {
  const values: unknown = parse(readFileSync(join(chart, 'values.yaml'), 'utf8'));
  const schema = ofValue('', '', values) as { properties: Record<string, Schema> };
  return `${JSON.stringify(
    {
      $schema: 'http://json-schema.org/draft-07/schema#',
      title: 'Values of the Cairn chart',
      ...schema,
      properties: { global: { type: 'object' }, ...schema.properties },
    },
    null,
    2,
  )}\n`;
}

if (import.meta.main) {
  if (process.argv.includes('--print')) process.stdout.write(valuesSchema());
  else writeFileSync(join(chart, 'values.schema.json'), valuesSchema());
}

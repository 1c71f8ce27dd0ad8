/** What the chart promises, held against its renderings; without helm these tests are skipped with the reason. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '@cairn/base';
import { describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { valuesSchema } from '../../deploy/helm/values-schema.ts';

const root = join(import.meta.dirname, '../..');
const chart = join(root, 'deploy/helm/cairn');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly env?: readonly { readonly name: string; readonly value?: string; readonly valueFrom?: Readonly<Record<string, unknown>> }[];
  readonly securityContext?: Readonly<Record<string, unknown>>;
  readonly resources?: { readonly requests?: unknown; readonly limits?: unknown };
  readonly livenessProbe?: { readonly httpGet: { readonly path: string } };
  readonly readinessProbe?: { readonly httpGet: { readonly path: string } };
}
interface PodSpec {
  readonly automountServiceAccountToken?: boolean;
  readonly enableServiceLinks?: boolean;
  readonly securityContext?: Readonly<Record<string, unknown>>;
  readonly containers: readonly Container[];
}
interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template?: { readonly spec: PodSpec } } & Partial<PodSpec>;
}

/** Path of helm, or why there is none. */
function findHelm(): { path: string; reason: string } {
  const found = spawnSync(join(root, 'tools/chart/build.sh'), ['helm'], { encoding: 'utf8' });
  if (found.status !== 0) return { path: '', reason: found.stderr.trim().split('\n').at(-1) ?? 'no helm' };
  return { path: found.stdout.trim().slice('helm '.length), reason: '' };
}

const helm = findHelm();
const skipped = helm.path === '' ? ` (skipped: ${helm.reason})` : '';
if (skipped !== '') console.warn(`SKIP chart: ${helm.reason}`);

const EMBEDDED = ['--set', 'embedded.etcd.enabled=true,embedded.nats.enabled=true,embedded.minio.enabled=true'];

function render(...args: string[]): Manifest[] {
  const text = execFileSync(helm.path, ['template', 'r', chart, '--kube-version', '1.28.0', ...args], {
    encoding: 'utf8',
    maxBuffer: 16 << 20,
  });
  return parseAllDocuments(text).flatMap((document) => {
    const manifest = document.toJS() as Manifest | null;
    return manifest === null ? [] : [manifest];
  });
}

function podsOf(manifests: readonly Manifest[]): { name: string; spec: PodSpec }[] {
  return manifests.flatMap(({ kind, metadata, spec }) => {
    const pod = spec?.template?.spec ?? (kind === 'Pod' ? (spec as PodSpec) : undefined);
    return pod ? [{ name: metadata.name, spec: pod }] : [];
  });
}

function configOf(manifests: readonly Manifest[]): string {
  return manifests.find(({ kind, data }) => kind === 'ConfigMap' && data?.['cairn.yaml'] !== undefined)?.data?.['cairn.yaml'] ?? '';
}

test('values.schema.json is what the table of settings and values.yaml say', () => {
  expect(read('deploy/helm/cairn/values.schema.json')).toBe(valuesSchema());
});

test('every metric that an alert or the dashboard names is measured somewhere, and every alert has its place in the runbook', () => {
  const declared = execFileSync(
    'grep',
    ['-rhoE', "'cairn_[a-z_]+'", join(root, 'libs'), join(root, 'services'), '--include=*.ts', '--exclude-dir=node_modules'],
    {
      encoding: 'utf8',
    },
  );
  const metrics = new Set(declared.split('\n').map((line) => line.replaceAll("'", '')));
  const rules = read('deploy/helm/cairn/templates/monitoring/prometheusrule.yaml');
  const named = `${rules}${read('deploy/helm/cairn/dashboards/cairn.json')}`.match(/cairn_[a-z_]+/g) ?? [];
  expect(named.length).toBeGreaterThan(10);
  for (const name of named) expect(metrics, name).toContain(name.replace(/_(total|bucket|count|sum)$/, ''));
  const headings = read('docs/runbook.md')
    .split('\n')
    .filter((line) => line.startsWith('## '))
    .map((line) => line.slice(3).trim().toLowerCase());
  for (const [, anchor] of rules.matchAll(/\$runbook \}\}#([a-z]+)"/g)) expect(headings).toContain(anchor);
});

describe.skipIf(helm.path === '')(`the chart${skipped}`, () => {
  test('every pod passes the restricted pod security standard, has no token of the API, and a read-only root', () => {
    const pods = podsOf(render(...EMBEDDED));
    expect(pods.map(({ name }) => name)).toContain('r-cairn-streaming');
    for (const { name, spec } of pods) {
      expect(spec.automountServiceAccountToken, name).toBe(false);
      // Else CAIRN_PROXY_PORT=tcp://... of the service would be read as a setting.
      expect(spec.enableServiceLinks, name).toBe(false);
      expect(spec.securityContext, name).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } });
      for (const container of spec.containers) {
        expect(container.securityContext, name).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        });
        expect(container.resources?.requests, name).toBeDefined();
        expect(container.resources?.limits, name).toBeDefined();
      }
    }
  });

  test('credentials and certificates of the stores come from Secrets: as variables and files, never in the configuration', () => {
    const sets = [
      'secrets.etcd.existingSecret=etcd-user,secrets.etcd.tlsSecret=etcd-tls',
      'secrets.nats.existingSecret=nats-user,secrets.nats.tlsSecret=nats-tls,secrets.nats.clientCertificate=false',
    ];
    const manifests = render(...EMBEDDED, '--set', sets.join(','));
    const config = configOf(manifests);
    expect(config).toContain('/etc/cairn-tls/etcd/tls.key');
    expect(config).toContain('/etc/cairn-tls/nats/ca.crt');
    expect(config).not.toContain('/etc/cairn-tls/nats/tls.key');
    for (const role of ['proxy', 'datacoord', 'streaming', 'datanode']) {
      const text = JSON.stringify(podsOf(manifests).find(({ name }) => name === `r-cairn-${role}`)?.spec);
      for (const part of [
        'CAIRN_META_ETCD_PASSWORD',
        'CAIRN_WAL_NATS_PASSWORD',
        '"secretName":"etcd-tls"',
        '"mountPath":"/etc/cairn-tls/nats"',
      ])
        expect(text, role).toContain(part);
    }
    expect(() => render(...EMBEDDED, '--set', 'config.meta.etcd.password=x')).toThrow(/password/);
  });

  test('the settings that it writes are ones that the servers take', () => {
    const directory = mkdtempSync(join(tmpdir(), 'cairn-chart-'));
    try {
      const file = join(directory, 'cairn.yaml');
      writeFileSync(
        file,
        configOf(
          render(...EMBEDDED, '--set', 'embedded.nats.replicas=3,config.segment.maxBytes=64MiB,config.proxy.maxConcurrentRequests=7'),
        ),
      );
      const config = loadConfig({ file, env: {} });
      expect(config.wal.nats.servers).toHaveLength(3);
      expect(config.wal.nats.monitors).toHaveLength(3);
      expect(config.wal.nats.replicas).toBe(3);
      expect(config.segment.maxBytes).toBe(64 * 2 ** 20);
      expect(config.proxy.maxConcurrentRequests).toBe(7);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('keys of the bucket come from a Secret and stand in no ConfigMap', () => {
    const manifests = render(
      '--set',
      'config.meta.etcd.endpoints={e:2379},config.wal.nats.servers={n:4222},config.objects.s3.bucket=b,secrets.objects.existingSecret=mine',
    );
    for (const { name, spec } of podsOf(manifests).filter((pod) => !pod.name.endsWith('round-trip'))) {
      const secrets = spec.containers[0]?.env
        ?.filter(({ valueFrom }) => valueFrom?.['secretKeyRef'] !== undefined)
        .map((entry) => entry.name);
      expect(secrets, name).toEqual(['CAIRN_OBJECTS_S3_ACCESS_KEY_ID', 'CAIRN_OBJECTS_S3_SECRET_ACCESS_KEY']);
    }
    expect(manifests.some(({ kind }) => kind === 'Secret')).toBe(false);
  });

  test('JetStream answers a write only when it is on disk, and three servers keep three copies', () => {
    const manifests = render(...EMBEDDED, '--set', 'embedded.nats.replicas=3');
    expect(manifests.find(({ data }) => data?.['nats.conf'] !== undefined)?.data?.['nats.conf']).toContain('sync_interval: always');
    expect((parse(configOf(manifests)) as { wal: { nats: { replicas: number } } }).wal.nats.replicas).toBe(3);
  });

  test('being alive says nothing of what a process depends on, being ready does', () => {
    for (const { name, spec } of podsOf(render(...EMBEDDED)).filter((pod) => /-(proxy|datacoord|streaming|datanode)$/.test(pod.name))) {
      expect(spec.containers[0]?.livenessProbe?.httpGet.path, name).toBe('/healthz');
      expect(spec.containers[0]?.readinessProbe?.httpGet.path, name).toBe('/readyz');
    }
  });

  test('compose runs the roles with the settings, and the stores with the images and arguments, that the chart renders', () => {
    const manifests = render(...EMBEDDED);
    const compose = parse(read('deploy/compose/compose.yaml'), { merge: true }) as {
      services: Record<string, { image: string; command: string[] }>;
    };
    const addresses = (text: string): unknown =>
      parse(text.replace(/r-cairn-(etcd|nats)-0\.r-cairn-(etcd|nats)/g, '$1').replaceAll('r-cairn-', ''));
    expect(parse(read('deploy/compose/cairn.yaml'))).toEqual(addresses(configOf(manifests)));
    const pods = new Map(podsOf(manifests).map(({ name, spec }) => [name.replace('r-cairn-', ''), spec.containers[0]]));
    for (const role of ['proxy', 'datacoord', 'streaming', 'datanode'])
      expect(compose.services[role]?.command.slice(0, 4), role).toEqual(pods.get(role)?.args);
    for (const store of ['etcd', 'nats', 'minio']) expect(compose.services[store]?.image, store).toBe(pods.get(store)?.image);
    const etcd = pods.get('etcd')?.args ?? [];
    for (const argument of compose.services['etcd']?.command.slice(1) ?? [])
      if (!/^--(name|advertise)/.test(argument)) expect(etcd).toContain(argument);
    const nats = manifests.find(({ data }) => data?.['nats.conf'] !== undefined)?.data?.['nats.conf'] ?? '';
    const jetstream = /^jetstream .*$/m;
    expect(read('deploy/compose/nats.conf').match(jetstream)?.[0]).toBe(nats.match(jetstream)?.[0]);
  });

  test('lint-chart.sh: helm lint, the matrix of renderings, the schemas of Kubernetes', { timeout: 300_000 }, () => {
    const run = spawnSync(join(root, 'tests/scripts/lint-chart.sh'), { encoding: 'utf8' });
    expect(run.status, `${run.stdout}\n${run.stderr}`).toBe(0);
  });
});

test('e2e-k8s.sh tells its options and refuses what it does not know', () => {
  const script = join(root, 'tests/scripts/e2e-k8s.sh');
  const help = spawnSync(script, ['--help'], { encoding: 'utf8' });
  expect(help.status).toBe(0);
  for (const option of ['--use-current-context', '--image', '--values', '--keep', '--suite', '--artifacts'])
    expect(help.stdout).toContain(option);
  const wrong = spawnSync(script, ['--suit', 'smoke'], { encoding: 'utf8' });
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain('unknown option --suit');
});

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { environmentName, walkSettings } from '../src/config-setting.ts';
import { settings } from '../src/config-settings.ts';
import { describeConfig, hasCode, loadConfig } from '../src/index.ts';

const dir = mkdtempSync(join(tmpdir(), 'cairn-config-'));
afterAll(() => rmSync(dir, { recursive: true }));

let files = 0;
function file(text: string): string {
  const path = join(dir, `${files++}.yaml`);
  writeFileSync(path, text);
  return path;
}

function failure(input: Parameters<typeof loadConfig>[0]): string {
  try {
    loadConfig(input);
  } catch (error) {
    expect(hasCode(error, 'InvalidParameter')).toBe(true);
    return (error as Error).message;
  }
  throw new Error('loadConfig took it');
}

describe('config', () => {
  test('defaults are those of one embedded process, and every default is a legal value of its setting', () => {
    const config = loadConfig({ env: {} });
    expect([config.meta.kind, config.objects.kind, config.wal.kind]).toEqual(['lmdb', 'disk', 'lmdb']);
    expect([config.proxy.port, config.http.port, config.dataDir]).toEqual([19530, 9091, './data']);
    for (const { path, setting } of walkSettings(settings)) expect([path, setting.parse(setting.default)]).toEqual([path, setting.default]);
  });

  test('names in the environment come from the path and are all different', () => {
    expect(environmentName('proxy.port')).toBe('CAIRN_PROXY_PORT');
    expect(environmentName('dataDir')).toBe('CAIRN_DATA_DIR');
    expect(environmentName('objects.s3.accessKeyId')).toBe('CAIRN_OBJECTS_S3_ACCESS_KEY_ID');
    const names = [...walkSettings(settings)].map((entry) => environmentName(entry.path));
    expect(new Set(names).size).toBe(names.length);
  });

  test('a flag beats the environment, which beats the file, which beats the default', () => {
    const input = {
      file: file('proxy:\n  port: 1\n  host: a\nhttp:\n  port: 2\nwal:\n'),
      env: { CAIRN_PROXY_PORT: '3', CAIRN_HTTP_PORT: '', CAIRN_OTHER: 'x' },
    };
    const config = loadConfig({ ...input, sets: ['proxy.port=4', 'meta.etcd.endpoints=a:1, b:2'] });
    expect([config.proxy.port, config.proxy.host, config.http.port]).toEqual([4, 'a', 2]);
    expect(config.meta.etcd.endpoints).toEqual(['a:1', 'b:2']);
    expect(loadConfig(input).proxy.port).toBe(3);
    const lines = new Map(describeConfig(config).map((line) => [line.path, line]));
    expect(['proxy.port', 'proxy.host', 'http.port', 'dataDir'].map((path) => lines.get(path)?.source)).toEqual([
      'flag',
      'file',
      'file',
      'default',
    ]);
    expect(lines.get('proxy.port')).toMatchObject({ value: 4, default: 19530, environment: 'CAIRN_PROXY_PORT' });
  });

  test('sizes and durations take units', () => {
    const config = loadConfig({ env: { CAIRN_SEGMENT_MAX_BYTES: '64 MiB', CAIRN_RESTORE_JOB_RETENTION_MS: '1.5h' } });
    expect([config.segment.maxBytes, config.restore.jobRetentionMs]).toEqual([64 * 2 ** 20, 5_400_000]);
  });

  test('an unknown key is an error that suggests the near one', () => {
    expect(failure({ file: file('proxy:\n  prot: 1\n'), env: {} })).toMatch(/unknown key proxy\.prot \(.*\); did you mean proxy\.port\?/);
    expect(failure({ env: {}, sets: ['datadir=x'] })).toContain('did you mean dataDir?');
    expect(failure({ file: file('toString: 1\n'), env: {} })).toContain('unknown key toString');
  });

  test('a bad value names the key, the value and what is expected', () => {
    expect(failure({ env: { CAIRN_PROXY_PORT: '70000' } })).toBe(
      'config: proxy.port is "70000" (CAIRN_PROXY_PORT), expected an integer from 0 to 65535',
    );
    expect(failure({ env: {}, sets: ['meta.kind=zookeeper'] })).toContain('expected one of lmdb, etcd, memory');
    expect(failure({ env: {}, sets: ['proxy.port'] })).toContain('is not path=value');
    expect(failure({ file: file('proxy: 5\n'), env: {} })).toContain('proxy is 5');
    expect(failure({ file: file('proxy:\n  port: [1]\n'), env: {} })).toContain('proxy.port is [1]');
    expect(failure({ file: join(dir, 'absent.yaml'), env: {} })).toContain('absent.yaml cannot be read');
  });

  test('the configuration is frozen and secrets are masked', () => {
    const config = loadConfig({ env: { CAIRN_OBJECTS_S3_SECRET_ACCESS_KEY: 'hush' } });
    expect(config.objects.s3.secretAccessKey).toBe('hush');
    expect(JSON.stringify(describeConfig(config))).not.toContain('hush');
    expect(Object.isFrozen(config) && Object.isFrozen(config.proxy) && Object.isFrozen(config.meta.etcd.endpoints)).toBe(true);
  });
});

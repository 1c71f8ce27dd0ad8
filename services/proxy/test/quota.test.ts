import { CairnError, loadConfig, SystemRuntime } from '@cairn/base';
import { CollectionRecord, DatabaseRecord } from '@cairn/proto/cairn/meta';
import { schemaFromWire } from '@cairn/schema';
import { describe, expect, it } from 'vitest';
import type { CollectionEntry } from '../src/proxy-catalog.ts';
import { Quota } from '../src/quota.ts';
import { toStatus } from '../src/status.ts';
import { sampleSchema } from './sample-schema.ts';

/** A clock that the test moves. */
class Clock extends SystemRuntime {
  ms = 1_000;
  override monotonic(): number {
    return this.ms;
  }
}

function entry(properties: Record<string, string> = {}, database: Record<string, string> = {}, id = 1): CollectionEntry {
  const pairs = (from: Record<string, string>) => Object.entries(from).map(([key, value]) => ({ key, value }));
  return {
    database: DatabaseRecord.fromPartial({ name: 'db', properties: pairs(database) }),
    record: CollectionRecord.fromPartial({ id, name: `c${id}`, properties: pairs(properties) }),
    schema: schemaFromWire(sampleSchema()),
  };
}

function quotaOf(sets: readonly string[]): { quota: Quota; clock: Clock } {
  const clock = new Clock();
  return { quota: new Quota(loadConfig({ env: {}, sets: sets.map((set) => `quota.${set}`) }), clock), clock };
}

/** The Status of what it throws. */
function statusOf(work: () => void) {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(CairnError);
    return toStatus(error);
  }
  return undefined;
}

describe('quotas', () => {
  it('limit nothing by default', () => {
    const { quota } = quotaOf([]);
    for (let i = 0; i < 1000; i++) {
      quota.write(entry(), 'insert', 1 << 30);
      quota.read(entry(), 'search', 16_384);
      quota.ddl();
    }
  });

  it('refuse with code 8, retriable, until the second has paid for what was written', () => {
    const { quota, clock } = quotaOf(['insertBytesPerSecond=1000']);
    quota.write(entry(), 'insert', 600);
    quota.write(entry(), 'upsert', 1_400);
    expect(statusOf(() => quota.write(entry(), 'insert', 1))).toMatchObject({ code: 8, errorCode: 49, retriable: true });
    // Reads and deletes have limits of their own.
    quota.write(entry(), 'delete', 1);
    quota.read(entry(), 'query', 1);
    clock.ms += 900;
    expect(statusOf(() => quota.write(entry(), 'insert', 1))?.code).toBe(8);
    clock.ms += 200;
    quota.write(entry(), 'insert', 50);
  });

  it('of a collection leave the others alone; its property goes before the setting', () => {
    const { quota, clock } = quotaOf(['collectionSearchVectorsPerSecond=2']);
    quota.read(entry(), 'search', 2);
    expect(statusOf(() => quota.read(entry(), 'search', 1))?.code).toBe(8);
    quota.read(entry({}, {}, 2), 'search', 1);
    const own = entry({ 'collection.searchRate.max.vps': '100' });
    quota.read(own, 'search', 50);
    quota.read(own, 'search', 50);
    expect(statusOf(() => quota.read(own, 'search', 1))?.reason).toMatch(/100 searched vectors a second in collection c1/);
    clock.ms += 1000;
    quota.read(own, 'search', 1);
    const slow = entry({ 'collection.insertRate.max.mb': '0.5' }, {}, 3);
    quota.write(slow, 'insert', 1 << 20);
    expect(statusOf(() => quota.write(slow, 'insert', 1))?.code).toBe(8);
    clock.ms += 1_100;
    quota.write(slow, 'insert', 1);
  });

  it('a rate below one a second lets one through at once', () => {
    const { quota, clock } = quotaOf([]);
    const rare = entry({ 'collection.flushRate.max.qps': '0.1' });
    quota.write(rare, 'flush', 1);
    expect(statusOf(() => quota.write(rare, 'flush', 1))?.code).toBe(8);
    clock.ms += 5_000;
    expect(statusOf(() => quota.write(rare, 'flush', 1))?.code).toBe(8);
    clock.ms += 6_000;
    quota.write(rare, 'flush', 1);
  });

  it('deny with code 9, not retriable, by setting and by the property of the database', () => {
    const { quota } = quotaOf(['denyReading=true']);
    expect(statusOf(() => quota.read(entry(), 'query', 1))).toMatchObject({ code: 9, errorCode: 48, retriable: false });
    quota.write(entry(), 'insert', 1);
    const closed = entry({}, { 'database.force.deny.writing': 'true' });
    expect(statusOf(() => quota.write(closed, 'delete', 1))).toMatchObject({ code: 9, retriable: false });
    quota.write(closed, 'flush', 1);
  });
});

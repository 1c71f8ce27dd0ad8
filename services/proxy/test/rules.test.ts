import { CairnError } from '@cairn/base';
import { RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { PlaceholderGroup, PlaceholderType, type Status } from '@cairn/proto/milvus/common';
import { MilvusServiceDefinition, RestoreSnapshotState } from '@cairn/proto/milvus/milvus';
import { DataType as WireType } from '@cairn/proto/milvus/schema';
import { schemaFromWire } from '@cairn/schema';
import { describe, expect, test } from 'vitest';
import { restoreInfo } from '../src/areas/snapshot.ts';
import { decodePlaceholderGroup } from '../src/codec/placeholder-group.ts';
import { failureReply, milvusMethods } from '../src/milvus-methods.ts';
import { resolveOutputFields } from '../src/output-fields.ts';
import { readQueryParams, readSearchParams } from '../src/search-params.ts';
import { checkSeconds, checkSnapshotName } from '../src/snapshot-rules.ts';
import { toStatus } from '../src/status.ts';
import { sampleSchema } from './sample-schema.ts';

const limits = { maxTopK: 16_384, maxNq: 16_384 };
const schema = schemaFromWire(sampleSchema());
const embedding = schema.byName.get('embedding');
if (!embedding) throw new Error('no embedding');

function codeOf(work: () => unknown): [number, string] {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(CairnError);
    return [(error as CairnError).code, (error as CairnError).message];
  }
  return [0, ''];
}

describe('an error on the wire', () => {
  test.each([
    ['CollectionNotFound', 100, 4, false],
    ['IndexNotFound', 700, 25, false],
    ['InvalidParameter', 1100, 5, false],
    ['SnapshotPinned', 2601, 1, false],
    ['RateLimit', 8, 49, true],
    ['NotSupported', 10, 1, false],
    ['DatabaseNotFound', 800, 1, false],
    ['ChannelNotAvailable', 503, 46, true],
  ] as const)('%s has both numbers set', (name, code, legacy, retriable) => {
    expect(toStatus(new CairnError(name, 'why'))).toMatchObject({
      code,
      errorCode: legacy,
      retriable,
      reason: name === 'InvalidParameter' ? 'why: invalid parameter' : 'why',
    });
  });

  test('the legacy number of SchemaMismatch is what SDKs retry on', () => {
    expect(toStatus(new CairnError('SchemaMismatch', 'x')).errorCode).toBe(62);
  });

  test('strangers are Unexpected; bad input says so in extra_info', () => {
    expect(toStatus(new TypeError('boom'))).toMatchObject({ code: 65535, errorCode: 1, reason: 'boom' });
    expect(toStatus(new CairnError('InvalidParameter', 'x')).extraInfo).toEqual({ is_input_error: 'true' });
  });

  test('stands in the Status of every reply of the service', () => {
    const status = toStatus(new CairnError('NotSupported', 'no'));
    for (const [name, method] of Object.entries(milvusMethods)) {
      if (name === 'alterCollectionSchema') continue;
      const reply = failureReply(method, status) as Status & { status?: Status };
      expect((reply.status ?? reply).code, name).toBe(10);
    }
    expect(Object.keys(MilvusServiceDefinition.methods).length).toBeGreaterThan(140);
  });
});

describe('a snapshot name', () => {
  test.each([
    ['', 'snapshot name should be not empty'],
    ['   ', 'snapshot name should be not empty'],
    ['x'.repeat(256), 'must be not greater than limit'],
    ['1abc', 'first character'],
    ['a-b', 'numbers, letters and underscores'],
    ['ä', 'first character'],
  ])('%j is refused', (name, words) => {
    const [code, message] = codeOf(() => checkSnapshotName(name));
    expect(code).toBe(1100);
    expect(message).toContain(words);
  });

  test('is taken without the blanks around it', () => {
    expect(checkSnapshotName('  _a9 ')).toBe('_a9');
    expect(checkSnapshotName('x'.repeat(255))).toHaveLength(255);
  });

  test('seconds: neither negative nor too many', () => {
    expect(codeOf(() => checkSeconds('ttl_seconds', -1n, 9))[1]).toContain('ttl_seconds must be non-negative');
    expect(codeOf(() => checkSeconds('ttl_seconds', 10n, 9))[1]).toContain('ttl_seconds exceeds maximum');
    expect(codeOf(() => checkSeconds('compaction_protection_seconds', 604_801n, 604_800))[1]).toContain('must not exceed');
    expect(checkSeconds('ttl_seconds', 9n, 9)).toBe(9);
  });
});

describe('a restore job in Milvus words', () => {
  const job = RestoreJobRecord.fromPartial({
    id: 7,
    snapshotName: 's',
    targetDatabaseName: 'd',
    targetCollectionName: 't',
    startMs: 1_000,
    totalBytes: 200,
    copiedBytes: 200,
  });
  test.each([
    [RestoreJobState.RESTORE_PENDING, RestoreSnapshotState.RestoreSnapshotPending, 99],
    [RestoreJobState.RESTORE_EXECUTING, RestoreSnapshotState.RestoreSnapshotExecuting, 99],
    [RestoreJobState.RESTORE_PUBLISHING, RestoreSnapshotState.RestoreSnapshotExecuting, 99],
    [RestoreJobState.RESTORE_COMPLETED, RestoreSnapshotState.RestoreSnapshotCompleted, 100],
    [RestoreJobState.RESTORE_FAILED, RestoreSnapshotState.RestoreSnapshotFailed, 99],
    [RestoreJobState.RESTORE_CANCELLED, RestoreSnapshotState.RestoreSnapshotFailed, 99],
  ])('state %i: 100 %% only at Completed', (state, expected, progress) => {
    expect(restoreInfo({ ...job, state }, 5_000)).toMatchObject({ state: expected, progress, startTime: 1_000n, timeCost: 4_000n });
  });

  test('a cancelled one says why; an ended one keeps its time', () => {
    expect(restoreInfo({ ...job, state: RestoreJobState.RESTORE_CANCELLED, endMs: 2_500 }, 9_999)).toMatchObject({
      reason: 'cancelled',
      timeCost: 1_500n,
    });
  });
});

describe('a placeholder group', () => {
  const group = (type: PlaceholderType, values: Uint8Array[]) =>
    PlaceholderGroup.encode(PlaceholderGroup.fromPartial({ placeholders: [{ tag: '$0', type, values }] })).finish();
  const vector = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);

  test('gives the vectors back to back', () => {
    const { nq, bytes } = decodePlaceholderGroup(
      group(PlaceholderType.FloatVector, [vector(1, 2, 3, 4), vector(5, 6, 7, 8)]),
      embedding,
      limits,
    );
    expect(nq).toBe(2);
    expect(new Float32Array(bytes.buffer)).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  });

  test.each([
    ['another dimension', PlaceholderType.FloatVector, [vector(1, 2, 3)], /dimension mismatch.*16, actual 12/],
    ['NaN', PlaceholderType.FloatVector, [vector(1, 2, 3, Number.NaN)], /not a number or infinity: query vector 0/],
    ['infinity', PlaceholderType.FloatVector, [vector(1, 2, 3, 4), vector(1, Infinity, 3, 4)], /query vector 1/],
    ['another type', PlaceholderType.BinaryVector, [vector(1, 2, 3, 4)], /vector type must be the same/],
    ['no vectors', PlaceholderType.FloatVector, [], /nq \[0\] is invalid/],
  ] as const)('with %s is 1100', (_what, type, values, words) => {
    const [code, message] = codeOf(() => decodePlaceholderGroup(group(type, [...values]), embedding, limits));
    expect(code).toBe(1100);
    expect(message).toMatch(words);
  });

  test('with more vectors than the limit, or bytes that are none, is 1100', () => {
    const three = group(
      PlaceholderType.FloatVector,
      [1, 2, 3].map((x) => vector(x, x, x, x)),
    );
    expect(codeOf(() => decodePlaceholderGroup(three, embedding, { maxNq: 2 }))[1]).toContain('nq [3] is invalid');
    expect(codeOf(() => decodePlaceholderGroup(Uint8Array.of(1, 2, 3), embedding, limits))[0]).toBe(1100);
  });
});

describe('search parameters', () => {
  const pairs = (values: Record<string, string>) => Object.entries(values).map(([key, value]) => ({ key, value }));

  test('of the index come from params and from beside it', () => {
    const params = readSearchParams(
      pairs({ topk: '10', params: '{"ef":64,"radius":0.5}', ef: '128', anns_field: 'v', metric_type: 'cosine', hints: '' }),
      limits,
    );
    expect(params).toMatchObject({
      limit: 10,
      offset: 0,
      annsField: 'v',
      metric: 'COSINE',
      roundDecimal: -1,
      index: { ef: 128, radius: 0.5 },
    });
  });

  test.each([
    [{}, 'topk not found'],
    [{ topk: '0' }, 'topk [0] is invalid'],
    [{ topk: '16385' }, 'topk [16385] is invalid'],
    [{ topk: '16384', offset: '1' }, '(offset+limit) [16385] is invalid'],
    [{ topk: '10', offset: '-1' }, 'is invalid'],
    [{ topk: 'x' }, 'topk [x] is invalid'],
    [{ topk: '1', round_decimal: '7' }, 'round_decimal [7]'],
    [{ topk: '1', params: '[1]' }, 'not a JSON object'],
  ])('%j is refused', (values, words) => {
    const [code, message] = codeOf(() => readSearchParams(pairs(values as Record<string, string>), limits));
    expect([code, message.includes(words)]).toEqual([1100, true]);
  });

  test('a query: limit and offset', () => {
    expect(readQueryParams(pairs({ limit: '5', offset: '2', iterator: 'True' }), limits)).toEqual({
      limit: 5,
      offset: 2,
      ignoreGrowing: false,
      orderBy: '',
      timezone: '',
      timeFields: '',
      iterator: true,
    });
    expect(readQueryParams(pairs({ order_by_fields: 'price:desc,id' }), limits).orderBy).toBe('price:desc,id');
    expect(readQueryParams(pairs({ limit: '-1' }), limits).limit).toBeUndefined();
    expect(codeOf(() => readQueryParams(pairs({ limit: '0' }), limits))[0]).toBe(1100);
    expect(codeOf(() => readQueryParams(pairs({ offset: '3' }), limits))[0]).toBe(1100);
  });
});

describe('output fields', () => {
  test('* is every field, the dynamic one with all its keys', () => {
    const output = resolveOutputFields(schema, ['*', 'extra']);
    expect(output.fields.map((field) => field.name)).toEqual(['id', 'title', 'embedding', '$meta']);
    expect(output.dynamicKeys).toEqual([]);
    expect(output.names).toEqual(['id', 'title', 'embedding', '$meta', 'extra']);
  });

  test('a name that no field has is a dynamic key', () => {
    const output = resolveOutputFields(schema, ['title', 'extra', '$meta["more"]']);
    expect(output.fields.map((field) => field.name)).toEqual(['title', '$meta']);
    expect(output.dynamicKeys).toEqual(['extra', 'more']);
    expect(output.names).toEqual(['title', 'extra', 'more']);
  });

  test('without a dynamic field it is an error that names it', () => {
    const fixed = schemaFromWire({
      ...sampleSchema(),
      enableDynamicField: false,
      fields: sampleSchema().fields.filter((field) => !field.isDynamic),
    });
    expect(codeOf(() => resolveOutputFields(fixed, ['extra']))).toEqual([1100, expect.stringContaining('field extra not exist')]);
    expect(WireType.FloatVector).toBe(101);
  });
});

import { SystemRuntime } from '@cairn/base';
import { DiskObjectStore, MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import avro, { type Schema } from 'avsc';
import { describe, expect, it } from 'vitest';
import { decodeContainer, encodeContainer } from '../src/avro-container.ts';
import { readSnapshot, snapshotMetadataKey } from '../src/index.ts';
import { segmentFromAvro, segmentToAvro, segmentType } from '../src/manifest-records.ts';

const runtime = new SystemRuntime();
const key = snapshotMetadataKey(7, 42);
/** As version 1 wrote it before there were content hashes. */
const stored = new DiskObjectStore(new URL('fixtures/snapshot-v1', import.meta.url).pathname, runtime);

describe('formats of snapshots over versions', () => {
  it('a snapshot of an earlier build is read; its content hashes are not recorded', async () => {
    const bundle = await readSnapshot(stored, key, { withSegments: true });
    expect(bundle).toMatchObject({ formatVersion: 1, rows: 515, segmentCount: 5, clusterId: 'cluster-1' });
    expect(bundle.content).toBeUndefined();
    expect(bundle.segments.map((segment) => segment.contentHash)).toEqual(['', '', '', '', '']);
  });

  it('a snapshot of a later version is refused in words, with both versions', async () => {
    const later = new MemoryObjectStore(runtime);
    const text = Buffer.from(await stored.get(key)).toString();
    await later.put(key, Buffer.from(text.replace('"format_version": 1', '"format_version": 2')));
    await expect(readSnapshot(later, key)).rejects.toMatchObject({
      codeName: 'NotSupported',
      message: `snapshot metadata ${key} was written by a newer version of Cairn: format 2, this one reads up to 1`,
    });
  });

  it('a manifest with fewer fields is read with their defaults, one with more without them', async () => {
    const own = JSON.parse(JSON.stringify(segmentType.schema({ exportAttrs: true }))) as { fields: object[] };
    const more = { ...own, fields: [...own.fields, { name: 'later', type: 'string', default: 'none' }] } as unknown as Schema;
    const later = avro.Type.forSchema(more, { wrapUnions: false });
    const segment = SegmentRecord.fromPartial({ id: 5, rows: 9, prefix: 'p/', contentHash: '0'.repeat(32) });
    const sync = new Uint8Array(16);
    const same = (value: unknown) => value as { later: string };
    const written = await encodeContainer(segmentType, [segment], (one) => segmentToAvro(one, []), sync);
    const [read] = await decodeContainer(later, written, same);
    expect(read?.later).toBe('none');
    const newer = await encodeContainer(later, [segment], (one) => ({ ...segmentToAvro(one, []), later: 'x' }), sync);
    const [older] = await decodeContainer(segmentType, newer, segmentFromAvro);
    expect(older?.segment).toEqual(segment);
  });
});

import { CairnError } from '@cairn/base';
// CommonJS without names that Node could see: the default import is the whole module.
import avro, { type Schema, type Type } from 'avsc';

/** Avro object container files in memory: header with the schema, blocks of records, a sync marker after each. Uncompressed. */
const MAGIC = Buffer.from('Obj\u0001', 'latin1');
const SYNC_BYTES = 16;
/** Records of one block: about 100 µs of encoding. */
const BLOCK_RECORDS = 128;

const headerType = avro.Type.forSchema({
  type: 'record',
  name: 'Header',
  fields: [
    { name: 'magic', type: { type: 'fixed', name: 'Magic', size: 4 } },
    { name: 'meta', type: { type: 'map', values: 'bytes' } },
    { name: 'sync', type: { type: 'fixed', name: 'Sync', size: SYNC_BYTES } },
  ],
});
const blockType = avro.Type.forSchema({
  type: 'record',
  name: 'Block',
  fields: [
    { name: 'count', type: 'long' },
    { name: 'data', type: 'bytes' },
    { name: 'sync', type: { type: 'fixed', name: 'BlockSync', size: SYNC_BYTES } },
  ],
});

interface Header {
  readonly magic: Buffer;
  readonly meta: Readonly<Record<string, Buffer>>;
  readonly sync: Buffer;
}

interface Block {
  readonly count: number;
  readonly data: Buffer;
  readonly sync: Buffer;
}

/** Records of one type as a container file. The sync marker is the caller's, so that equal records give equal bytes. */
export function encodeContainer(type: Type, records: readonly object[], sync: Uint8Array): Uint8Array {
  const marker = Buffer.from(sync).subarray(0, SYNC_BYTES);
  const meta = { 'avro.schema': Buffer.from(JSON.stringify(type.schema({ exportAttrs: true }))), 'avro.codec': Buffer.from('null') };
  const parts = [headerType.toBuffer({ magic: MAGIC, meta, sync: marker })];
  for (let at = 0; at < records.length; at += BLOCK_RECORDS) {
    const some = records.slice(at, at + BLOCK_RECORDS);
    const data = Buffer.concat(some.map((record) => type.toBuffer(record)));
    parts.push(blockType.toBuffer({ count: some.length, data, sync: marker }));
  }
  return Buffer.concat(parts);
}

function damaged(reason: string, cause?: unknown): CairnError {
  return new CairnError('ObjectDamaged', `not an Avro container of ours: ${reason}`, { cause });
}

/** Records of a container file, resolved from the schema they were written with to `type`. ObjectDamaged for anything else. */
export function decodeContainer(type: Type, bytes: Uint8Array): unknown[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return decodeBlocks(type, buffer);
  } catch (error) {
    if (error instanceof CairnError) throw error;
    throw damaged('it cannot be decoded', error);
  }
}

function decodeBlocks(type: Type, buffer: Buffer): unknown[] {
  const head: { value: Header | undefined; offset: number } = headerType.decode(buffer, 0);
  if (head.value === undefined || head.offset < 0 || !head.value.magic.equals(MAGIC)) throw damaged('its header is not one');
  const codec = head.value.meta['avro.codec']?.toString() ?? 'null';
  if (codec !== 'null') throw damaged(`codec ${codec}`);
  const written: Schema = JSON.parse(head.value.meta['avro.schema']?.toString() ?? 'null');
  const writer = avro.Type.forSchema(written);
  const resolver = type.createResolver(writer);
  const records: unknown[] = [];
  for (let at = head.offset; at < buffer.length; ) {
    const next: { value: Block | undefined; offset: number } = blockType.decode(buffer, at);
    if (next.value === undefined || next.offset < 0 || !next.value.sync.equals(head.value.sync))
      throw damaged(`its block at ${at} is torn`);
    let position = 0;
    for (let i = 0; i < next.value.count; i++) {
      const record: { value: unknown; offset: number } = type.decode(next.value.data, position, resolver);
      if (record.offset < 0) throw damaged(`its block at ${at} ends in record ${i}`);
      records.push(record.value);
      position = record.offset;
    }
    if (position !== next.value.data.length) throw damaged(`its block at ${at} has more than ${next.value.count} records`);
    at = next.offset;
  }
  return records;
}

import { CairnError, type Turns } from '@cairn/base';
// CommonJS without names that Node could see: the default import is the whole module.
import avro, { type Schema, type Type } from 'avsc';

/** Avro object container files in memory: header with the schema, blocks of records, a sync marker after each. Uncompressed. */
const MAGIC = Buffer.from('Obj\u0001', 'latin1');
const SYNC_BYTES = 16;
/** Records of one block: about half a millisecond of encoding. */
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

/** Bytes a block's buffer begins with; it grows to the largest block. */
const FIRST_BUFFER_BYTES = 256 * 1024;

/**
 * Records of one type as a container file. The sync marker is the caller's, so that equal records give equal bytes. `of` makes a record just
 * before it is encoded; with `turns` it gives way to the event loop between blocks.
 */
export async function encodeContainer<T>(
  type: Type,
  items: readonly T[],
  of: (item: T) => object,
  sync: Uint8Array,
  turns?: Turns,
): Promise<Uint8Array> {
  const marker = Buffer.from(sync).subarray(0, SYNC_BYTES);
  const meta = { 'avro.schema': Buffer.from(JSON.stringify(type.schema({ exportAttrs: true }))), 'avro.codec': Buffer.from('null') };
  const parts = [headerType.toBuffer({ magic: MAGIC, meta, sync: marker })];
  let buffer = Buffer.allocUnsafe(FIRST_BUFFER_BYTES);
  for (let at = 0; at < items.length; at += BLOCK_RECORDS) {
    if (turns?.due) await turns.give();
    const some = items.slice(at, at + BLOCK_RECORDS);
    let end = 0;
    for (const item of some) {
      const record = of(item);
      let next = type.encode(record, buffer, end);
      while (next < 0) {
        buffer = Buffer.concat([buffer.subarray(0, end), Buffer.allocUnsafe(buffer.length * 2 - end)]);
        next = type.encode(record, buffer, end);
      }
      end = next;
    }
    parts.push(blockType.toBuffer({ count: some.length, data: buffer.subarray(0, end), sync: marker }));
  }
  return Buffer.concat(parts);
}

function damaged(reason: string, cause?: unknown): CairnError {
  return new CairnError('ObjectDamaged', `not an Avro container of ours: ${reason}`, { cause });
}

/**
 * What `of` makes of each record of a container file, resolved from the schema it was written with to `type`. ObjectDamaged for anything else. With
 * `turns` it gives way to the event loop between blocks.
 */
export async function decodeContainer<T>(type: Type, bytes: Uint8Array, of: (record: unknown) => T, turns?: Turns): Promise<T[]> {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    return await decodeBlocks(type, buffer, of, turns);
  } catch (error) {
    if (error instanceof CairnError) throw error;
    throw damaged('it cannot be decoded', error);
  }
}

/** The resolver of each type for the schema that was read last: files of one version follow one another, and making one costs more than a small file. */
const lastResolvers = new WeakMap<Type, { readonly schema: string; readonly resolver: Resolver }>();
type Resolver = ReturnType<Type['createResolver']>;

function resolverOf(type: Type, schema: string): Resolver {
  const last = lastResolvers.get(type);
  if (last?.schema === schema) return last.resolver;
  const written: Schema = JSON.parse(schema);
  const resolver = type.createResolver(avro.Type.forSchema(written));
  lastResolvers.set(type, { schema, resolver });
  return resolver;
}

async function decodeBlocks<T>(type: Type, buffer: Buffer, of: (record: unknown) => T, turns: Turns | undefined): Promise<T[]> {
  const head: { value: Header | undefined; offset: number } = headerType.decode(buffer, 0);
  if (head.value === undefined || head.offset < 0 || !head.value.magic.equals(MAGIC)) throw damaged('its header is not one');
  const codec = head.value.meta['avro.codec']?.toString() ?? 'null';
  if (codec !== 'null') throw damaged(`codec ${codec}`);
  const resolver = resolverOf(type, head.value.meta['avro.schema']?.toString() ?? 'null');
  const records: T[] = [];
  for (let at = head.offset; at < buffer.length; ) {
    if (turns?.due) await turns.give();
    const next: { value: Block | undefined; offset: number } = blockType.decode(buffer, at);
    if (next.value === undefined || next.offset < 0 || !next.value.sync.equals(head.value.sync))
      throw damaged(`its block at ${at} is torn`);
    let position = 0;
    for (let i = 0; i < next.value.count; i++) {
      const record: { value: unknown; offset: number } = type.decode(next.value.data, position, resolver);
      if (record.offset < 0) throw damaged(`its block at ${at} ends in record ${i}`);
      records.push(of(record.value));
      position = record.offset;
    }
    if (position !== next.value.data.length) throw damaged(`its block at ${at} has more than ${next.value.count} records`);
    at = next.offset;
  }
  return records;
}

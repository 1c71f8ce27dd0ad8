/**
 * Partial updates that must not lose one another: several clients append numbers of their own to the array of one row, at the same time, through
 * crashes and lost answers. Each number that was acknowledged stands there once; one whose answer never came at most once. The row's other fields
 * stay what they were.
 */
import { ConsistencyLevel, type Status } from '@cairn/proto/milvus/common';
import { QueryRequest } from '@cairn/proto/milvus/milvus';
import { DataType, type RawFieldData } from '@cairn/schema';
import { payloadOf } from './client.ts';
import type { WorkParts } from './work-parts.ts';

const COLLECTION = 'marked';
const KEYS = [1, 2, 3];
export const MARKS_CAPACITY = 4_096;
const APPEND = 1;

export class Marks {
  readonly #parts: WorkParts;
  readonly #acknowledged = new Set<string>();
  readonly #unknown = new Set<string>();
  #next = 0;

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  async prepare(shards: number): Promise<void> {
    const { client } = this.#parts;
    const created = await client.createCollection(COLLECTION, shards);
    const prepared = await client.prepare(COLLECTION);
    const rows = await client.upsert(
      COLLECTION,
      KEYS.map((key) => ({ key, version: 0 })),
    );
    if ([created, prepared, rows].some(({ kind }) => kind !== 'done'))
      throw new Error(`rows to mark were not made: ${JSON.stringify([created, prepared, rows])}`);
  }

  /** One partial update of some of the rows. */
  async append(): Promise<void> {
    const keys = KEYS.filter(() => this.#parts.coin(0.6));
    if (keys.length === 0) return;
    const mark = ++this.#next;
    const outcome = await this.#parts.client.call('upsert', requestOf(keys, mark), 4, true);
    this.#parts.count('partial update', outcome);
    for (const key of keys) (outcome.kind === 'done' ? this.#acknowledged : this.#unknown).add(`${key}/${mark}`);
    if (outcome.kind === 'refused') this.#parts.problem(`partial update of ${COLLECTION} was refused: ${outcome.reason}`);
  }

  async flush(): Promise<void> {
    this.#parts.count('flush', await this.#parts.client.flush(COLLECTION));
  }

  async verify(): Promise<void> {
    const outcome = await this.#parts.client.call<{ status: Status | undefined; fields: { raw: RawFieldData }[] }>(
      'query',
      QueryRequest.fromPartial({
        ...{ collectionName: COLLECTION, expr: 'id > 0', outputFields: ['id', 'payload', 'marks'] },
        consistencyLevel: ConsistencyLevel.Strong,
      }),
      8,
    );
    if (outcome.kind !== 'done') return this.#parts.problem(`marked rows cannot be read: ${outcome.reason}`);
    const payloads = new Map(outcome.value.fields.map(({ raw }) => [raw.name, raw.payload]));
    const [ids, texts, marks] = [payloads.get('id'), payloads.get('payload'), payloads.get('marks')];
    if (ids?.kind !== 'long' || texts?.kind !== 'text' || marks?.kind !== 'array' || ids.values.length !== KEYS.length)
      return this.#parts.problem(`marked rows were answered as ${[...payloads].map(([name, { kind }]) => `${name}:${kind}`).join(', ')}`);
    const values = marks.elements.kind === 'long' ? marks.elements.values : new BigInt64Array();
    const found = new Map<string, number>();
    ids.values.forEach((id, row) => {
      const text = Buffer.from(texts.data.subarray(texts.offsets[row], texts.offsets[row + 1])).toString();
      if (text !== payloadOf(Number(id), 0)) this.#parts.problem(`partial updates changed payload of key ${id} to ${text}`);
      for (let at = marks.offsets[row]; at < marks.offsets[row + 1]; at++) {
        const name = `${id}/${values[at]}`;
        found.set(name, (found.get(name) ?? 0) + 1);
      }
    });
    for (const name of this.#acknowledged) if (!found.has(name)) this.#parts.problem(`mark ${name} was acknowledged and is lost`);
    for (const [name, times] of found) {
      // Where the log is trimmed early a repeat may come after its first answer is forgotten; inserts are not made there for the same reason.
      if (times > 1 && !this.#parts.world.trims) this.#parts.problem(`mark ${name} stands ${times} times`);
      if (!this.#acknowledged.has(name) && !this.#unknown.has(name)) this.#parts.problem(`mark ${name} was never sent`);
    }
  }
}

function requestOf(keys: readonly number[], mark: number): unknown {
  const field = (name: string, type: DataType, payload: RawFieldData['payload']): RawFieldData => ({
    ...{ name, type, isDynamic: false, payload },
  });
  const elements = { kind: 'long', values: new BigInt64Array(keys.length).fill(BigInt(mark)) } as const;
  const offsets = Int32Array.from({ length: keys.length + 1 }, (_, row) => row);
  return {
    ...{ dbName: '', collectionName: COLLECTION, partitionName: '', numRows: keys.length, schemaTimestamp: 0n },
    ...{ partialUpdate: true, fieldOps: [{ fieldName: 'marks', op: APPEND }], namespace: undefined, bytes: 64 },
    fields: [
      field('id', DataType.Int64, { kind: 'long', values: BigInt64Array.from(keys, BigInt) }),
      field('marks', DataType.Array, { kind: 'array', elementType: DataType.Int64, offsets, elements }),
    ],
  };
}

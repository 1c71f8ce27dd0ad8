import { CairnError } from '@cairn/base';
import { type Expr, type Literal, parseFilter, serializeExpr } from '@cairn/expr';
import type { PartitionRecord } from '@cairn/proto/cairn/meta';
import { ArrayOp, type FieldOp } from '@cairn/proto/cairn/services';
import type { MutationResult } from '@cairn/proto/milvus/milvus';
import { type Column, columnToRaw, DataType, decodeFrame, type Field, keyColumn, typeName } from '@cairn/schema';
import type { MutationRequest } from '../codec/mutation-request.ts';
import { checkSchemaTimestamp, prepareRows } from '../insert-columns.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import type { CollectionEntry } from '../proxy-catalog.ts';
import { shardsOf } from '../proxy-catalog.ts';
import { requireLoadedFor } from '../read-scope.ts';
import type { RequestContext } from '../request-context.ts';
import {
  distinctKeys,
  type PartialScope,
  refuseDuplicateKeys,
  routeDeletes,
  routePartialRows,
  routeRows,
  type ShardWrite,
} from '../row-router.ts';
import { writeToShards } from '../shard-writer.ts';
import { notSupported, OK } from '../status.ts';
import { templateValues } from '../templates.ts';
import { zoneOf } from '../time-zones.ts';
import { wireTimestamp } from './wire-forms.ts';

type DataMethods = 'insert' | 'upsert' | 'delete';

/** Writes: rows by key to the owners of their shards. */
export function dataArea(parts: ProxyParts): Area<DataMethods> {
  const { catalog } = parts;

  const write = async (request: MutationRequest, context: RequestContext, upsert: boolean): Promise<MutationResult> => {
    if (request.namespace !== undefined) throw notSupported('namespace in writes');
    const partial = request.partialUpdate || request.fieldOps.length > 0;
    const resolved = await catalog.resolveLive(context.database(request.dbName), request.collectionName);
    const entry = await checkSchemaTimestamp(parts, resolved, request.schemaTimestamp);
    parts.quota.write(entry, upsert ? 'upsert' : 'insert', request.bytes);
    const partitions = await targetPartitions(parts, entry, request.partitionName);
    const rows = await prepareRows(parts, context, entry, request, partial ? 'partial' : upsert ? 'upsert' : 'insert');
    if (upsert && rows.sentKeys) refuseDuplicateKeys(rows.sentKeys, entry.schema.primaryKey.name);
    const writes = partial ? routePartialRows(entry, rows, partialScope(parts, entry, request)) : routeRows(entry, rows, partitions);
    if (upsert && !partial && rows.sentKeys) routeDeletes(entry, rows.sentKeys, writes);
    // An upsert may move a row to another partition, so its deletes cover all.
    const ts = await writeToShards(parts, context, entry, writes.values());
    const count = BigInt(rows.rows);
    return {
      status: OK,
      IDs: idsOf(entry.schema.primaryKey, rows.keys),
      succIndex: Array.from({ length: rows.rows }, (_, row) => row),
      errIndex: [],
      acknowledged: true,
      insertCnt: upsert ? 0n : count,
      deleteCnt: upsert ? count : 0n,
      upsertCnt: upsert ? count : 0n,
      timestamp: wireTimestamp(ts),
    };
  };

  return {
    insert: (request, context) => write(request, context, false),
    upsert: (request, context) => write(request, context, true),

    delete: async (request, context) => {
      const entry = await catalog.resolveLive(context.database(request.dbName), request.collectionName);
      parts.quota.write(entry, 'delete', request.expr.length);
      const partition =
        request.partitionName === '' ? undefined : await catalog.retrySynced(() => catalog.partition(entry, request.partitionName));
      const expr = parseFilter(request.expr, entry.schema, templateValues(request.exprTemplateValues), { zone: zoneOf(entry.record) });
      if (expr.kind === 'true') throw new CairnError('InvalidParameter', `delete plan can't be empty or always true : ${request.expr}`);
      const keys = keysOf(expr, entry.schema.primaryKey);
      const deleted = keys
        ? await deleteKeys(parts, context, entry, keys, partition)
        : await deleteMatching(parts, context, entry, expr, partition);
      return {
        status: OK,
        // As Milvus does since 2.3.2: pymilvus takes an answer with keys for one of an older server, and then gives its caller a list instead of a count.
        IDs: { idField: undefined },
        succIndex: [],
        errIndex: [],
        acknowledged: true,
        insertCnt: 0n,
        deleteCnt: BigInt(deleted.count),
        upsertCnt: 0n,
        timestamp: wireTimestamp(deleted.ts),
      };
    },
  };
}

interface Deleted {
  readonly count: number;
  readonly ts: number;
}

/** `pk in [...]`: goes straight to the shards, without a look at what is there. */
async function deleteKeys(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  keys: Column,
  partition: PartitionRecord | undefined,
): Promise<Deleted> {
  if (keys.length === 0) return { count: 0, ts: await parts.readTimestamps.now() };
  const writes = routeDeletes(entry, keys);
  const ts = await writeToShards(parts, context, entry, writes.values(), { partitionId: partition?.id ?? 0 });
  return { count: keys.length, ts };
}

/**
 * Any other filter: every shard is queried for the keys that match, then those are deleted as of that query's read timestamp, so that a row
 * written in between stays.
 */
export async function deleteMatching(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  expr: Expr,
  partition: PartitionRecord | undefined,
): Promise<Deleted> {
  const { primaryKey } = entry.schema;
  const partitionIds = partition ? [partition.id] : [];
  await requireLoadedFor(parts, entry, partitionIds);
  // Whatever the request's level: a delete that overlooked its sender's own last rows would be of no use.
  const guaranteeTs = await parts.readTimestamps.now();
  const plan = {
    filter: serializeExpr(expr),
    outputFieldIds: [primaryKey.id],
    dynamicKeys: [],
    limit: 0,
    countOnly: false,
    ordered: true,
  };
  const writes = new Map<number, ShardWrite>();
  const readTs = new Map<number, number>();
  const found = await Promise.all(
    shardsOf(entry.record).map(async (shard) => {
      const scope = { vchannel: shard.vchannel, collectionId: entry.record.id, partitionIds, guaranteeTs, readTs: 0, ignoreGrowing: false };
      const result = await parts.owners.call(context, shard, (owner, options) => owner.query({ scope, plan }, options));
      const keys = decodeFrame(result.columns).columns.get(primaryKey.id);
      if (!keys || keys.length === 0) return [];
      readTs.set(shard.index, result.ts);
      routeDeletes(entry, keys, writes);
      return [keys];
    }),
  );
  const keys = found.flat();
  const count = keys.reduce((sum, column) => sum + column.length, 0);
  if (count === 0) return { count, ts: await parts.readTimestamps.now() };
  const ts = await writeToShards(parts, context, entry, writes.values(), { readTs, partitionId: partition?.id ?? 0 });
  return { count, ts };
}

/** InvalidParameter when an operation names a field that was not sent or is no array. */
function partialScope({ catalog }: ProxyParts, entry: CollectionEntry, request: MutationRequest): PartialScope {
  const ops = new Map<number, FieldOp>();
  for (const { fieldName, op } of request.fieldOps) {
    const field = entry.schema.byName.get(fieldName);
    if (!field) throw new CairnError('InvalidParameter', `field op: field ${fieldName} does not exist in collection ${entry.record.name}`);
    if (ops.has(field.id)) throw new CairnError('InvalidParameter', `field op: field ${fieldName} is named twice`);
    if (!request.fields.some((sent) => sent.name === fieldName))
      throw new CairnError('InvalidParameter', `field op: no data was sent for field ${fieldName}`);
    const arrayOp = arrayOps[op];
    if (arrayOp === undefined) throw new CairnError('InvalidParameter', `field op: operation ${op} of field ${fieldName} is unknown`);
    if (arrayOp !== ArrayOp.ARRAY_OP_NONE && field.type !== DataType.Array)
      throw new CairnError('InvalidParameter', `field op: field ${fieldName} of type ${typeName(field.type)} is no array`);
    ops.set(field.id, { fieldId: field.id, op: arrayOp });
  }
  const named = request.partitionName === '' || entry.schema.partitionKey ? undefined : catalog.partition(entry, request.partitionName);
  const fallback = entry.schema.partitionKey ? undefined : catalog.partition(entry, '_default');
  return { ops: [...ops.values()], partitionId: named?.id ?? 0, defaultPartitionId: fallback?.id ?? 0 };
}

const arrayOps: readonly ArrayOp[] = [ArrayOp.ARRAY_OP_NONE, ArrayOp.ARRAY_OP_APPEND, ArrayOp.ARRAY_OP_REMOVE];

/** Partitions that rows may go to: the named one, the default one, or those of the partition key in their order. */
async function targetPartitions({ catalog }: ProxyParts, entry: CollectionEntry, name: string): Promise<PartitionRecord[]> {
  if (entry.schema.partitionKey) {
    if (name !== '')
      throw new CairnError('InvalidParameter', 'not support manually specifying the partition names if partition key mode is used', {
        legacy: 1,
      });
    return catalog.partitionsOf(entry.record.id);
  }
  return [await catalog.retrySynced(() => catalog.partition(entry, name || '_default'))];
}

/** The keys of a filter that is nothing but `pk in [...]` or `pk == x`, each once. */
function keysOf(expr: Expr, primaryKey: Field): Column | undefined {
  const literals = pureKeyLiterals(expr, primaryKey.id);
  if (!literals) return undefined;
  const texts = literals.every((literal) => typeof literal === 'string');
  const integers = literals.every((literal) => typeof literal === 'bigint');
  if (literals.length === 0) return emptyKeys(primaryKey);
  return texts ? distinctKeys(keyColumn(literals)) : integers ? distinctKeys(keyColumn(literals)) : undefined;
}

function pureKeyLiterals(expr: Expr, pk: number): readonly Literal[] | undefined {
  if (expr.kind === 'false') return [];
  if (expr.kind === 'in' && !expr.negated && expr.value.kind === 'column' && expr.value.fieldId === pk) {
    return expr.list.every((item) => !Array.isArray(item)) ? (expr.list as readonly Literal[]) : undefined;
  }
  if (expr.kind !== 'compare' || expr.op !== '==') return undefined;
  const { left, right } = expr;
  if (left.kind === 'column' && left.fieldId === pk && right.kind === 'literal') return [right.value];
  if (right.kind === 'column' && right.fieldId === pk && left.kind === 'literal') return [left.value];
  return undefined;
}

function emptyKeys(primaryKey: Field): Column {
  return primaryKey.maxLength > 0 ? keyColumn([] as string[]) : keyColumn(new BigInt64Array());
}

function idsOf(primaryKey: Field, keys: Column): MutationResult['IDs'] {
  const { payload } = columnToRaw(primaryKey, keys);
  if (payload.kind === 'long') return { idField: { $case: 'intId', value: { data: Array.from(payload.values) } } };
  if (payload.kind !== 'text') throw new CairnError('Internal', `primary keys of kind ${payload.kind}`);
  const text = Buffer.from(payload.data.buffer, payload.data.byteOffset, payload.data.byteLength);
  const data = Array.from({ length: payload.offsets.length - 1 }, (_, i) =>
    text.toString('utf8', payload.offsets[i], payload.offsets[i + 1]),
  );
  return { idField: { $case: 'strId', value: { data } } };
}

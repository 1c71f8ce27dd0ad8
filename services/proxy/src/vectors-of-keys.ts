import { CairnError } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import type { IDs } from '@cairn/proto/milvus/schema';
import { decodeQueryResult, mergeRows } from '@cairn/query';
import { type BytesColumn, type Field, isNull, type VectorColumn, valueAt } from '@cairn/schema';
import type { QueryVectors } from './codec/placeholder-group.ts';
import type { ProxyParts } from './parts.ts';
import type { CollectionEntry } from './proxy-catalog.ts';
import { shardsFor } from './read-scope.ts';
import type { RequestContext } from './request-context.ts';

/** Query vectors of a search that names rows instead: their own vectors, in the order of the keys. A key that no row has is InvalidParameter. */
export async function vectorsOfKeys(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  ids: IDs,
  field: Field,
  guaranteeTs: number,
): Promise<QueryVectors> {
  const { primaryKey } = entry.schema;
  const { maxNq } = parts.config.limits;
  const keys: readonly (bigint | string)[] = ids.idField?.value.data ?? [];
  if (keys.length === 0 || keys.length > maxNq) {
    throw new CairnError(
      'InvalidParameter',
      `nq [${keys.length}] is invalid, nq (number of search vector per search request) should be in range [1, ${maxNq}]`,
    );
  }
  const expr = parseFilter(`${primaryKey.name} in {ids}`, entry.schema, { ids: keys });
  const plan = {
    filter: serializeExpr(expr),
    outputFieldIds: [primaryKey.id, field.id],
    dynamicKeys: [],
    limit: 0,
    countOnly: false,
    ordered: true,
  };
  const results = await Promise.all(
    shardsFor(entry, expr).map((shard) => {
      const scope = {
        vchannel: shard.vchannel,
        collectionId: entry.record.id,
        partitionIds: [],
        guaranteeTs,
        readTs: 0,
        ignoreGrowing: false,
      };
      return parts.owners.call(context, shard, (owner, options) => owner.query({ scope, plan }, options));
    }),
  );
  const { columns } = await mergeRows(results.map(decodeQueryResult), primaryKey, 0, parts.runtime);
  const found = columns.columns.get(primaryKey.id);
  const vectors = columns.columns.get(field.id);
  if (!found || (vectors?.kind !== 'vector' && vectors?.kind !== 'bytes'))
    throw new CairnError('NotSupported', `not supported: search by ids on field ${field.name}`);
  const rowOf = new Map(Array.from({ length: found.length }, (_, row) => [valueAt(found, row), row] as const));
  const rows = keys.map((key) => {
    const row = rowOf.get(key);
    if (row !== undefined) return row;
    throw new CairnError('InvalidParameter', `some of the provided primary key IDs do not exist: ${key}[collection=${entry.record.name}]`);
  });
  return { nq: keys.length, bytes: Buffer.concat(rows.flatMap((row) => queryOf(vectors, row, field))) };
}

/** Row `row` as a query vector; see QueryVectors for sparse ones. */
function queryOf(vectors: VectorColumn | BytesColumn, row: number, field: Field): Uint8Array[] {
  if (isNull(vectors, row))
    throw new CairnError('InvalidParameter', `a row that is searched by has no vector in field ${field.name}: it is null`);
  if (vectors.kind === 'vector') return [vectors.data.subarray(row * vectors.bytesPerRow, (row + 1) * vectors.bytesPerRow)];
  const value = vectors.data.subarray(vectors.offsets[row], vectors.offsets[row + 1]);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, value.length, true);
  return [length, value];
}

import { CairnError } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import type { IDs } from '@cairn/proto/milvus/schema';
import { decodeQueryResult, mergeRows } from '@cairn/query';
import { type Field, valueAt } from '@cairn/schema';
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
  if (!found || vectors?.kind !== 'vector') throw new CairnError('NotSupported', `not supported: search by ids on field ${field.name}`);
  const rowOf = new Map(Array.from({ length: found.length }, (_, row) => [valueAt(found, row), row] as const));
  const bytes = new Uint8Array(keys.length * vectors.bytesPerRow);
  keys.forEach((key, query) => {
    const row = rowOf.get(key);
    if (row === undefined)
      throw new CairnError(
        'InvalidParameter',
        `some of the provided primary key IDs do not exist: ${key}[collection=${entry.record.name}]`,
      );
    bytes.set(vectors.data.subarray(row * vectors.bytesPerRow, (row + 1) * vectors.bytesPerRow), query * vectors.bytesPerRow);
  });
  return { nq: keys.length, bytes };
}

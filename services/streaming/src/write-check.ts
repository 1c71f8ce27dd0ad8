import { CairnError } from '@cairn/base';
import { CollectionState } from '@cairn/proto/cairn/meta';
import type { WriteRequest } from '@cairn/proto/cairn/services';
import type { StreamingCatalog } from './catalog-face.ts';
import { type LogWrite, MAX_REQUEST_ID_BYTES } from './log-write.ts';

/** A live collection's record and schema; syncs once before it says "not found". */
export async function liveCollection(catalog: StreamingCatalog, collectionId: number) {
  let found = catalog.collection(collectionId);
  if (!found) {
    await catalog.sync();
    found = catalog.collection(collectionId);
  }
  if (!found || found.record.state === CollectionState.COLLECTION_DROPPED)
    throw new CairnError('CollectionNotFound', `collection not found[collection=${collectionId}]`);
  return found;
}

/**
 * Whether the request may be written now. CollectionNotFound, CollectionRestoring, PartitionNotFound; SchemaMismatch for rows made under an older
 * schema. The view of this process may lag, so it syncs before it refuses what it does not know.
 */
export async function checkWrite(
  catalog: StreamingCatalog,
  request: WriteRequest,
  write: Pick<LogWrite, 'deletes'> & { inserts: readonly Pick<LogWrite['inserts'][number], 'batch' | 'partitionId'>[] },
): Promise<void> {
  if (Buffer.byteLength(request.requestId) > MAX_REQUEST_ID_BYTES)
    throw new CairnError('InvalidParameter', `request id longer than ${MAX_REQUEST_ID_BYTES} bytes`);
  let { record, schema } = await liveCollection(catalog, request.collectionId);
  const partitions = request.inserts.map((part) => part.partitionId);
  if (request.deletePartitionId !== 0) partitions.push(request.deletePartitionId);
  const unknown = (): number | undefined => partitions.find((id) => (catalog.partition(record.id, id)?.droppedTs ?? 1) !== 0);
  if (request.schemaVersion > record.schemaVersion || record.state === CollectionState.COLLECTION_RESTORING || unknown() !== undefined) {
    await catalog.sync();
    ({ record, schema } = await liveCollection(catalog, request.collectionId));
  }
  if (record.state === CollectionState.COLLECTION_RESTORING)
    throw new CairnError('CollectionRestoring', `collection ${record.name} is being restored`);
  if (request.schemaVersion !== record.schemaVersion) {
    throw new CairnError(
      'SchemaMismatch',
      `collection ${record.name}: rows were made under schema version ${request.schemaVersion}, it has ${record.schemaVersion} now`,
    );
  }
  const missing = unknown();
  if (missing !== undefined) throw new CairnError('PartitionNotFound', `partition not found[partition=${missing}]`);

  // What is in the log is applied without question, by every later owner too: so its form is looked at here.
  for (const { batch } of write.inserts) {
    for (const field of schema.fields) {
      const column = batch.columns.get(field.id);
      if (!column) throw new CairnError('InvalidParameter', `field ${field.name}: no column was sent`);
      if (column.type !== field.type)
        throw new CairnError('InvalidParameter', `field ${field.name}: type ${column.type} was sent, ${field.type} expected`);
    }
  }
  for (const { keys } of write.deletes) {
    if (keys.type !== schema.primaryKey.type)
      throw new CairnError('InvalidParameter', `deletes: keys of type ${keys.type}, ${schema.primaryKey.type} expected`);
  }
}

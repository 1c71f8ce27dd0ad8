import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';

/** id (Int64 key), title, embedding (4-d float), dynamic field. */
export function sampleSchema(): CollectionSchema {
  return CollectionSchema.fromPartial({
    name: 'sample',
    enableDynamicField: true,
    fields: [
      { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { fieldID: 101n, name: 'title', dataType: DataType.VarChar, typeParams: [{ key: 'max_length', value: '64' }] },
      { fieldID: 102n, name: 'embedding', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: '4' }] },
      { fieldID: 103n, name: '$meta', dataType: DataType.JSON, isDynamic: true },
    ],
  });
}

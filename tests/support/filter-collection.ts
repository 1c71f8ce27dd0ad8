/** The collection that filters are tried on, and its rows as the Node SDK takes them. */
import { DataType, type FieldType } from '@zilliz/milvus2-sdk-node';
import type { FilterRow } from './filter-grammar.ts';

export const FILTER_FIELDS: FieldType[] = [
  { name: 'id', data_type: DataType.Int64, is_primary_key: true },
  { name: 'small', data_type: DataType.Int8, nullable: true },
  { name: 'count', data_type: DataType.Int32 },
  { name: 'big', data_type: DataType.Int64, nullable: true },
  { name: 'price', data_type: DataType.Float, nullable: true },
  { name: 'ratio', data_type: DataType.Double },
  { name: 'flag', data_type: DataType.Bool },
  { name: 'name', data_type: DataType.VarChar, max_length: 32, nullable: true },
  { name: 'tags', data_type: DataType.Array, element_type: DataType.VarChar, max_capacity: 4, max_length: 32 },
  { name: 'sizes', data_type: DataType.Array, element_type: DataType.Int64, max_capacity: 4, nullable: true },
  { name: 'doc', data_type: DataType.JSON, nullable: true },
  { name: 'vector', data_type: DataType.FloatVector, dim: 2 },
];

export function wireRow(row: FilterRow): Record<string, unknown> {
  return { ...row, vector: [row.id, 1] };
}

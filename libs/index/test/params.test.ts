import { type CollectionSchema, DataType, type Field } from '@cairn/schema';
import { describe, expect, it } from 'vitest';
import { describeIndexParams, efOf, isGraph, resolveIndex } from '../src/index.ts';

const field = (type: DataType): Field => ({ name: 'f', type }) as CollectionSchema['primaryKey'];
const resolve = (type: DataType, params: Record<string, string>) => resolveIndex(field(type), params);

describe('resolveIndex', () => {
  it('fills in type and metric by the kind of the field', () => {
    expect(resolve(DataType.FloatVector, {})).toEqual({ indexType: 'AUTOINDEX', metric: 'COSINE', params: {} });
    expect(resolve(DataType.BinaryVector, { index_type: 'BIN_FLAT' })).toMatchObject({ metric: 'HAMMING' });
    expect(resolve(DataType.SparseFloatVector, { index_type: 'SPARSE_INVERTED_INDEX' })).toMatchObject({ metric: 'IP' });
  });

  it('takes parameters flat and as a JSON object', () => {
    const flat = resolve(DataType.FloatVector, { index_type: 'HNSW', metric_type: 'l2', M: '8', efConstruction: '64' });
    expect(flat).toEqual({ indexType: 'HNSW', metric: 'L2', params: { M: '8', efConstruction: '64' } });
    expect(resolve(DataType.FloatVector, { index_type: 'HNSW', metric_type: 'L2', params: '{"M":8,"efConstruction":"64"}' })).toEqual(flat);
    expect(describeIndexParams(flat)).toEqual([
      { key: 'index_type', value: 'HNSW' },
      { key: 'metric_type', value: 'L2' },
      { key: 'params', value: '{"M":"8","efConstruction":"64"}' },
    ]);
  });

  it('says no with the code and words of the protocol', () => {
    const cases: [DataType, Record<string, string>, string, string][] = [
      [DataType.FloatVector, { index_type: 'abcd' }, 'InvalidParameter', 'invalid index type: abcd'],
      [DataType.FloatVector, { index_type: 'GPU_CAGRA' }, 'NotSupported', 'not supported: index type GPU_CAGRA'],
      [DataType.FloatVector, { index_type: 'IVF_FLAT', nlist: '0' }, 'InvalidParameter', "param 'nlist' (0) should be in range [1, 65536]"],
      [DataType.FloatVector, { index_type: 'BIN_FLAT' }, 'InvalidParameter', 'does not go with field f (FloatVector)'],
      [DataType.FloatVector, { index_type: 'HNSW', metric_type: 'HAMMING' }, 'InvalidParameter', 'metric type HAMMING does not go with'],
      [DataType.FloatVector, { index_type: 'HNSW', M: '1' }, 'InvalidParameter', "param 'M' (1) should be in range [2, 2048]"],
      [DataType.FloatVector, { index_type: 'HNSW', M: 'many' }, 'InvalidParameter', "param 'M' (many) should be an integer"],
      [DataType.FloatVector, { params: 'no json' }, 'InvalidParameter', 'index params are not JSON'],
      [
        DataType.FloatVector,
        { index_type: 'IVF_PQ', m: '3' },
        'InvalidParameter',
        'should be a multiple of the number of subquantizers m (3)',
      ],
      [DataType.FloatVector, { index_type: 'HNSW_SQ', sq_type: 'SQ9' }, 'InvalidParameter', "param 'sq_type' (SQ9)"],
      [
        DataType.SparseFloatVector,
        { index_type: 'SPARSE_WAND', drop_ratio_build: '1' },
        'InvalidParameter',
        'in range [0.000000, 1.000000)',
      ],
      [DataType.SparseFloatVector, { index_type: 'SPARSE_INVERTED_INDEX', inverted_index_algo: 'X' }, 'InvalidParameter', 'DAAT_WAND'],
      [DataType.Int64, { index_type: 'TRIE' }, 'InvalidParameter', 'does not go with field f (Int64)'],
      [DataType.Double, { index_type: 'BITMAP' }, 'InvalidParameter', 'does not go with field f (Double)'],
      [DataType.VarChar, { index_type: 'NGRAM', min_gram: '3', max_gram: '2' }, 'InvalidParameter', 'min_gram <= max_gram'],
      [DataType.Json, { index_type: 'INVERTED' }, 'InvalidParameter', 'needs json_path and json_cast_type'],
      [DataType.Geometry, { index_type: 'RTREE' }, 'NotSupported', 'not supported: index type RTREE'],
    ];
    for (const [type, params, codeName, part] of cases)
      expect(() => resolve(type, params)).toThrow(expect.objectContaining({ codeName, message: expect.stringContaining(part) }));
  });

  it('accepts every type that an engine serves under its name', () => {
    for (const type of ['IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'SCANN', 'DISKANN', 'HNSW_SQ'])
      expect(isGraph(resolve(DataType.FloatVector, { index_type: type }))).toBe(true);
    expect(isGraph(resolve(DataType.FloatVector, { index_type: 'FLAT' }))).toBe(false);
    expect(isGraph(resolve(DataType.BinaryVector, { index_type: 'BIN_IVF_FLAT', metric_type: 'JACCARD' }))).toBe(false);
    for (const type of ['INVERTED', 'STL_SORT', 'TRIE', 'BITMAP'])
      expect(resolve(DataType.VarChar, { index_type: type })).toEqual({ indexType: type, metric: '', params: {} });
  });

  it('search parameters of other types widen the graph search and never narrow it', () => {
    expect(efOf({ nprobe: 4 }, 10)).toBeUndefined();
    expect(efOf({ nprobe: 64 }, 10)).toBe(512);
    expect(efOf({ search_list: 100 }, 10)).toBe(100);
    expect(efOf({ drop_ratio_search: 0.2 }, 10)).toBeUndefined();
    expect(() => efOf({ drop_ratio_search: 1 }, 10)).toThrow("param 'drop_ratio_search' (1)");
    expect(() => efOf({ nprobe: 0 }, 10)).toThrow("param 'nprobe' (0) should be in range [1, 65536]");
  });

  it('checks ef against the limit', () => {
    expect(efOf({}, 10)).toBeUndefined();
    expect(efOf({ ef: '64' }, 10)).toBe(64);
    expect(() => efOf({ ef: 5 }, 10)).toThrow('ef(5) should be larger than k(10)');
    expect(() => efOf({ ef: 0 }, 1)).toThrow("param 'ef' (0) should be in range [1, 32768]");
  });
});

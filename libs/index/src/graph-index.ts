import { writeFileSync } from 'node:fs';
import { CairnError, countBits, rowsOfBits } from '@cairn/base';
import { DataType, type VectorColumn } from '@cairn/schema';
import { chooseCodes, codeRows, codesBefore } from './graph-codes.ts';
import { appendTrailer, type IndexTrailer, readTrailer } from './index-file.ts';
import { graphParams, isGraph } from './index-params.ts';
import { metricOf } from './metric.ts';
import type { BuildRequest, GraphCodes } from './search-types.ts';
import { type UsearchIndex, usearch } from './usearch.ts';
import { floatsOf, gatherFloats } from './vector-floats.ts';

export interface BuildTask extends BuildRequest {
  /** Threads that the native library uses. */
  readonly threads: number;
}

/** Rows that one call adds when vectors must be copied together first. */
const ADD_ROWS = 16_384;

/** Builds an index file. Blocks its thread for the whole build. */
export function buildIndexFile(task: BuildTask): IndexTrailer {
  const { vectors, path, indexType, metric, params } = task;
  const dim = vectors.kind === 'vector' ? vectors.dim : 0;
  const entries = vectors.validity ? countBits(vectors.validity) : vectors.length;
  let trailer: IndexTrailer = { indexType, metric, params, dataType: vectors.type, dim, rows: vectors.length, entries };
  if (isGraph(task) && entries > 0) {
    if (vectors.kind !== 'vector') throw new CairnError('InvalidParameter', `index ${indexType} needs dense vectors`);
    const { m, efConstruction } = graphParams(task);
    const codes = chooseCodes(vectors, metric, params);
    trailer = { ...trailer, codes };
    const index = openNative(trailer, codes, m, efConstruction);
    addVectors(index, vectors, codes, task.threads);
    index.save(path);
  } else {
    writeFileSync(path, new Uint8Array(0));
  }
  appendTrailer(path, trailer);
  return trailer;
}

/** Breadth comes from each search's `wanted`, so the index's own is the least there is. */
function openNative(trailer: IndexTrailer, codes: GraphCodes, connectivity: number, expansionAdd: number): UsearchIndex {
  const native = metricOf(trailer.metric).native;
  if (!native) throw new CairnError('InvalidParameter', `metric type ${trailer.metric} has no graph index`);
  return new (usearch().CompiledIndex)(trailer.dim, native, codes.scalar, connectivity, expansionAdd, 1, false);
}

function addVectors(index: UsearchIndex, column: VectorColumn, codes: GraphCodes, threads: number): void {
  const { validity, length, dim } = column;
  if (!validity && column.type === DataType.FloatVector && codes.scalar !== 'i8') {
    const keys = BigUint64Array.from({ length }, (_, row) => BigInt(row));
    index.add(keys, floatsOf(column.type, column.data.subarray(0, length * column.bytesPerRow)), threads);
    return;
  }
  const rows = validity ? rowsOfBits(validity) : Int32Array.from({ length }, (_, row) => row);
  for (let at = 0; at < rows.length; at += ADD_ROWS) {
    const chunk = rows.subarray(at, at + ADD_ROWS);
    const floats = new Float32Array(chunk.length * dim);
    gatherFloats(column, chunk, floats);
    index.add(
      BigUint64Array.from(chunk, (row) => BigInt(row)),
      codeRows(codes, floats, dim),
      threads,
    );
  }
}

export interface OpenGraph {
  readonly index: UsearchIndex;
  readonly trailer: IndexTrailer;
  readonly codes: GraphCodes;
}

/** Index files mapped in this thread, the least recently used closed first. */
export class OpenGraphs {
  readonly #open = new Map<string, OpenGraph>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(path: string): OpenGraph {
    const known = this.#open.get(path);
    this.#open.delete(path);
    const entry = known ?? openGraph(path);
    this.#open.set(path, entry);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= this.#limit) break;
      this.#open.delete(oldest);
    }
    return entry;
  }

  /** The map itself goes away with the object; true when there was one. */
  close(path: string): boolean {
    return this.#open.delete(path);
  }
}

function openGraph(path: string): OpenGraph {
  const trailer = readTrailer(path);
  const { m, efConstruction } = graphParams(trailer);
  const codes = trailer.codes ?? codesBefore(trailer.dataType);
  const index = openNative(trailer, codes, m, efConstruction);
  try {
    index.view(path);
  } catch (error) {
    throw new CairnError('ObjectDamaged', `index file ${path} cannot be mapped: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
  if (index.size() !== trailer.entries)
    throw new CairnError('ObjectDamaged', `index file ${path} holds ${index.size()} rows, its trailer says ${trailer.entries}`);
  return { index, trailer, codes };
}

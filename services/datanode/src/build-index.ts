import { join } from 'node:path';
import { CairnError, type FileCalls, fileCalls, type Runtime, randomId } from '@cairn/base';
import { type IndexPool, type IndexSpec, resolveIndex } from '@cairn/index';
import { ObjectExistsError, type ObjectInfo, type ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import type { BuildIndexTask } from '@cairn/proto/cairn/services';
import { scalarEntries } from '@cairn/query';
import { decodeSchema, type Field, isVectorType } from '@cairn/schema';
import type { SealedSegment } from '@cairn/segment';
import { checksumOf } from './copy-objects.ts';
import type { SegmentOpener } from './held-shard.ts';

export interface BuildParts {
  readonly objects: ObjectStore;
  readonly pool: Pick<IndexPool, 'build' | 'buildScalar'>;
  readonly runtime: Runtime;
  readonly open: SegmentOpener;
  /** Where the index is built before it goes to the store. */
  readonly scratchDir: string;
}

export interface BuiltObject {
  readonly object: ObjectRef;
  readonly rows: number;
}

const READ_BYTES = 16 << 20;

/** Builds the index of one field of one segment and writes it at the task's key. A repeat answers with the object that is there. */
export async function buildIndex(parts: BuildParts, task: BuildIndexTask, signal: AbortSignal): Promise<BuiltObject> {
  const { segment: record, index, key } = task;
  if (!record || !index) throw new CairnError('InvalidParameter', `build ${task.buildId} names no segment or no index`);
  const schema = decodeSchema(task.schema);
  const field = schema.byId.get(index.fieldId);
  if (!field)
    throw new CairnError(
      'FieldNotFound',
      `index ${index.name} is of field ${index.fieldId}, which collection ${schema.name} does not have`,
    );
  const spec = resolveIndex(field, Object.fromEntries(index.indexParams.map(({ key: name, value }) => [name, value])));
  const files = fileCalls(parts.runtime);
  await files.mkdir(parts.scratchDir);
  const path = join(parts.scratchDir, `build-${task.buildId}-${randomId(parts.runtime)}`);
  const segment = await parts.open(record, schema);
  try {
    await build(parts, segment, field, spec, path, () => throwIfGone(signal, task));
    throwIfGone(signal, task);
    const info = await upload(parts.objects, files, key, path);
    const crc32c = info.crc32c ?? (await checksumOf(parts.objects, info, signal));
    return { object: { key, size: info.size, crc32c, etag: info.etag, role: 'index', fieldId: field.id }, rows: segment.rows };
  } finally {
    await segment.close();
    await files.unlink(path).catch((error: unknown) => {
      if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
    });
  }
}

async function build(
  parts: BuildParts,
  segment: SealedSegment,
  field: Field,
  spec: IndexSpec,
  path: string,
  stillWanted: () => void,
): Promise<void> {
  if (isVectorType(field.type)) {
    const vectors = await segment.vectors(field.id);
    stillWanted();
    await parts.pool.build({ ...spec, vectors, path });
    return;
  }
  const { entries, header } = await scalarEntries(await segment.column(field.id), field, spec, segment.schema, parts.runtime);
  stillWanted();
  await parts.pool.buildScalar({ ...spec, entries, header, rows: segment.rows, path });
}

async function upload(objects: ObjectStore, files: FileCalls, key: string, path: string): Promise<ObjectInfo> {
  try {
    return await objects.put(key, await readParts(files, path), { ifAbsent: true });
  } catch (error) {
    // An earlier try of this build made it and its answer was lost; any whole build of the segment is as good as another.
    const there = error instanceof ObjectExistsError ? await objects.head(key) : undefined;
    if (there) return there;
    throw error;
  }
}

async function readParts(files: FileCalls, path: string): Promise<Uint8Array[]> {
  const file = await files.open(path, 'r');
  try {
    const { size } = await file.stat();
    const parts: Uint8Array[] = [];
    for (let at = 0; at < size; ) {
      const part = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, size - at));
      const { bytesRead } = await file.read(part, 0, part.length, at);
      if (bytesRead === 0) break;
      parts.push(part.subarray(0, bytesRead));
      at += bytesRead;
    }
    return parts;
  } finally {
    await file.close();
  }
}

function throwIfGone(signal: AbortSignal, task: BuildIndexTask): void {
  if (signal.aborted) throw new CairnError('Cancelled', `build ${task.buildId} was cancelled: its caller has gone`);
}

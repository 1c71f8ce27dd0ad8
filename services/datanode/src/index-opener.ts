import { CairnError, type FileCalls, fileCalls, hasCode, type Logger, type Runtime } from '@cairn/base';
import { decodeScalarIndex, type IndexPool, type OpenIndex, readTrailer, type ScalarIndex } from '@cairn/index';
import type { IndexRecord, SegmentIndexRecord } from '@cairn/proto/cairn/meta';
import type { LocalFile, LocalFiles } from './local-files.ts';

/** A vector index stays in its file, which workers map; a scalar one is in memory. */
export type OpenedIndex = { readonly file: LocalFile } & ({ readonly index: OpenIndex } | { readonly scalar: ScalarIndex });

/** Read at once. */
const READ_BYTES = 4 << 20;

/** Brings index objects here and opens them. Segments may share a file: it closes in the workers when the last of them lets go. */
export class IndexOpener {
  readonly #files: LocalFiles;
  readonly #pool: Pick<IndexPool, 'open' | 'release'>;
  readonly #logger: Logger;
  readonly #calls: FileCalls;

  constructor(files: LocalFiles, pool: Pick<IndexPool, 'open' | 'release'>, logger: Logger, runtime: Runtime) {
    this.#calls = fileCalls(runtime);
    this.#files = files;
    this.#pool = pool;
    this.#logger = logger;
  }

  /**
   * Undefined when the object is missing, damaged or of another segment: the index is only a short cut, so vectors are searched exactly, columns scanned, and the log names the
   * object. A store that is down is an error: it will be back.
   */
  async open(build: SegmentIndexRecord, index: IndexRecord | undefined, rows: number): Promise<OpenedIndex | undefined> {
    if (!build.object) return undefined;
    let file: LocalFile | undefined;
    try {
      file = await this.#files.open(build.object);
      const scalar = await this.#scalar(file);
      const opened = scalar ?? (await this.#pool.open(file.path));
      if (opened.rows !== rows) {
        throw new CairnError(
          'ObjectDamaged',
          `object ${file.key} is an index of ${opened.rows} rows, segment ${build.segmentId} has ${rows}`,
        );
      }
      return scalar ? { scalar, file } : { index: opened as OpenIndex, file };
    } catch (error) {
      if (file) await this.release(file);
      if (!hasCode(error, 'ObjectNotFound', 'ObjectDamaged')) throw error;
      const fields = { segment: build.segmentId, build: build.buildId, index: index?.name ?? '', key: build.object.key, error };
      this.#logger.error(fields, 'index cannot be used; the segment is read without it');
      return undefined;
    }
  }

  /** The file's content when it is a scalar index. */
  async #scalar({ path }: LocalFile): Promise<ScalarIndex | undefined> {
    const trailer = readTrailer(path);
    if (!trailer.scalar) return undefined;
    const bytes = new Uint8Array(trailer.scalar.dictionaryBytes + trailer.scalar.rowsBytes);
    const file = await this.#calls.open(path, 'r');
    try {
      for (let at = 0; at < bytes.length; ) {
        const { bytesRead } = await file.read(bytes, at, Math.min(READ_BYTES, bytes.length - at), at);
        if (bytesRead === 0) break;
        at += bytesRead;
      }
    } finally {
      await file.close();
    }
    return decodeScalarIndex(bytes, trailer);
  }

  async release(file: LocalFile): Promise<void> {
    await this.#pool.release(file.path);
    await this.#files.release(file);
  }
}

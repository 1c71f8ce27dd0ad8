import { CairnError, hasCode, type Logger } from '@cairn/base';
import type { IndexPool, OpenIndex } from '@cairn/index';
import type { IndexRecord, SegmentIndexRecord } from '@cairn/proto/cairn/meta';
import type { LocalFile, LocalFiles } from './local-files.ts';

export interface OpenedIndex {
  readonly index: OpenIndex;
  readonly file: LocalFile;
}

/** Brings index objects here and opens them. Segments may share a file: it closes in the workers when the last of them lets go. */
export class IndexOpener {
  readonly #files: LocalFiles;
  readonly #pool: Pick<IndexPool, 'open' | 'release'>;
  readonly #logger: Logger;

  constructor(files: LocalFiles, pool: Pick<IndexPool, 'open' | 'release'>, logger: Logger) {
    this.#files = files;
    this.#pool = pool;
    this.#logger = logger;
  }

  /**
   * Undefined when the object is missing, damaged or of another segment: the index is only a short cut, so the segment is searched exactly and the log names the
   * object. A store that is down is an error: it will be back.
   */
  async open(build: SegmentIndexRecord, index: IndexRecord | undefined, rows: number): Promise<OpenedIndex | undefined> {
    if (!build.object) return undefined;
    let file: LocalFile | undefined;
    try {
      file = await this.#files.open(build.object);
      const opened = await this.#pool.open(file.path);
      if (opened.rows !== rows) {
        throw new CairnError(
          'ObjectDamaged',
          `object ${file.key} is an index of ${opened.rows} rows, segment ${build.segmentId} has ${rows}`,
        );
      }
      return { index: opened, file };
    } catch (error) {
      if (file) await this.release(file);
      if (!hasCode(error, 'ObjectNotFound', 'ObjectDamaged')) throw error;
      const fields = { segment: build.segmentId, build: build.buildId, index: index?.name ?? '', key: build.object.key, error };
      this.#logger.error(fields, 'index cannot be used; the segment is searched exactly');
      return undefined;
    }
  }

  async release(file: LocalFile): Promise<void> {
    await this.#pool.release(file.path);
    await this.#files.release(file);
  }
}

import type { SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { SealedSegment } from '@cairn/segment';
import type { OpenedIndex } from './index-opener.ts';
import type { LocalFile } from './local-files.ts';

interface HeldIndex {
  readonly buildId: number;
  readonly file: LocalFile;
}

/** One loaded segment: readers count, so that it closes only when the last of them is done. */
export class SegmentHolder {
  readonly record: SegmentRecord;
  readonly segment: SealedSegment;
  /** By field for vectors, of which a field has one index; by index for scalars. */
  readonly #indexes = new Map<string, HeldIndex>();
  readonly #onClosed: (files: readonly LocalFile[]) => Promise<void>;
  #replaced: LocalFile[] = [];
  #readers = 0;
  #retired = false;

  /** `onClosed` lets go of the index files, once nobody searches them. */
  constructor(record: SegmentRecord, segment: SealedSegment, onClosed: (files: readonly LocalFile[]) => Promise<void>) {
    this.record = record;
    this.segment = segment;
    this.#onClosed = onClosed;
  }

  /** Whether this very build is attached. */
  holds({ buildId }: SegmentIndexRecord): boolean {
    return [...this.#indexes.values()].some((held) => held.buildId === buildId);
  }

  attach({ fieldId, indexId, buildId }: SegmentIndexRecord, opened: OpenedIndex): void {
    const key = 'scalar' in opened ? `index ${indexId}` : `field ${fieldId}`;
    const before = this.#indexes.get(key)?.file;
    // A search under way may still use the one before; it goes with the segment.
    if (before) this.#replaced.push(before);
    this.#indexes.set(key, { buildId, file: opened.file });
    if ('scalar' in opened) this.segment.attachScalarIndex(fieldId, indexId, opened.scalar);
    else this.segment.attachIndex(fieldId, opened.index);
  }

  /** Runs a read over these segments; none of them closes before it ends. */
  static async reading<T>(holders: readonly SegmentHolder[], read: () => Promise<T>): Promise<T> {
    for (const holder of holders) holder.#readers++;
    try {
      return await read();
    } finally {
      for (const holder of holders) {
        holder.#readers--;
        if (holder.#retired && holder.#readers === 0) await holder.#close();
      }
    }
  }

  /** No new readers come; closes now or with the last reader. */
  async retire(): Promise<void> {
    if (this.#retired) return;
    this.#retired = true;
    if (this.#readers === 0) await this.#close();
  }

  async #close(): Promise<void> {
    const files = [...this.#replaced, ...[...this.#indexes.values()].map((held) => held.file)];
    this.#replaced = [];
    this.#indexes.clear();
    await this.segment.close();
    await this.#onClosed(files);
  }
}

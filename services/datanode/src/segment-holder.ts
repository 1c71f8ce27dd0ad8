import type { SegmentRecord } from '@cairn/proto/cairn/meta';
import type { LoadedVectorIndex, SealedSegment } from '@cairn/segment';
import type { LocalFile } from './local-files.ts';

interface HeldIndex {
  readonly buildId: number;
  readonly file: LocalFile;
}

/** One loaded segment: readers count, so that it closes only when the last of them is done. */
export class SegmentHolder {
  readonly record: SegmentRecord;
  readonly segment: SealedSegment;
  readonly #indexes = new Map<number, HeldIndex>();
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

  /** Build of the field's index that is attached; undefined when none. */
  buildOf(fieldId: number): number | undefined {
    return this.#indexes.get(fieldId)?.buildId;
  }

  attach(fieldId: number, buildId: number, index: LoadedVectorIndex, file: LocalFile): void {
    const before = this.#indexes.get(fieldId)?.file;
    // A search under way may still use the one before; it goes with the segment.
    if (before) this.#replaced.push(before);
    this.#indexes.set(fieldId, { buildId, file });
    this.segment.attachIndex(fieldId, index);
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

import type { CollectionRecord } from '@cairn/proto/cairn/meta';

/** Shapes that are kept; all are forgotten when one more comes. */
const MAX_SHAPES = 512;
/** Characters of what asks for a shape; a longer one (a filter with a long list) is read each time. */
const MAX_KEY_LENGTH = 4_096;

/**
 * What requests of one shape (all but their vectors) mean, as long as the catalog stays as it is: clients ask the same with other vectors, thousands of times a
 * second. A change of any record of the catalog forgets all.
 */
export class SearchShapes<T> {
  readonly #shapes = new Map<string, { readonly record: CollectionRecord; readonly shape: T }>();
  #revision = -1;

  find(revision: number, record: CollectionRecord, key: string): T | undefined {
    if (revision !== this.#revision) return undefined;
    const found = this.#shapes.get(key);
    return found?.record === record ? found.shape : undefined;
  }

  /** `revision`: of the catalog before the shape was read. */
  keep(revision: number, record: CollectionRecord, key: string, shape: T): void {
    if (key.length > MAX_KEY_LENGTH) return;
    if (revision !== this.#revision || this.#shapes.size >= MAX_SHAPES) this.#shapes.clear();
    this.#revision = revision;
    this.#shapes.set(key, { record, shape });
  }
}

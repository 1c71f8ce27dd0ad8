/** A list of numbers in a typed array that grows; `values` has at least `length` entries. */
export class GrowingNumbers<T extends Float64Array | Int32Array> {
  #values: T;
  #length = 0;
  readonly #make: (length: number) => T;

  constructor(make: (length: number) => T, capacity: number) {
    this.#make = make;
    this.#values = make(capacity);
  }

  get values(): T {
    return this.#values;
  }

  get length(): number {
    return this.#length;
  }

  /** Room for `count` more; returns the position of the first. */
  extend(count: number): number {
    const start = this.#length;
    const end = start + count;
    if (end > this.#values.length) {
      const larger = this.#make(Math.max(end, this.#values.length * 2));
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#length = end;
    return start;
  }
}

/** Shards of a table: each grows by itself, so that no growth takes long. A power of two. */
const SHARDS = 256;
const FIRST_SLOTS = 16;

interface Shard {
  keys: Float64Array;
  values: Int32Array;
  size: number;
}

/**
 * Numbers of units (`numberOf`) with a small integer each, 12 bytes a slot: for millions of them. Number 0 means 1; as with any two units of one
 * number, a garbage collector then keeps too much, never too little.
 */
export class NumberTable {
  /** Made as the first number of each comes: most tables are small. */
  readonly #shards: (Shard | undefined)[] = new Array(SHARDS).fill(undefined);

  get size(): number {
    return this.#shards.reduce((sum, shard) => sum + (shard?.size ?? 0), 0);
  }

  /** The value of a number; undefined when it is not there. */
  get(number: number): number | undefined {
    const key = number || 1;
    const shard = this.#shards[shardOf(key)];
    if (!shard) return undefined;
    const at = slotOf(shard.keys, key);
    return shard.keys[at] === key ? shard.values[at] : undefined;
  }

  has(number: number): boolean {
    return this.get(number) !== undefined;
  }

  set(number: number, value: number): void {
    const key = number || 1;
    let shard = this.#shards[shardOf(key)];
    if (!shard) {
      shard = { keys: new Float64Array(FIRST_SLOTS), values: new Int32Array(FIRST_SLOTS), size: 0 };
      this.#shards[shardOf(key)] = shard;
    }
    if (shard.size * 3 >= shard.keys.length * 2) grow(shard);
    const at = slotOf(shard.keys, key);
    if (shard.keys[at] !== key) shard.size++;
    shard.keys[at] = key;
    shard.values[at] = value;
  }

  /** Adds these bits to the value. */
  mark(number: number, bits: number): void {
    this.set(number, (this.get(number) ?? 0) | bits);
  }
}

function shardOf(key: number): number {
  return key & (SHARDS - 1);
}

/** Where the key is, or where it would go. */
function slotOf(keys: Float64Array, key: number): number {
  const mask = keys.length - 1;
  let at = Math.floor(key / SHARDS) & mask;
  while (keys[at] !== 0 && keys[at] !== key) at = (at + 1) & mask;
  return at;
}

function grow(shard: Shard): void {
  const { keys, values } = shard;
  shard.keys = new Float64Array(keys.length * 2);
  shard.values = new Int32Array(keys.length * 2);
  for (let from = 0; from < keys.length; from++) {
    const key = keys[from] as number;
    if (key === 0) continue;
    const at = slotOf(shard.keys, key);
    shard.keys[at] = key;
    shard.values[at] = values[from] as number;
  }
}

/** A list of numbers in one typed array. */
export class NumberList {
  #values = new Float64Array(16);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(value: number): void {
    if (this.#length === this.#values.length) {
      const larger = new Float64Array(this.#values.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.#length++] = value;
  }

  at(position: number): number {
    return this.#values[position] as number;
  }

  add(position: number, value: number): void {
    this.#values[position] = this.at(position) + value;
  }
}

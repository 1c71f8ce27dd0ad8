import { CairnError } from '@cairn/base';
import { open, type RootDatabase } from 'lmdb';
import type { MetaEntry } from './meta-store.ts';
import type { MetaTable, TableChange, TableSnapshot } from './meta-table.ts';

/** First byte of every LMDB key: what the rest is. */
const COUNTERS = 0;
const ENTRIES = 1;
/** A mark beside each entry that hangs on a lease. */
const LEASED = 2;
const REVISION_KEY = Buffer.from([COUNTERS, 1]);
/** Before the value: createRevision and modRevision as doubles. */
const HEADER_BYTES = 16;
const NOTHING = Buffer.alloc(0);

/** A table in an LMDB environment. The environment must belong to one process at a time. */
export class LmdbTable implements MetaTable {
  readonly #db: RootDatabase<Buffer, Buffer>;
  #revision: number;

  /** Opens or creates the environment in directory `dir`. */
  constructor(dir: string) {
    this.#db = open<Buffer, Buffer>({
      path: dir,
      noSubdir: false,
      keyEncoding: 'binary',
      encoding: 'binary',
      // lmdb-js else resolves a commit when it is visible, and syncs it afterwards: an answer would stand on what a power cut can take.
      overlappingSync: false,
    });
    this.#revision = this.#storedRevision();
  }

  /** Keys that hung on leases of the process before; they are to be deleted at open. */
  leasedKeys(): string[] {
    return [...this.#db.getKeys({ start: Buffer.from([LEASED]), end: Buffer.from([LEASED + 1]) })].map(keyText);
  }

  get(key: string): MetaEntry | undefined {
    const stored = this.#db.get(keyBytes(ENTRIES, key));
    return stored && decodeEntry(key, stored);
  }

  revision(): number {
    return this.#revision;
  }

  range(
    prefix: string,
    after: string | undefined,
    limit: number,
    maxBytes: number,
  ): { entries: MetaEntry[]; more: boolean; revision: number } {
    const entries: MetaEntry[] = [];
    let bytes = 0;
    let more = false;
    const start =
      after === undefined || after < prefix ? keyBytes(ENTRIES, prefix) : Buffer.concat([keyBytes(ENTRIES, after), Buffer.of(0)]);
    for (const { key, value } of this.#db.getRange({ start, end: prefixEnd(prefix) })) {
      bytes += value.length - HEADER_BYTES;
      if (entries.length === limit || (bytes > maxBytes && entries.length > 0)) {
        more = true;
        break;
      }
      entries.push(decodeEntry(keyText(key), value));
    }
    return { entries, more, revision: this.#storedRevision() };
  }

  keys(prefix: string): string[] {
    return [...this.#db.getKeys({ start: keyBytes(ENTRIES, prefix), end: prefixEnd(prefix) })].map(keyText);
  }

  snapshot(prefix: string): TableSnapshot {
    const transaction = this.#db.useReadTransaction();
    const stored = this.#db.get(REVISION_KEY, { transaction });
    let start = keyBytes(ENTRIES, prefix);
    return {
      revision: stored ? stored.readDoubleBE(0) : 1,
      next: (limit) => {
        const entries: MetaEntry[] = [];
        for (const { key, value } of this.#db.getRange({ start, end: prefixEnd(prefix), limit, transaction })) {
          entries.push(decodeEntry(keyText(key), value));
        }
        const last = entries.at(-1);
        if (last) start = Buffer.concat([keyBytes(ENTRIES, last.key), Buffer.of(0)]);
        return entries;
      },
      close: () => transaction.done(),
    };
  }

  async commit(changes: readonly TableChange[], revision: number): Promise<void> {
    const stored = Buffer.alloc(8);
    stored.writeDoubleBE(revision);
    const committed = await this.#db.batch(() => {
      for (const { key, entry, leased } of changes) {
        if (entry) this.#db.put(keyBytes(ENTRIES, key), encodeEntry(entry));
        else this.#db.remove(keyBytes(ENTRIES, key));
        if (entry && leased) this.#db.put(keyBytes(LEASED, key), NOTHING);
        else this.#db.remove(keyBytes(LEASED, key));
      }
      this.#db.put(REVISION_KEY, stored);
    });
    if (!committed) throw new CairnError('StoreUnavailable', `LMDB did not commit revision ${revision}`);
    this.#revision = revision;
  }

  async close(): Promise<void> {
    await this.#db.close();
  }

  #storedRevision(): number {
    return this.#db.get(REVISION_KEY)?.readDoubleBE(0) ?? 1;
  }
}

function keyBytes(kind: number, key: string): Buffer {
  const bytes = Buffer.allocUnsafe(1 + Buffer.byteLength(key));
  bytes[0] = kind;
  bytes.write(key, 1);
  return bytes;
}

function keyText(bytes: Buffer): string {
  // Without a Buffer in between: a listing has many keys.
  return bytes.toString('utf8', 1);
}

/** The first LMDB key after all entries with this prefix. */
function prefixEnd(prefix: string): Buffer {
  const end = keyBytes(ENTRIES, prefix);
  // UTF-8 has no byte 0xff, and the first byte is ENTRIES: the last byte can always be raised.
  end[end.length - 1]++;
  return end;
}

function encodeEntry(entry: MetaEntry): Buffer {
  const stored = Buffer.allocUnsafe(HEADER_BYTES + entry.value.length);
  stored.writeDoubleBE(entry.createRevision, 0);
  stored.writeDoubleBE(entry.modRevision, 8);
  stored.set(entry.value, HEADER_BYTES);
  return stored;
}

function decodeEntry(key: string, stored: Buffer): MetaEntry {
  return { key, value: stored.subarray(HEADER_BYTES), createRevision: stored.readDoubleBE(0), modRevision: stored.readDoubleBE(8) };
}

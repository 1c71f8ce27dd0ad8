import type { CairnError, Runtime } from '@cairn/base';
import type { CopyOptions, ListPage, ObjectInfo, ObjectStore, Place, PutOptions } from './object-store.ts';

export type ObjectOperation = 'put' | 'get' | 'getRange' | 'head' | 'copy' | 'list' | 'delete' | 'ping';

export interface ObjectCall {
  readonly operation: ObjectOperation;
  /** Key, prefix, or the source of a copy. */
  readonly key: string;
  /** Target of a copy. */
  readonly to?: string;
  /** Count of calls so far, from 1. */
  readonly number: number;
}

/** What happens to a call. Several may be set; `delayMs` comes first. */
export interface ObjectFault {
  readonly delayMs?: number;
  /** Fails without having done anything. */
  readonly fail?: CairnError;
  /** Does it, then fails: the caller cannot know. */
  readonly failAfter?: CairnError;
  /** Bytes that arrive (get) or are stored (put, copy) end here. */
  readonly truncate?: number;
  /** The lowest bit of this byte is flipped on its way. */
  readonly flip?: number;
}

export type ObjectFaultHook = (call: ObjectCall) => ObjectFault | undefined;

/** Any store, with the faults that a hook asks for. */
export class FaultyObjectStore implements ObjectStore {
  readonly uri: string;
  readonly localPath?: (key: string) => string;
  readonly #inner: ObjectStore;
  readonly #runtime: Runtime;
  #hook: ObjectFaultHook;
  #calls = 0;

  constructor(inner: ObjectStore, runtime: Runtime, hook: ObjectFaultHook = () => undefined) {
    this.#inner = inner;
    this.#runtime = runtime;
    this.#hook = hook;
    this.uri = inner.uri;
    const localPath = inner.localPath?.bind(inner);
    if (localPath) this.localPath = localPath;
  }

  /** Replaces the hook. */
  faults(hook: ObjectFaultHook): void {
    this.#hook = hook;
  }

  async put(key: string, body: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<ObjectInfo> {
    const parts = body instanceof Uint8Array ? [body] : body;
    return this.#run('put', key, (fault) => this.#inner.put(key, isDamage(fault) ? damaged(Buffer.concat(parts), fault) : parts, options));
  }

  async get(key: string, signal?: AbortSignal, place?: Place): Promise<Uint8Array> {
    return this.#run('get', key, async (fault) => damaged(await this.#inner.get(key, signal, place), fault));
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#run('getRange', key, async (fault) => damaged(await this.#inner.getRange(key, offset, length, signal), fault));
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    return this.#run('head', key, () => this.#inner.head(key));
  }

  async copy(from: string, to: string, options?: CopyOptions): Promise<ObjectInfo> {
    return this.#run(
      'copy',
      from,
      async (fault) => {
        const copied = await this.#inner.copy(from, to, options);
        // A copy that arrives damaged: the store itself believes it is whole, so it answers with the tag of what it holds.
        return isDamage(fault) ? this.#inner.put(to, damaged(await this.#inner.get(to), fault)) : copied;
      },
      to,
    );
  }

  async list(prefix: string, options?: { readonly after?: string; readonly limit?: number }): Promise<ListPage> {
    return this.#run('list', prefix, () => this.#inner.list(prefix, options));
  }

  async delete(keys: readonly string[]): Promise<void> {
    return this.#run('delete', keys[0] ?? '', () => this.#inner.delete(keys));
  }

  async ping(): Promise<void> {
    return this.#run('ping', '', () => this.#inner.ping());
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }

  async #run<T>(operation: ObjectOperation, key: string, work: (fault: ObjectFault) => Promise<T>, to?: string): Promise<T> {
    const fault = this.#hook({ operation, key, number: ++this.#calls, ...(to === undefined ? {} : { to }) }) ?? {};
    if (fault.delayMs !== undefined) await this.#runtime.sleep(fault.delayMs);
    if (fault.fail) throw fault.fail;
    const result = await work(fault);
    if (fault.failAfter) throw fault.failAfter;
    return result;
  }
}

function isDamage(fault: ObjectFault): boolean {
  return fault.truncate !== undefined || fault.flip !== undefined;
}

function damaged(bytes: Uint8Array, fault: ObjectFault): Uint8Array {
  if (!isDamage(fault)) return bytes;
  const torn = bytes.slice(0, fault.truncate ?? bytes.length);
  if (fault.flip !== undefined && fault.flip < torn.length) torn[fault.flip] ^= 1;
  return torn;
}

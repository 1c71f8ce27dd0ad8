/**
 * What lies between simulated processes and the stores: delay, loss, answers that come late or never, cuts, and the seam of a crash. A call that
 * was sent by a process that crashed may or may not land, by the seed; its outcome never comes back.
 */
import { CairnError, type Runtime } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import type { Lease, MemoryMetaStore, MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import type { WalStore } from '@cairn/wal';

export interface LinkFaults {
  /** Shortest and longest way there, and back, virtual ms. */
  minDelayMs: number;
  maxDelayMs: number;
  /** Chance that a call does not arrive. */
  lost: number;
  /** Chance that it is done and its answer does not arrive. */
  unanswered: number;
  /** Chance that it is given up first, and done some time later. */
  late: number;
  /** Longest time after which a call that was given up is done, virtual ms. */
  maxLateMs: number;
  /** Every so many-th call is refused at once, as by 503; 0: none is. */
  refuseEvery: number;
  /** No room is left: what writes is refused. */
  full: boolean;
  /** Chance that the connection breaks in the middle of a copy, and stays so for a while. */
  cutCopies: number;
}

export const NO_LINK_FAULTS: Readonly<LinkFaults> = {
  ...{ minDelayMs: 0, maxDelayMs: 4, lost: 0, unanswered: 0, late: 0, maxLateMs: 0, refuseEvery: 0, full: false, cutCopies: 0 },
};

/** How a process sees one store. */
export interface LinkOptions {
  readonly simulation: Simulation;
  readonly runtime: SimulatedRuntime;
  /** The store: `meta`, `wal`, `objects`. */
  readonly what: string;
  readonly faults: LinkFaults;
  /** Whether the process is cut off from the store now. */
  readonly cut: () => boolean;
  /** Cuts it off for so long, virtual ms. */
  readonly cutFor: (forMs: number) => void;
  /** Each call, before it is sent; may crash the process. False: then it does not arrive. */
  readonly sending: (what: string) => boolean;
  /** Calls arrive in the order in which they were sent, but for those that are late. */
  readonly ordered: boolean;
}

/** Longest time in which a call over a cut link fails, virtual ms. */
const CUT_TIMEOUT_MS = 1_000;
const CUT_POLL_MS = 100;
const LEASE_NEWS_MS = 300;
/** A node hears of the end of its lease only when the store answers again. */
const LATE_LEASE_NEWS_MS = 12_000;
/** Keeps two calls that were sent at the same moment apart. */
const APART_MS = 1e-6;
const MAX_COPY_CUT_MS = 2_000;
/** What takes room in a store. */
const WRITES: ReadonlySet<string> = new Set(['put', 'copy', 'append', 'appendFence', 'ensureChannel', 'txn']);

export class Link {
  readonly runtime: SimulatedRuntime;
  readonly simulation: Simulation;
  readonly options: LinkOptions;
  #lastAt = 0;
  #calls = 0;

  constructor(options: LinkOptions) {
    this.options = options;
    this.runtime = options.runtime;
    this.simulation = options.simulation;
  }

  /** Sends a call over and its outcome back. */
  call<T>(method: string, act: () => Promise<T>): Promise<T> {
    const { simulation, runtime, faults, what } = this.options;
    if (!runtime.alive) return never();
    const lands = this.options.sending(`${what}.${method}`);
    const unavailable = (): CairnError => new CairnError('StoreUnavailable', `${what}: ${method} was not answered (simulated)`);
    return runtime.seam(
      new Promise<T>((resolve, reject) => {
        const delay = (): number => faults.minDelayMs + simulation.random() * (faults.maxDelayMs - faults.minDelayMs);
        const later = (ms: number, run: () => void): void => void simulation.schedule(ms, run);
        if (this.options.cut()) return later(simulation.random() * CUT_TIMEOUT_MS, () => reject(unavailable()));
        if (this.#refused(method)) return later(delay(), () => reject(unavailable()));
        if (method === 'copy' && faults.cutCopies > 0 && simulation.random() < faults.cutCopies)
          later(delay(), () => this.options.cutFor(simulation.random() * MAX_COPY_CUT_MS));
        const fate = simulation.random();
        if (fate < faults.lost || !lands) return later(delay(), () => reject(unavailable()));
        const unanswered = fate < faults.lost + faults.unanswered;
        const late = !unanswered && fate < faults.lost + faults.unanswered + faults.late;
        let at = simulation.nowMs + delay();
        if (late) {
          at += simulation.random() * faults.maxLateMs;
          later(delay(), () => reject(unavailable()));
        } else if (this.options.ordered) {
          at = Math.max(at, this.#lastAt + APART_MS);
          this.#lastAt = at;
        }
        later(at - simulation.nowMs, () => {
          act().then(
            (value) => later(delay(), () => (unanswered || this.options.cut() ? reject(unavailable()) : resolve(value))),
            (error: unknown) => later(delay(), () => reject(unanswered || this.options.cut() ? unavailable() : error)),
          );
        });
      }),
    );
  }

  #refused(method: string): boolean {
    const { refuseEvery, full } = this.options.faults;
    return (refuseEvery > 0 && ++this.#calls % refuseEvery === 0) || (full && WRITES.has(method.replace(/ .*/, '')));
  }

  /** Passes a stream on, some time later; it stands still while the link is cut, and for ever when the process is gone. */
  async *stream<T>(source: (signal: AbortSignal) => AsyncIterable<T>, signal?: AbortSignal): AsyncGenerator<T> {
    const { runtime, faults, simulation } = this.options;
    if (!runtime.alive) await never();
    const ended = signal ? AbortSignal.any([signal, runtime.dead]) : runtime.dead;
    for await (const item of source(ended)) {
      if (!runtime.alive) break;
      await runtime.sleep(simulation.random() * faults.maxDelayMs);
      while (this.options.cut()) await runtime.sleep(CUT_POLL_MS);
      yield item;
    }
    if (!runtime.alive) await never();
  }

  /** Throws as a call would, now and then: before a stream that may break. */
  async mayFail(method: string): Promise<void> {
    await this.call(method, async () => undefined);
  }
}

function never(): Promise<never> {
  return new Promise(() => undefined);
}

/** The MetaStore behind a link. Its leases are kept alive over the link too: they run out while it is cut. */
export function linkedMeta(store: MemoryMetaStore, link: Link): MetaStore {
  const { runtime } = link;
  const far = store.connect(runtime);
  return {
    get: (key) => link.call('get', () => far.get(key)),
    range: (options) => link.call('range', () => far.range(options)),
    txn: (txn) => link.call(`txn ${firstKey(txn.then)}`, () => far.txn(txn)),
    watch: (prefix, signal) => link.stream((ended) => far.watch(prefix, ended), signal),
    grantLease: (ttlMs, { ridesOutages = false } = {}) =>
      link.call('grantLease', () => linkedLease(store, ttlMs, link, ridesOutages ? LATE_LEASE_NEWS_MS : LEASE_NEWS_MS)),
    ping: () => link.call('ping', () => far.ping()),
    close: () => runtime.seam(Promise.resolve()),
  };
}

/** What kind of key a transaction writes first: says in counts of crashes where they fell. */
function firstKey(ops: readonly { readonly kind: string; readonly key?: string; readonly prefix?: string }[]): string {
  const op = ops[0];
  return (op?.key ?? op?.prefix ?? 'nothing').replace(/[0-9].*|[^/]*$/, '') || 'root';
}

/** Timers of keep-alives: they wait while the link is cut, and end once the lease is given up. */
function keepAliveRuntime(link: Link, givenUp: { value: boolean }): Runtime {
  const { runtime, simulation, options } = link;
  const sent = (callback: () => void): void => {
    if (givenUp.value) return;
    if (options.cut()) runtime.after(CUT_POLL_MS, () => sent(callback));
    else callback();
  };
  return {
    inline: true,
    now: () => runtime.now(),
    monotonic: () => runtime.monotonic(),
    random: () => runtime.random(),
    randomBytes: (length) => runtime.randomBytes(length),
    sleep: (delayMs, signal) => runtime.sleep(delayMs, signal),
    turn: () => runtime.turn(),
    after: (delayMs, callback) => runtime.after(delayMs + simulation.random() * options.faults.maxDelayMs, () => sent(callback)),
  };
}

/** A lease over the link. The news that it is lost comes some time after the loss; a revocation ends its keep-alives even when it does not arrive. */
async function linkedLease(store: MemoryMetaStore, ttlMs: number, link: Link, newsMs: number): Promise<Lease> {
  const { runtime, simulation } = link;
  const givenUp = { value: false };
  const inner = await store.connect(keepAliveRuntime(link, givenUp)).grantLease(ttlMs);
  const lost = new AbortController();
  const tell = (): void => {
    runtime.after(simulation.random() * newsMs, () => lost.abort(inner.lost.reason));
  };
  if (inner.lost.aborted) tell();
  else inner.lost.addEventListener('abort', tell, { once: true });
  return {
    id: inner.id,
    ttlMs: inner.ttlMs,
    lost: lost.signal,
    validUntil: () => inner.validUntil(),
    revoke: () => {
      givenUp.value = true;
      return link.call('revoke', () => inner.revoke());
    },
  };
}

export function linkedObjects(store: ObjectStore, link: Link): ObjectStore {
  const call = link.call.bind(link);
  return {
    uri: store.uri,
    put: (key, body, options) => call('put', () => store.put(key, body, options)),
    get: (key, signal) => call('get', () => store.get(key, signal)),
    getRange: (key, offset, length, signal) => call('getRange', () => store.getRange(key, offset, length, signal)),
    head: (key) => call('head', () => store.head(key)),
    copy: (from, to, options) => call('copy', () => store.copy(from, to, options)),
    list: (prefix, options) => call('list', () => store.list(prefix, options)),
    delete: (keys) => call('delete', () => store.delete(keys)),
    ping: () => call('ping', () => store.ping()),
    close: () => link.runtime.seam(Promise.resolve()),
  };
}

export function linkedWal(store: WalStore, link: Link): WalStore {
  const call = link.call.bind(link);
  return {
    maxRecordBytes: store.maxRecordBytes,
    ensureChannel: (channel) => call('ensureChannel', () => store.ensureChannel(channel)),
    deleteChannel: (channel) => call('deleteChannel', () => store.deleteChannel(channel)),
    listChannels: () => call('listChannels', () => store.listChannels()),
    state: (channel) => call('state', () => store.state(channel)),
    append: (channel, subject, bytes, expectedLast) => call('append', () => store.append(channel, subject, bytes, expectedLast)),
    appendFence: (channel, subject, bytes, expectedLast) =>
      call('appendFence', () => store.appendFence(channel, subject, bytes, expectedLast)),
    read: (channel, options) =>
      link.stream(async function* (signal) {
        await link.mayFail('read');
        yield* store.read(channel, { ...options, signal });
      }, options.signal),
    follow: (channel, options) => link.stream((signal) => store.follow(channel, { ...options, signal }), options.signal),
    trim: (channel, before) => call('trim', () => store.trim(channel, before)),
    check: () => call('check', () => store.check()),
    ping: () => call('ping', () => store.ping()),
    close: () => link.runtime.seam(Promise.resolve()),
  };
}

import { asCairnError, CairnError, codeNameOf, ErrorCodes, hasCode, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type Compare, TXN_MAX_OPS } from '@cairn/meta';
import { ControlAppliedRecord, ControlResultRecord } from '@cairn/proto/cairn/meta';
import type { ControlRecord } from '@cairn/proto/cairn/wal';
import type { Effects } from './changes/change.ts';
import { type Change, effectsOf } from './changes/table.ts';
import type { LeaderStore, Put } from './leader-store.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TimestampOracle } from './timestamp-oracle.ts';

/** Answer to a change that was applied. */
export interface Applied {
  /** Mod revision of catalog/applied that shows the change. */
  readonly revision: number;
  readonly ts: number;
  readonly id: number;
}

/** Called after a change was applied and the state shows it. Must not wait: long work is a job. */
export type AppliedListener = (change: Change, id: number, ts: number) => void;

/** Ops of one page of staged records: leaves room for compares. */
const PAGE_OPS = TXN_MAX_OPS - 10;
const PAGE_BYTES = 800_000;

interface Outcome {
  readonly id: number;
  readonly error: CairnError | undefined;
}

/**
 * Applies the messages of the control channel in order, exactly once: the effects of message n, catalog/applied = n and its answer are one
 * transaction that compares what catalog/applied was before it, and leadership. A permanent error is an answer like any other.
 */
export class ControlApplier {
  readonly #store: LeaderStore;
  readonly #oracle: TimestampOracle;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #settings: DataCoordSettings;
  readonly #results = new Map<string, ControlResultRecord>();
  readonly #listeners: AppliedListener[] = [];
  #applied: ControlAppliedRecord = { sequence: 0, ts: 0 };
  /** Value of catalog/applied as stored; undefined before the first change of a new cluster. */
  #appliedBytes: Uint8Array | undefined;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(store: LeaderStore, oracle: TimestampOracle, runtime: Runtime, logger: Logger, settings: DataCoordSettings) {
    this.#store = store;
    this.#oracle = oracle;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#settings = settings;
  }

  /** Reads where the last leader stopped, and the answers it gave. */
  async load(): Promise<void> {
    const entry = await this.#store.retrying(() => this.#store.meta.get(keys.applied));
    if (entry) {
      this.#appliedBytes = entry.value;
      this.#applied = ControlAppliedRecord.decode(entry.value);
    }
    for await (const page of this.#store.pages(keys.controlResults)) {
      for (const result of page) {
        const record = ControlResultRecord.decode(result.value);
        this.#results.set(record.requestId, record);
      }
    }
  }

  get appliedSequence(): number {
    return this.#applied.sequence;
  }

  onApplied(listener: AppliedListener): void {
    this.#listeners.push(listener);
  }

  /** The recorded answer of a request: what was made, or its error thrown. undefined: no such request was applied. */
  answerOf(requestId: string): Applied | undefined {
    const result = this.#results.get(requestId);
    if (!result) return undefined;
    if (result.code !== 0) throw errorOf(result);
    return { revision: this.#store.state.appliedRevision, ts: result.ts, id: idOf(result) };
  }

  /**
   * What turns the kept answer of a request into this error, for work that goes on after its change was applied and fails: the put belongs into the
   * transaction that records the failure, `done` is called once that is there. undefined: no answer is kept (any more).
   */
  amendment(requestId: string, error: CairnError): { readonly put: Put; done(): void } | undefined {
    const before = this.#results.get(requestId);
    if (before?.code !== 0) return undefined;
    const after: ControlResultRecord = { ...before, code: error.code, reason: error.message, result: storedError(error) };
    return {
      put: { key: keys.controlResult(requestId), value: ControlResultRecord.encode(after).finish() },
      done: () => {
        if (this.#results.has(requestId)) this.#results.set(requestId, after);
      },
    };
  }

  /** Applies message `sequence`; undefined only moves catalog/applied (a fence). Throws the change's own error once it is recorded. */
  apply(sequence: number, record: ControlRecord | undefined): Promise<Applied> {
    return this.#inOrder(async () => {
      if (sequence <= this.#applied.sequence) {
        const answer = record && this.answerOf(record.requestId);
        if (record && !answer) throw new CairnError('Internal', `the answer to request ${record.requestId} is not kept any more`);
        return answer ?? { revision: this.#store.state.appliedRevision, ts: this.#applied.ts, id: 0 };
      }
      const ts = await this.#oracle.allocate(1);
      const change = record?.change;
      // The same request twice in the log: its caller did not know that the first try was written.
      if (!record || !change || this.#results.has(record.requestId)) {
        const revision = await this.#advance(sequence, ts, []);
        return (record && this.answerOf(record.requestId)) ?? { revision, ts, id: 0 };
      }
      return this.#applyChange(sequence, ts, record.requestId, change);
    });
  }

  /**
   * A change of the catalog that has no message (publishing a restored collection): in order with the others, and together with catalog/applied
   * like them. `make` gets the timestamp of the change and runs when its turn has come. False when a compare did not hold.
   */
  applyBeside(make: (ts: number) => { if: readonly Compare[]; puts: readonly Put[]; deletes: readonly string[] }): Promise<boolean> {
    return this.#inOrder(async () => {
      const ts = await this.#oracle.allocate(1);
      const { if: compares, puts, deletes } = make(ts);
      return (await this.#tryAdvance(this.#applied.sequence, ts, puts, deletes, compares)) !== undefined;
    });
  }

  async #applyChange(sequence: number, ts: number, requestId: string, change: Change): Promise<Applied> {
    const { id, error, effects } = this.#evaluate(change, ts, requestId);
    if (effects) await this.#stage(effects.staged);
    const result: ControlResultRecord = {
      requestId,
      sequence,
      code: error?.code ?? 0,
      reason: error?.message ?? '',
      result: error ? storedError(error) : Buffer.from(JSON.stringify({ id })),
      ts,
    };
    const answer = { key: keys.controlResult(requestId), value: ControlResultRecord.encode(result).finish() };
    const revision = await this.#advance(sequence, ts, [...(effects?.puts ?? []), answer], effects?.deletes ?? []);
    this.#results.set(requestId, result);
    if (error) throw error;
    this.#notify(change, id, ts);
    return { revision, ts, id };
  }

  #evaluate(change: Change, ts: number, requestId: string): Outcome & { readonly effects: Effects | undefined } {
    try {
      const context = { ts, nowMs: this.#runtime.now(), snapshotTimeoutMs: this.#settings.snapshotTimeoutMs, requestId };
      const effects = effectsOf(this.#store.state, change, context);
      return { id: effects.id, error: undefined, effects };
    } catch (error) {
      return { id: 0, error: asCairnError(error), effects: undefined };
    }
  }

  /** Records that are invisible until the change itself is there: in pages, safe to write again. */
  async #stage(staged: readonly Put[]): Promise<void> {
    for (const page of pagesOf(staged)) await this.#store.mustCommit({ puts: page });
  }

  async #advance(sequence: number, ts: number, puts: readonly Put[], deletes: readonly string[] = []): Promise<number> {
    const revision = await this.#tryAdvance(sequence, ts, puts, deletes, []);
    if (revision === undefined)
      throw new CairnError('Internal', `${keys.applied} was not at sequence ${this.#applied.sequence} when ${sequence} was applied`);
    return revision;
  }

  async #tryAdvance(
    sequence: number,
    ts: number,
    puts: readonly Put[],
    deletes: readonly string[],
    compares: readonly Compare[],
  ): Promise<number | undefined> {
    const applied = { sequence, ts };
    const value = ControlAppliedRecord.encode(applied).finish();
    const before: Compare = this.#appliedBytes
      ? { kind: 'value', key: keys.applied, equals: this.#appliedBytes }
      : { kind: 'missing', key: keys.applied };
    // catalog/applied comes first: LeaderStore tells by it whether a transaction of unknown outcome was ours.
    const revision = await this.#store.commit({ if: [before, ...compares], puts: [{ key: keys.applied, value }, ...puts], deletes });
    if (revision === undefined) return undefined;
    this.#applied = applied;
    this.#appliedBytes = value;
    return revision;
  }

  #notify(change: Change, id: number, ts: number): void {
    for (const listener of this.#listeners) {
      try {
        listener(change, id, ts);
      } catch (error) {
        this.#logger.error({ error, change: change.$case, id }, 'a listener of catalog changes failed');
      }
    }
  }

  #inOrder<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#tail.then(work, work);
    this.#tail = mine.catch(() => undefined);
    return mine;
  }

  /** Forgets answers older than the retention, and the oldest above the limit. */
  async sweepResults(nowTs: number): Promise<void> {
    const oldest = nowTs - this.#settings.resultRetentionMs * 4_096;
    let excess = this.#results.size - this.#settings.maxResults;
    const gone: string[] = [];
    for (const [requestId, result] of this.#results) {
      if (result.ts >= oldest && excess <= 0) continue;
      gone.push(requestId);
      excess--;
    }
    for (let at = 0; at < gone.length; at += PAGE_OPS) {
      const page = gone.slice(at, at + PAGE_OPS);
      await this.#store.mustCommit({ deletes: page.map((requestId) => keys.controlResult(requestId)) });
      for (const requestId of page) this.#results.delete(requestId);
    }
  }
}

/** Splits puts into pages that fit a transaction. */
export function* pagesOf(puts: Iterable<Put>): Generator<Put[]> {
  let page: Put[] = [];
  let bytes = 0;
  for (const put of puts) {
    if (page.length >= PAGE_OPS || (page.length > 0 && bytes + put.value.length + put.key.length > PAGE_BYTES)) {
      yield page;
      page = [];
      bytes = 0;
    }
    page.push(put);
    bytes += put.value.length + put.key.length;
  }
  if (page.length > 0) yield page;
}

interface StoredResult {
  readonly id?: number;
  readonly legacy?: number;
  readonly extraInfo?: Record<string, string>;
}

const storedError = ({ legacy, extraInfo }: CairnError): Uint8Array => Buffer.from(JSON.stringify({ legacy, extraInfo }));
const stored = (result: ControlResultRecord): StoredResult => JSON.parse(Buffer.from(result.result).toString() || '{}') as StoredResult;
const idOf = (result: ControlResultRecord): number => stored(result).id ?? 0;

function errorOf(result: ControlResultRecord): CairnError {
  const { legacy, extraInfo } = stored(result);
  const codeName = codeNameOf(result.code);
  return new CairnError(codeName, result.reason, { legacy: legacy ?? ErrorCodes[codeName].legacy, extraInfo: extraInfo ?? {} });
}

/** True for errors that end a leader's term rather than answer a change. */
export function endsTerm(error: unknown): boolean {
  return hasCode(error, 'ServiceNotReady', 'Internal');
}

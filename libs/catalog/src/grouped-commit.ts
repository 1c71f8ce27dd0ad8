import { asCairnError, assert, CairnError, type Runtime, randomId, retry } from '@cairn/base';
import { type Compare, compareBytes, type MetaStore, type Op, opBytes, scan, TXN_MAX_BYTES, TXN_MAX_OPS } from '@cairn/meta';
import { DeltaLogRecord, GroupRecord, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { keys } from './keys.ts';
import { decodeRecord, encodeRecord, putRecord, type RecordType } from './records.ts';

/** A record to write; one with `withGroup` may be staged under a group, invisible until that is published. */
export interface CommitPut {
  readonly key: string;
  readonly value: Uint8Array;
  withGroup?(group: string): Uint8Array;
}

export interface Commit {
  readonly if: readonly Compare[];
  readonly puts: readonly CommitPut[];
  readonly deletes?: readonly string[];
}

export interface CommitResult {
  readonly succeeded: boolean;
  /** Of the transaction that made it visible. */
  readonly revision: number;
}

export function plainPut<T>(key: string, type: RecordType<T>, record: T): CommitPut {
  return { key, value: encodeRecord(type, record) };
}

export function groupedPut<T extends { readonly group: string }>(key: string, type: RecordType<T>, record: T): CommitPut {
  return { key, value: encodeRecord(type, record), withGroup: (group) => encodeRecord(type, { ...record, group }) };
}

const RESOLVE_ATTEMPTS = 10;
/** Room in a page for the compare on the group. */
const PAGE_OPS = TXN_MAX_OPS - 2;
const PAGE_BYTES = TXN_MAX_BYTES - 10_000;

/**
 * All of it or nothing, at once, however much it is. Within the limits it is one transaction. Beyond, records that can are staged in pages under
 * a new group, then one last transaction carries the compares, the rest, and publishes the group.
 *
 * `succeeded: false` means that a compare failed and nothing is left. StoreUnavailable from a commit of one transaction leaves open whether it
 * happened; the caller's compares must tell. A grouped one finds that out itself as soon as the store answers again.
 */
export async function commit(meta: MetaStore, runtime: Runtime, work: Commit): Promise<CommitResult> {
  const puts: Op[] = work.puts.map(({ key, value }) => ({ kind: 'put', key, value }));
  const deletes: Op[] = (work.deletes ?? []).map((key) => ({ kind: 'delete', key }));
  if (fits(work.if, [...puts, ...deletes])) return await meta.txn({ if: work.if, then: [...puts, ...deletes] });
  const group = randomId(runtime);
  const rest: Op[] = work.puts.flatMap((put): Op[] => (put.withGroup ? [] : [{ kind: 'put', key: put.key, value: put.value }]));
  const staged: Op[] = work.puts.flatMap((put): Op[] =>
    put.withGroup ? [{ kind: 'put', key: put.key, value: put.withGroup(group) }] : [],
  );
  const record: GroupRecord = { group, published: true, createdMs: runtime.now() };
  const last: Op[] = [...deletes, ...rest, putRecord(keys.group(group), GroupRecord, record)];
  const published: Compare = { kind: 'value', key: keys.group(group), equals: encodeRecord(GroupRecord, { ...record, published: false }) };
  assert(fits([...work.if, published], last), `commit has ${last.length} writes that cannot be staged, over the limits of a transaction`);
  try {
    await meta.txn({ then: [putRecord(keys.group(group), GroupRecord, { ...record, published: false })] });
    for (const page of pages(staged)) {
      const { succeeded } = await meta.txn({ if: [published], then: page });
      if (!succeeded) return await failed(meta, group, staged);
    }
    const result = await meta.txn({ if: [...work.if, published], then: last });
    return result.succeeded ? result : await failed(meta, group, staged);
  } catch (error) {
    return await resolve(meta, runtime, group, staged, asCairnError(error));
  }
}

/**
 * Ends a group that was not published and deletes its records: leftovers of a process that died. False, and nothing done, when the group is
 * published. Safe against a commit still under way: without the group's record that one can neither stage nor publish.
 */
export async function sweepGroup(meta: MetaStore, group: string): Promise<boolean> {
  if (!(await endGroup(meta, group))) return false;
  const kinds = [
    { prefix: keys.allSegments, groupOf: (key: string, value: Uint8Array) => decodeRecord(SegmentRecord, key, value).group },
    { prefix: keys.allDeltas, groupOf: (key: string, value: Uint8Array) => decodeRecord(DeltaLogRecord, key, value).group },
    { prefix: keys.allSegmentIndexes, groupOf: (key: string, value: Uint8Array) => decodeRecord(SegmentIndexRecord, key, value).group },
  ];
  for (const { prefix, groupOf } of kinds) {
    for await (const entries of scan(meta, prefix)) {
      await deleteKeys(
        meta,
        entries.filter((entry) => groupOf(entry.key, entry.value) === group).map((entry) => entry.key),
      );
    }
  }
  return true;
}

/** After an unknown outcome: whoever ends the unpublished group first decides. */
async function resolve(meta: MetaStore, runtime: Runtime, group: string, staged: readonly Op[], error: CairnError): Promise<CommitResult> {
  if (!error.retriable) {
    await failed(meta, group, staged);
    throw error;
  }
  return await retry(runtime, { attempts: RESOLVE_ATTEMPTS, firstDelayMs: 50, maxDelayMs: 1000 }, async () => {
    const entry = await meta.get(keys.group(group));
    if (entry && GroupRecord.decode(entry.value).published) return { succeeded: true, revision: entry.modRevision };
    await failed(meta, group, staged);
    throw new CairnError('Internal', `commit under group ${group} was undone after: ${error.message}`, { cause: error });
  }).catch((reason: unknown) => {
    // Undone: as if it had never begun, so the caller may do it again.
    throw asCairnError(reason).codeName === 'Internal' ? error : asCairnError(reason);
  });
}

async function failed(meta: MetaStore, group: string, staged: readonly Op[]): Promise<CommitResult> {
  const ended = await endGroup(meta, group);
  if (!ended) {
    const entry = await meta.get(keys.group(group));
    return { succeeded: true, revision: entry?.modRevision ?? 0 };
  }
  await deleteKeys(
    meta,
    staged.flatMap((op) => (op.kind === 'put' ? [op.key] : [])),
  );
  return { succeeded: false, revision: 0 };
}

/** Deletes the group's record unless it is published. Already gone is fine. */
async function endGroup(meta: MetaStore, group: string): Promise<boolean> {
  const key = keys.group(group);
  for (;;) {
    const entry = await meta.get(key);
    if (!entry) return true;
    if (decodeRecord(GroupRecord, key, entry.value).published) return false;
    const { succeeded } = await meta.txn({
      if: [{ kind: 'modRevision', key, equals: entry.modRevision }],
      then: [{ kind: 'delete', key }],
    });
    if (succeeded) return true;
  }
}

async function deleteKeys(meta: MetaStore, all: readonly string[]): Promise<void> {
  for (const page of pages(all.map((key): Op => ({ kind: 'delete', key })))) await meta.txn({ then: page });
}

function fits(compares: readonly Compare[], ops: readonly Op[]): boolean {
  if (compares.length + ops.length > TXN_MAX_OPS) return false;
  const bytes = compares.reduce((sum, compare) => sum + compareBytes(compare), 0) + ops.reduce((sum, op) => sum + opBytes(op), 0);
  return bytes <= TXN_MAX_BYTES;
}

function* pages(ops: readonly Op[]): Generator<Op[]> {
  let page: Op[] = [];
  let bytes = 0;
  for (const op of ops) {
    const size = opBytes(op);
    if (page.length > 0 && (page.length === PAGE_OPS || bytes + size > PAGE_BYTES)) {
      yield page;
      page = [];
      bytes = 0;
    }
    page.push(op);
    bytes += size;
  }
  if (page.length > 0) yield page;
}

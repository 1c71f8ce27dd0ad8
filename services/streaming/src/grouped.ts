import { CairnError, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type Compare, type MetaStore, type Op, TXN_MAX_BYTES, TXN_MAX_OPS } from '@cairn/meta';
import { DeltaLogRecord, SegmentRecord } from '@cairn/proto/cairn/meta';

export interface GroupedPuts {
  readonly if: readonly Compare[];
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly last: { readonly key: string; readonly value: Uint8Array };
}

/** Commits segments and delta logs together. False when a compare did not hold. */
export async function commitGrouped(meta: MetaStore, _runtime: Runtime, puts: GroupedPuts): Promise<boolean> {
  const then: Op[] = [
    ...puts.segments.map(
      (record): Op => ({ kind: 'put', key: keys.segment(record.collectionId, record.id), value: SegmentRecord.encode(record).finish() }),
    ),
    ...puts.deltaLogs.map(
      (record): Op => ({ kind: 'put', key: keys.delta(record.collectionId, record.id), value: DeltaLogRecord.encode(record).finish() }),
    ),
    { kind: 'put', ...puts.last },
  ];
  const bytes = then.reduce((sum, op) => sum + (op.kind === 'put' ? op.value.length + op.key.length : 0), 0);
  if (then.length + puts.if.length > TXN_MAX_OPS || bytes > TXN_MAX_BYTES)
    throw new CairnError('NotSupported', 'not supported: a flush above one transaction');
  return (await meta.txn({ if: puts.if, then })).succeeded;
}

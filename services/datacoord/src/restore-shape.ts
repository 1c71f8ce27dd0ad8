import { CairnError } from '@cairn/base';
import type { RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import type { SnapshotBundle } from '@cairn/segment';
import { MAX_SHARDS } from './changes/collection.ts';

/** How a restore makes its target. */
export interface RestoreShape {
  readonly mode: 'copy' | 'reference';
  /** Of the target. */
  readonly shards: number;
  readonly rewriteData: boolean;
}

/** A request that no snapshot could fulfil: an unknown mode, too many shards, new rows without a byte written. Code 1100. */
export function checkShape({ mode, shards, rewriteData }: RestoreSnapshotRequest): void {
  if (mode !== '' && mode !== 'copy' && mode !== 'reference')
    throw new CairnError('InvalidParameter', `restore mode must be copy or reference, not '${mode}'`);
  if (shards > MAX_SHARDS) throw new CairnError('InvalidParameter', `shards num ${shards} of a restore is out of range 1..${MAX_SHARDS}`);
  if (mode === 'reference' && rewriteData)
    throw new CairnError('InvalidParameter', 'rewrite_data writes rows anew: it cannot go with mode reference');
}

/**
 * What a checked request means for this snapshot. Another number of shards sends rows elsewhere, so they are written anew; that takes bytes of its own,
 * whatever mode is configured.
 */
export function shapeOf(request: RestoreSnapshotRequest, { definition }: SnapshotBundle, configured: string): RestoreShape {
  const has = definition.collection?.shards.length ?? 0;
  const shards = request.shards === 0 ? has : request.shards;
  const rewriteData = request.rewriteData || shards !== has;
  if (rewriteData && request.mode === 'reference')
    throw new CairnError(
      'InvalidParameter',
      `the snapshot has ${has} shards: a target of ${shards} needs its rows written anew, which excludes mode reference`,
    );
  const mode = request.mode === '' ? configured : request.mode;
  return { mode: mode === 'reference' && !rewriteData ? 'reference' : 'copy', shards, rewriteData };
}

import type { ControlRecord } from '@cairn/proto/cairn/wal';
import type { CatalogState } from '../catalog-state.ts';
import { alterAlias, createAlias, dropAlias } from './alias.ts';
import type { ApplyContext, ChangeHandler, Effects } from './change.ts';
import { alterCollection, createCollection, dropCollection, renameCollection } from './collection.ts';
import { alterDatabase, createDatabase, dropDatabase } from './database.ts';
import { addField, alterField } from './field.ts';
import { alterIndex, createIndex, dropIndex } from './index.ts';
import { load, release } from './load.ts';
import { createPartition, dropPartition } from './partition.ts';
import { restoreSnapshot } from './restore.ts';
import { createSnapshot } from './snapshot.ts';

export type Change = NonNullable<ControlRecord['change']>;
type ValueOf<K extends Change['$case']> = Extract<Change, { $case: K }>['value'];

const handlers: { readonly [K in Change['$case']]: ChangeHandler<ValueOf<K>> } = {
  createDatabase,
  dropDatabase,
  alterDatabase,
  createCollection,
  dropCollection,
  renameCollection,
  alterCollection,
  createPartition,
  dropPartition,
  createIndex,
  dropIndex,
  alterIndex,
  createAlias,
  dropAlias,
  alterAlias,
  load,
  release,
  createSnapshot,
  restoreSnapshot,
  addField,
  alterField,
};

/** Effects of a change on the state; throws the CairnError that is its answer. */
export function effectsOf(state: CatalogState, change: Change, context: ApplyContext): Effects {
  const handler = handlers[change.$case] as ChangeHandler<Change['value']>;
  return handler(state, change.value, context);
}

import { SnapshotState } from '@cairn/proto/cairn/meta';
import type { SnapshotInfo } from '@cairn/proto/cairn/services';
import { CreateSnapshotRequest, UnpinSnapshotDataRequest } from '@cairn/proto/milvus/milvus';
import type { Command } from 'commander';
import { bytes, duration, type Format, print, printOne, type Row } from '../output.ts';
import { CommandError, EXIT, must, type Session, withSession } from '../session.ts';
import { type NamingOptions, snapshotNamed, withNaming } from '../snapshot-name.ts';
import { addSnapshotRestoreCommands } from './restore.ts';

interface CollectionOption {
  readonly collection: string;
}

/** Whole number of an option, with a clear error. */
function whole(name: string, value: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0)
    throw new CommandError(`${name} must be a whole number, 0 or more, not '${value}'`, EXIT.usage);
  return number;
}

const STATES: Readonly<Record<SnapshotState, string>> = {
  [SnapshotState.SNAPSHOT_PENDING]: 'Pending',
  [SnapshotState.SNAPSHOT_COMMITTED]: 'Committed',
  [SnapshotState.SNAPSHOT_DELETING]: 'Deleting',
  [SnapshotState.SNAPSHOT_FAILED]: 'Failed',
};

/** For people in words, for programs in numbers. */
function snapshotRow(info: SnapshotInfo, format: Format, nowMs: number): Row {
  const people = format === 'table';
  const ageMs = Math.max(0, nowMs - info.createdMs);
  const size = (count: number) => (people ? bytes(count) : count);
  return {
    id: info.id,
    name: info.name,
    database: info.database,
    collection: info.collection,
    state: `${STATES[info.state]}${info.retained ? ', collection dropped' : ''}`,
    created: new Date(info.createdMs).toISOString(),
    age: people ? duration(ageMs) : Math.floor(ageMs / 1_000),
    rows: info.rows,
    bytes: size(info.bytes),
    exclusive: info.sizesKnown ? size(info.exclusiveBytes) : null,
    shared: info.sizesKnown ? size(info.sharedBytes) : null,
    segments: info.segments,
    pins: info.pins,
  };
}

interface ListOptions extends CollectionOption {
  readonly partition: string;
  readonly allDatabases?: boolean;
  readonly all?: boolean;
  /** commander's form of --no-sizes. */
  readonly sizes: boolean;
  readonly pageSize: string;
  readonly page: string;
}

async function list(session: Session, options: ListOptions): Promise<void> {
  const reply = await session.admin.listSnapshots(
    {
      database: options.allDatabases ? '' : session.database,
      collection: options.collection,
      partition: options.partition,
      pageSize: whole('--page-size', options.pageSize),
      pageToken: options.page,
      all: options.all ?? false,
      namesOnly: false,
      bareNames: false,
      sizes: options.sizes,
    },
    session.options,
  );
  print(
    session.format,
    reply.snapshots.map((info) => snapshotRow(info, session.format, reply.nowMs)),
  );
  if (reply.nextPageToken !== '') console.error(`${reply.snapshots.length} of ${reply.total}; next page: --page ${reply.nextPageToken}`);
}

export function addSnapshotCommands(program: Command): void {
  const snapshot = program.command('snapshot').description('exact points in time of a collection');

  snapshot
    .command('create')
    .description('take a snapshot: everything acknowledged before the call is in it, flushed or not')
    .argument('<name>', 'name, unique in its collection')
    .requiredOption('-c, --collection <name>', 'collection')
    .option('--description <text>', 'description', '')
    .option('--protect <seconds>', 'keep its segments from being compacted for this long (0 to 604800)', '0')
    .addHelpText('after', '\nExample:\n  cairn snapshot create -c packages before_upgrade --description "before 2.0"')
    .action(async (name: string, options: CollectionOption & { description: string; protect: string }, command: Command) =>
      withSession(command, async (session) => {
        const protection = BigInt(whole('--protect', options.protect));
        must(
          await session.milvus.createSnapshot(
            CreateSnapshotRequest.fromPartial({
              name,
              dbName: session.database,
              collectionName: options.collection,
              description: options.description,
              compactionProtectionSeconds: protection,
            }),
            session.options,
          ),
        );
        printOne(session.format, { created: name });
      }),
    );

  snapshot
    .command('list')
    .description('list snapshots, of one collection or of all; what only they keep, and what they share')
    .option('-c, --collection <name>', 'collection', '')
    .option('--partition <name>', 'only those that hold this partition', '')
    .option('--all-databases', 'of every database')
    .option('--all', 'also those of dropped collections, and those that are pending, failed or being deleted')
    .option('--no-sizes', 'without exclusive and shared bytes, which take a look at every segment')
    .option('--page-size <n>', 'so many at once (0: all)', '0')
    .option('--page <token>', 'the page that the last one named', '')
    .addHelpText('after', '\nExample:\n  cairn snapshot list -c packages -o json')
    .action(async (options: ListOptions, command: Command) => withSession(command, (session) => list(session, options)));

  withNaming(snapshot.command('describe'))
    .description('what a snapshot holds and where it lies')
    .argument('<name>', 'snapshot; with --id its id')
    .action(async (name: string, options: NamingOptions, command: Command) =>
      withSession(command, async (session) => {
        const info = await session.admin.describeSnapshot(snapshotNamed(session.database, name, options), session.options);
        printOne(session.format, {
          ...snapshotRow(info, session.format, session.runtime.now()),
          description: info.description,
          partitions: info.partitions,
          timestamp: info.ts,
          location: info.location,
          content_hash: info.contentHash === '' ? 'not recorded' : info.contentHash,
          visible_rows: info.visibleHash === '' ? null : info.visibleRows,
          visible_hash: info.visibleHash === '' ? null : info.visibleHash,
          verified: info.verifiedMs === 0 ? null : new Date(info.verifiedMs).toISOString(),
          damage: info.damage === '' ? null : info.damage,
        });
      }),
    );

  addSnapshotRestoreCommands(snapshot);

  withNaming(snapshot.command('pin'))
    .description('keep a snapshot from being dropped; prints the pin id')
    .argument('<name>', 'snapshot; with --id its id')
    .option('--ttl <seconds>', 'how long (0: until unpinned; at most 2592000)', '0')
    .action(async (name: string, options: NamingOptions & { ttl: string }, command: Command) =>
      withSession(command, async (session) => {
        const wanted = { snapshot: snapshotNamed(session.database, name, options), ttlSeconds: whole('--ttl', options.ttl), requestId: '' };
        const { pinId } = await session.admin.pinSnapshot(wanted, session.options);
        printOne(session.format, { pin_id: pinId });
      }),
    );

  snapshot
    .command('unpin')
    .description('release a pin')
    .argument('<pin-id>', 'what `snapshot pin` printed')
    .action(async (id: string, _options: unknown, command: Command) =>
      withSession(command, async (session) => {
        must(
          await session.milvus.unpinSnapshotData(
            UnpinSnapshotDataRequest.fromPartial({ pinId: BigInt(whole('pin id', id)) }),
            session.options,
          ),
        );
        printOne(session.format, { unpinned: id });
      }),
    );

  withNaming(snapshot.command('drop'))
    .description('drop a snapshot; refused while it is pinned or being restored')
    .argument('<name>', 'snapshot; with --id its id')
    .action(async (name: string, options: NamingOptions, command: Command) =>
      withSession(command, async (session) => {
        await session.admin.dropSnapshot(snapshotNamed(session.database, name, options), session.options);
        printOne(session.format, { dropped: name });
      }),
    );
}

import type { SnapshotInfo } from '@cairn/proto/cairn/services';
import { CreateSnapshotRequest, DropSnapshotRequest, PinSnapshotDataRequest, UnpinSnapshotDataRequest } from '@cairn/proto/milvus/milvus';
import type { Command } from 'commander';
import { bytes, print, printOne, type Row } from '../output.ts';
import { CommandError, EXIT, must, withSession } from '../session.ts';
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

function snapshotRow(info: SnapshotInfo): Row {
  return {
    name: info.name,
    collection: info.collection,
    database: info.database,
    created: new Date(info.createdMs).toISOString(),
    rows: info.rows,
    bytes: bytes(info.bytes),
    segments: info.segments,
    pins: info.pins,
  };
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
    .description('list snapshots, of one collection or of all')
    .option('-c, --collection <name>', 'collection', '')
    .option('--all-databases', 'of every database')
    .action(async (options: CollectionOption & { allDatabases?: boolean }, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.admin.listSnapshots(
          { database: options.allDatabases ? '' : session.database, collection: options.collection },
          session.options,
        );
        print(session.format, reply.snapshots.map(snapshotRow));
      }),
    );

  snapshot
    .command('describe')
    .description('what a snapshot holds and where it lies')
    .argument('<name>', 'snapshot')
    .requiredOption('-c, --collection <name>', 'collection')
    .action(async (name: string, options: CollectionOption, command: Command) =>
      withSession(command, async (session) => {
        const info = await session.admin.describeSnapshot(
          { database: session.database, collection: options.collection, name },
          session.options,
        );
        printOne(session.format, {
          ...snapshotRow(info),
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

  snapshot
    .command('pin')
    .description('keep a snapshot from being dropped; prints the pin id')
    .argument('<name>', 'snapshot')
    .requiredOption('-c, --collection <name>', 'collection')
    .option('--ttl <seconds>', 'how long (0: until unpinned; at most 2592000)', '0')
    .action(async (name: string, options: CollectionOption & { ttl: string }, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.milvus.pinSnapshotData(
          PinSnapshotDataRequest.fromPartial({
            name,
            dbName: session.database,
            collectionName: options.collection,
            ttlSeconds: BigInt(whole('--ttl', options.ttl)),
          }),
          session.options,
        );
        must(reply.status);
        printOne(session.format, { pin_id: Number(reply.pinId) });
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

  snapshot
    .command('drop')
    .description('drop a snapshot; refused while it is pinned or being restored')
    .argument('<name>', 'snapshot')
    .requiredOption('-c, --collection <name>', 'collection')
    .action(async (name: string, options: CollectionOption, command: Command) =>
      withSession(command, async (session) => {
        must(
          await session.milvus.dropSnapshot(
            DropSnapshotRequest.fromPartial({ name, dbName: session.database, collectionName: options.collection }),
            session.options,
          ),
        );
        printOne(session.format, { dropped: name });
      }),
    );
}

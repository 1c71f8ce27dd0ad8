import type { Command } from 'commander';
import { bytes, print, printOne } from '../output.ts';
import { CommandError, EXIT, withSession } from '../session.ts';
import { type NamingOptions, snapshotNamed, withNaming } from '../snapshot-name.ts';
import { type VerifyCommandOptions, verifySnapshot } from '../verify-snapshot.ts';
import { collect } from './server.ts';

interface InspectOptions {
  readonly config?: string;
  readonly set: readonly string[];
  readonly segments?: boolean;
}

/** Commands on what a snapshot holds; `inspect` needs no server. */
function idOf(value: string): number {
  const id = Number(value);
  if (!Number.isSafeInteger(id) || id <= 0) throw new CommandError(`an id is a whole number above 0, not '${value}'`, EXIT.usage);
  return id;
}

export function addSnapshotContentsCommands(program: Command): void {
  const snapshot = program.commands.find((command) => command.name() === 'snapshot') ?? program.command('snapshot');

  snapshot
    .command('inspect')
    .description('read a snapshot from its bucket or directory, without any server')
    .argument('<uri>', 'its metadata: a path, file://… or s3://bucket/root/snapshots/<collection>/metadata/<id>.json')
    .option('--config <file>', 'YAML file with the credentials of the bucket')
    .option('--set <path=value>', 'override one setting; may be given again', collect, [])
    .option('--segments', 'list its segments')
    .addHelpText('after', '\nExample:\n  cairn snapshot inspect /var/lib/cairn/objects/snapshots/101/metadata/205.json --segments')
    .action(async (uri: string, options: InspectOptions, command: Command) => {
      // It reads the formats of the store: the other commands do without.
      const { inspectSnapshot } = await import('../inspect-snapshot.ts');
      await inspectSnapshot(uri, options, command);
    });

  snapshot
    .command('verify')
    .description('that a snapshot can be restored: every object there with its length and tag')
    .argument('<name>', 'snapshot; with --id its id')
    .option('-c, --collection <name>', 'collection', '')
    .option('--id', 'the name is an id: finds it also when its collection is gone')
    .option('--deep', 'read every byte: checksums, row counts and content hashes')
    .option('--resume <file>', 'keep the progress in this file, and go on from there when it exists')
    .addHelpText('after', '\nExample:\n  cairn snapshot verify -c packages before_upgrade --deep --resume verify.json')
    .action(async (name: string, options: VerifyCommandOptions, command: Command) =>
      withSession(command, (session) => verifySnapshot(session, name, options)),
    );

  withNaming(snapshot.command('diff'))
    .description('segments and stored rows that the second has and the first has not, and the other way, by partition')
    .argument('<from>', 'snapshot')
    .argument('<to>', 'snapshot of the same collection')
    .action(async (from: string, to: string, options: NamingOptions, command: Command) =>
      withSession(command, async (session) => {
        const [first, second] = [from, to].map((name) => snapshotNamed(session.database, name, options));
        if (!first || !second) throw new CommandError('a comparison of two snapshots needs two', 2);
        const { database, collection } = first;
        const ids = { fromId: first.id, toId: second.id };
        const request = { database, collection, from: first.name, to: second.name, ...ids };
        const diff = await session.upkeep.diffSnapshots(request, session.options);
        const partitions = diff.partitions.map((one) => ({
          partition: one.partition,
          segments_added: one.segmentsAdded,
          segments_removed: one.segmentsRemoved,
          rows_added: one.rowsAdded,
          rows_removed: one.rowsRemoved,
        }));
        const totals = {
          segments_shared: diff.segmentsShared,
          delta_logs_added: diff.deltaLogsAdded,
          delta_logs_removed: diff.deltaLogsRemoved,
          deletes_added: diff.deletesAdded,
        };
        if (session.format !== 'table') printOne(session.format, { ...totals, partitions: JSON.stringify(partitions) });
        else {
          print('table', partitions);
          printOne('table', totals);
        }
      }),
    );

  snapshot
    .command('find')
    .description('snapshots that refer to a segment, or to an index build')
    .option('--segment <id>', 'segment', idOf)
    .option('--build <id>', 'index build', idOf)
    .addHelpText('after', '\nExample:\n  cairn snapshot find --segment 1042')
    .action(async (options: { segment?: number; build?: number }, command: Command) =>
      withSession(command, async (session) => {
        const wanted = { segmentId: options.segment ?? 0, buildId: options.build ?? 0 };
        const { snapshots } = await session.upkeep.findSnapshots(wanted, session.options);
        print(
          session.format,
          snapshots.map((one) => ({
            name: one.name,
            id: one.snapshotId,
            collection: one.collection,
            collection_id: one.collectionId,
            created: new Date(one.createdMs).toISOString(),
          })),
        );
      }),
    );

  snapshot
    .command('sizes')
    .description('bytes that only one snapshot keeps, and those it shares with live segments or other snapshots')
    .option('-c, --collection <name>', 'collection', '')
    .action(async (options: { collection: string }, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.upkeep.snapshotSizes({ database: session.database, collection: options.collection }, session.options);
        const size = (count: number) => (session.format === 'table' ? bytes(count) : count);
        print(
          session.format,
          reply.snapshots.map((one) => ({
            name: one.name,
            id: one.snapshotId,
            bytes: size(one.bytes),
            exclusive: size(one.exclusiveBytes),
            shared: size(one.sharedBytes),
          })),
        );
      }),
    );
}

import type { SnapshotName } from '@cairn/proto/cairn/services';
import type { Command } from 'commander';
import { CommandError, EXIT } from './session.ts';

export interface NamingOptions {
  readonly collection: string;
  readonly id?: boolean;
}

/** Adds `-c` and `--id`: a snapshot is named with its collection, or by its id, which finds it also when its collection is gone. */
export function withNaming(command: Command): Command {
  return command
    .option('-c, --collection <name>', 'collection the snapshot was taken of', '')
    .option('--id', 'the name is an id (`snapshot list --all`): finds it also when its collection is gone');
}

/** What the server is asked for. */
export function snapshotNamed(database: string, name: string, { collection, id }: NamingOptions): SnapshotName {
  if (!id) {
    if (collection === '') throw new CommandError('a snapshot is named with its collection (-c), or by its id (--id)', EXIT.usage);
    return { database, collection, name, id: 0 };
  }
  const number = Number(name);
  if (!Number.isSafeInteger(number) || number <= 0) throw new CommandError(`'${name}' is no id of a snapshot`, EXIT.usage);
  return { database: '', collection: '', name: '', id: number };
}

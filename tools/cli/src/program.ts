import { CAIRN_VERSION, CairnError } from '@cairn/base';
import { Command, CommanderError, Option } from 'commander';
import { addCollectionCommands } from './commands/collection.ts';
import { addConfigCommands } from './commands/config.ts';
import { addRestoreCommands } from './commands/restore.ts';
import { addServerCommand } from './commands/server.ts';
import { addSnapshotCommands } from './commands/snapshot.ts';
import { addSnapshotContentsCommands } from './commands/snapshot-contents.ts';
import { addSnapshotDrillCommands } from './commands/snapshot-drill.ts';
import { addStatusCommand } from './commands/status.ts';
import { addUpkeepCommands } from './commands/upkeep.ts';
import { CommandError, EXIT } from './session.ts';

export const VERSION = CAIRN_VERSION;

export function buildProgram(): Command {
  const program = new Command('cairn')
    .description('Cairn: a vector store that speaks the Milvus protocol and keeps exact snapshots.')
    .version(VERSION)
    .addOption(new Option('-a, --address <host:port>', 'server to talk to').env('CAIRN_ADDRESS').default('127.0.0.1:19530'))
    .addOption(new Option('-d, --database <name>', 'database').env('CAIRN_DATABASE').default('default'))
    .addOption(new Option('-o, --output <format>', 'how results are printed').choices(['table', 'json', 'yaml']).default('table'))
    .addOption(new Option('--timeout <seconds>', 'longest time one call may take').default('60'))
    .showHelpAfterError('(--help lists the commands and options)')
    .addHelpText(
      'after',
      `
Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 server not reachable in time, 4 a job ended Failed.

Examples:
  cairn server standalone
  cairn snapshot create -c packages before_upgrade
  cairn snapshot restore -c packages before_upgrade packages_copy --wait
  cairn --output json status`,
    );
  addServerCommand(program);
  addSnapshotCommands(program);
  addSnapshotContentsCommands(program);
  addSnapshotDrillCommands(program);
  addRestoreCommands(program);
  addCollectionCommands(program);
  addStatusCommand(program);
  addUpkeepCommands(program);
  addConfigCommands(program);
  return program;
}

export async function main(argv: readonly string[]): Promise<void> {
  const program = buildProgram();
  for (const command of [program, ...program.commands, ...program.commands.flatMap((sub) => sub.commands)]) command.exitOverride();
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
    else if (error instanceof CommandError) {
      console.error(`cairn: ${error.message}`);
      process.exitCode = error.exitCode;
    } else if (error instanceof CairnError && error.codeName !== 'Unexpected') {
      // Said in words already; a trace is for what nobody foresaw.
      console.error(`cairn: ${error.message}`);
      process.exitCode = EXIT.failed;
    } else {
      console.error(error instanceof Error ? `cairn: ${error.stack ?? error.message}` : error);
      process.exitCode = EXIT.failed;
    }
  }
}

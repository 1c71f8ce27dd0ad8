import { asCairnError, loadConfig } from '@cairn/base';
import { type Command, Option } from 'commander';
import { CommandError } from '../session.ts';

export const ROLES = ['standalone', 'proxy', 'datacoord', 'streaming', 'datanode'] as const;

/** Gathers an option that may be given several times. */
export function collect(value: string, before: readonly string[]): string[] {
  return [...before, value];
}

export function addServerCommand(program: Command): void {
  program
    .command('server')
    .description('run a server: everything in one process, or one role of a cluster')
    .argument('<role>', ROLES.join(' | '))
    .addOption(new Option('--config <file>', 'YAML file').env('CAIRN_CONFIG'))
    .option('--set <path=value>', 'override one setting; may be given again', collect, [])
    .addHelpText(
      'after',
      `
Settings come from the YAML file, then CAIRN_… variables, then --set. \`cairn config show\` lists them all.

Examples:
  cairn server standalone --set dataDir=/var/lib/cairn
  cairn server streaming --config /etc/cairn.yaml`,
    )
    .action(async (role: string, options: { config?: string; set: string[] }) => {
      if (!(ROLES as readonly string[]).includes(role)) throw new CommandError(`unknown role '${role}'; there are: ${ROLES.join(', ')}`, 2);
      const config = (() => {
        try {
          return loadConfig({ ...(options.config ? { file: options.config } : {}), env: process.env, sets: options.set });
        } catch (error) {
          throw new CommandError(asCairnError(error).message, 2);
        }
      })();
      // Only a server needs the services: the other commands start without loading them.
      const { runRole } = await import('@cairn/standalone');
      await runRole(role as (typeof ROLES)[number], config);
    });
}

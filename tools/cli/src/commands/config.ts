import { describeConfig, loadConfig } from '@cairn/base';
import type { Command } from 'commander';
import { type Format, print, type Row } from '../output.ts';
import { collect } from './server.ts';

export function addConfigCommands(program: Command): void {
  const config = program.command('config').description('settings');
  config
    .command('show')
    .description('every setting: its value, where it comes from, its default and what it is for')
    .option('--config <file>', 'YAML file')
    .option('--set <path=value>', 'override one setting; may be given again', collect, [])
    .action((options: { config?: string; set: string[] }, command: Command) => {
      const loaded = loadConfig({ ...(options.config ? { file: options.config } : {}), env: process.env, sets: options.set });
      const format = command.optsWithGlobals<{ output: Format }>().output;
      print(format, describeConfig(loaded) as unknown as Row[]);
    });
}

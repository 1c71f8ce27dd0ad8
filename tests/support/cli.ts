import { spawn } from 'node:child_process';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');

export interface CommandResult {
  readonly code: number | null;
  /** All that it printed, as it came. */
  readonly out: string;
  readonly stdout: string;
  readonly stderr: string;
}

/** The `cairn` command as a user runs it, against a server that may come to stand later. */
export class Cli {
  readonly #address: () => string;

  constructor(address: () => string) {
    this.#address = address;
  }

  run(...args: string[]): Promise<CommandResult> {
    return new Promise((resolve) => {
      const child = spawn(join(root, 'node_modules/.bin/node'), [join(root, 'tools/cli/src/main.ts'), '-a', this.#address(), ...args]);
      let [out, stdout, stderr] = ['', '', ''];
      child.stdout.on('data', (chunk) => {
        out += chunk;
        stdout += chunk;
      });
      child.stderr.on('data', (chunk) => {
        out += chunk;
        stderr += chunk;
      });
      // Not `exit`: what it printed last may come after that.
      child.on('close', (code) => resolve({ code, out, stdout, stderr }));
    });
  }

  /** The answer of a command that must succeed. */
  async json(...args: string[]): Promise<Record<string, unknown>> {
    const { code, out, stdout } = await this.run('-o', 'json', ...args);
    if (code !== 0) throw new Error(`cairn ${args.join(' ')} ended with ${code}: ${out}`);
    return JSON.parse(stdout) as Record<string, unknown>;
  }
}

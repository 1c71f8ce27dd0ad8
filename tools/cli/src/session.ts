import { asCairnError, SystemRuntime } from '@cairn/base';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { type Client, GrpcTransport } from '@cairn/rpc';
import type { Command } from 'commander';
import type { Format } from './output.ts';

/** Exit codes that scripts can use. 2 is commander's own for wrong usage. */
export const EXIT = { failed: 1, usage: 2, unavailable: 3, jobFailed: 4 } as const;

/** An error that ends the command with its message and exit code, without a stack. */
export class CommandError extends Error {
  readonly exitCode: number;

  constructor(message: string, exitCode: number = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}

interface GlobalOptions {
  readonly address: string;
  readonly database: string;
  readonly output: Format;
  readonly timeout: string;
}

/** What every command that talks to a server has: typed clients of both services, the database, the output format. */
export interface Session {
  readonly milvus: Client<typeof MilvusServiceDefinition>;
  readonly admin: Client<typeof AdminDefinition>;
  readonly upkeep: Client<typeof UpkeepDefinition>;
  readonly database: string;
  readonly format: Format;
  readonly options: { readonly timeoutMs: number; readonly metadata: Readonly<Record<string, string>> };
  readonly runtime: SystemRuntime;
}

/** Runs `work` with a session; errors become one line on standard error and an exit code. */
export async function withSession(command: Command, work: (session: Session) => Promise<void>): Promise<void> {
  const options = command.optsWithGlobals<GlobalOptions>();
  const runtime = new SystemRuntime();
  const timeoutMs = Number(options.timeout) * 1000;
  if (!(timeoutMs > 0)) throw new CommandError(`--timeout must be a number of seconds above 0, not '${options.timeout}'`, EXIT.usage);
  const transport = new GrpcTransport(runtime, { timeoutMs });
  try {
    await work({
      milvus: transport.client(MilvusServiceDefinition, options.address),
      admin: transport.client(AdminDefinition, options.address),
      upkeep: transport.client(UpkeepDefinition, options.address),
      database: options.database,
      format: options.output,
      options: { timeoutMs, metadata: { dbname: options.database } },
      runtime,
    });
  } catch (error) {
    if (error instanceof CommandError) throw error;
    const found = asCairnError(error);
    const unreachable = found.codeName === 'Unavailable' || found.codeName === 'Timeout';
    throw new CommandError(
      unreachable ? `${options.address}: ${found.message}` : found.message,
      unreachable ? EXIT.unavailable : EXIT.failed,
    );
  } finally {
    transport.close();
  }
}

/** Throws when a Milvus Status is not success. */
export function must(status: { code: number; reason: string } | undefined): void {
  if (!status) throw new CommandError('the server answered without a status');
  if (status.code !== 0) throw new CommandError(`${status.reason} (code ${status.code})`);
}

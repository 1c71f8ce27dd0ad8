import { readFileSync } from 'node:fs';
import { CairnError } from '@cairn/base';
import { DrillState } from '@cairn/proto/cairn/meta';
import type { Command } from 'commander';
import { print, printOne, type Row } from '../output.ts';
import { CommandError, EXIT, type Session, withSession } from '../session.ts';

interface OnCollection {
  readonly collection: string;
}

const POLL_MS = 200;

/** `snapshot drill` and `snapshot certificate`. */
export function addSnapshotDrillCommands(program: Command): void {
  const snapshot = program.commands.find((command) => command.name() === 'snapshot') ?? program.command('snapshot');

  snapshot
    .command('drill')
    .description(
      'restore on trial: into a hidden collection that is loaded, counted, searched, hashed and dropped; leaves a signed certificate',
    )
    .argument('<name>', 'snapshot')
    .requiredOption('-c, --collection <name>', 'collection')
    .addHelpText('after', '\nExample:\n  cairn snapshot drill -c packages before_upgrade')
    .action(async (name: string, options: OnCollection, command: Command) =>
      withSession(command, async (session) => {
        const request = { database: session.database, collection: options.collection, name, requestId: '' };
        let drill = await session.upkeep.startDrill(request, session.options);
        let phase = '';
        while (drill.state === DrillState.DRILL_RUNNING) {
          if (drill.phase !== phase && session.format === 'table') process.stderr.write(`${drill.phase}\n`);
          ({ phase } = drill);
          await session.runtime.sleep(POLL_MS);
          drill = await session.upkeep.getDrill({ id: drill.id }, session.options);
        }
        if (drill.state === DrillState.DRILL_FAILED) throw new CommandError(`the drill failed at ${drill.reason}`, EXIT.jobFailed);
        printOne(session.format, {
          ...(await rowOf(drill.certificate)),
          certificate: drill.certificateKey,
          took_ms: drill.endedMs - drill.createdMs,
        });
      }),
    );

  const certificate = snapshot.command('certificate').description('what drills left beside a snapshot');

  certificate
    .command('list')
    .description('certificates of a snapshot, each with whether it is valid')
    .argument('<name>', 'snapshot')
    .requiredOption('-c, --collection <name>', 'collection')
    .action(async (name: string, options: OnCollection, command: Command) =>
      withSession(command, async (session) => {
        const { certificates, publicKey } = await listed(session, name, options.collection);
        const rows = await Promise.all(
          certificates.map(async ({ key, text }) => ({
            ...(await rowOf(text)),
            valid: (await why(text, publicKey)) ?? true,
            certificate: key,
          })),
        );
        print(session.format, rows);
      }),
    );

  certificate
    .command('verify')
    .description('that a certificate is as it was signed, and by whom; exit code 1 when not')
    .argument('<file-or-name>', 'a certificate file (no server is needed with --key); with -c a snapshot: its newest certificate')
    .option('-c, --collection <name>', 'collection of the snapshot')
    .option('--key <base64>', 'public key, as in `cairn status`; without it the server is asked')
    .action(async (target: string, options: { collection?: string; key?: string }, command: Command) =>
      withSession(command, async (session) => {
        const { text, publicKey } = await certificateOf(session, target, options);
        const reason = await why(text, publicKey);
        if (reason !== undefined) throw new CommandError(reason);
        printOne(session.format, { valid: true, ...(await rowOf(text)), signed_by: publicKey });
      }),
    );
}

async function certificateOf(
  session: Session,
  target: string,
  options: { readonly collection?: string; readonly key?: string },
): Promise<{ readonly text: string; readonly publicKey: string }> {
  if (options.collection !== undefined) {
    const { certificates, publicKey } = await listed(session, target, options.collection);
    const newest = certificates.at(-1);
    if (!newest) throw new CommandError(`snapshot ${target} has no certificate: nobody drilled it`);
    return { text: newest.text, publicKey: options.key ?? publicKey };
  }
  const key = options.key ?? (await session.admin.getStatus({}, session.options)).cluster?.certificateKey ?? '';
  try {
    return { text: readFileSync(target, 'utf8'), publicKey: key };
  } catch (error) {
    throw new CommandError(error instanceof Error ? error.message : String(error), EXIT.usage);
  }
}

function listed(session: Session, name: string, collection: string) {
  const none = { snapshotId: 0, deep: false, paged: false, cursor: '' };
  return session.upkeep.listCertificates({ database: session.database, collection, name, ...none }, session.options);
}

/** Why it is not valid; undefined: it is. */
async function why(text: string, publicKey: string): Promise<string | undefined> {
  // It reads the formats of the store: the other commands do without.
  const { verifyCertificate } = await import('@cairn/segment');
  try {
    verifyCertificate(text, publicKey);
    return undefined;
  } catch (error) {
    if (error instanceof CairnError) return error.message;
    throw error;
  }
}

/** What a certificate says, valid or not. */
async function rowOf(text: string): Promise<Row> {
  const { readCertificate } = await import('@cairn/segment');
  const body = readCertificate(text);
  if (!body) return { snapshot: null };
  const { snapshot, restored, content, searched } = body;
  return {
    snapshot: snapshot.name,
    collection: snapshot.collection,
    drilled: new Date(body.ended_ms).toISOString(),
    segments: restored.segments,
    rows: content.visible_rows,
    counted: body.counted_rows,
    searched: searched === null ? null : `${searched.queries} of ${searched.field}, ${searched.found_themselves} found themselves`,
    content_hash: content.restored_hash,
  };
}

import type { CheckResponse, GcReport } from '@cairn/proto/cairn/upkeep';
import type { Command } from 'commander';
import { bytes, print, printOne } from '../output.ts';
import { CommandError, type Session, withSession } from '../session.ts';

/** Prints what a check found; findings fail the command with exit code 1. */
export function printCheck(session: Session, reply: CheckResponse): void {
  const { findings, objects, segments, snapshots, elapsedMs } = reply;
  if (session.format === 'table') {
    print(
      'table',
      findings.map(({ kind, subject, detail }) => ({ kind, subject, detail })),
    );
    console.log(
      `${findings.length} findings; ${objects} objects (${bytes(reply.bytes)}), ${segments} segments, ${snapshots} snapshots in ${elapsedMs} ms`,
    );
  } else {
    const list = findings.map(({ kind, subject, detail }) => `${kind} ${subject}: ${detail}`);
    printOne(session.format, { findings: list, objects, bytes: reply.bytes, segments, snapshots, elapsed_ms: elapsedMs });
  }
  if (findings.length > 0) throw new CommandError(`${findings.length} findings`);
}

function printGarbage(session: Session, report: GcReport, ran: boolean): void {
  const items = report.items.map((item) => ({
    prefix: item.prefix,
    why: item.reason,
    objects: item.objects,
    bytes: session.format === 'table' ? bytes(item.bytes) : item.bytes,
    state: item.deadMs === 0 ? 'unreferenced' : 'dead',
    deleted_after: item.dueMs === 0 ? null : new Date(item.dueMs).toISOString(),
  }));
  if (session.format !== 'table') {
    printOne(session.format, {
      blocked: report.blocked,
      items: JSON.stringify(items),
      candidates: report.candidateCount,
      candidate_bytes: report.candidateBytes,
      marked: report.marked,
      deleted_prefixes: report.deletedPrefixes,
      deleted_bytes: report.deletedBytes,
      objects: report.objects,
      bytes: report.bytes,
      unknown_objects: report.unknownObjects,
      unknown_bytes: report.unknownBytes,
      unknown_examples: report.unknownExamples,
    });
    return;
  }
  print('table', items);
  if (report.candidateCount > items.length) console.log(`… and ${report.candidateCount - items.length} more (--limit)`);
  console.log(
    `${report.candidateCount} prefixes (${bytes(report.candidateBytes)}) of ${report.objects} objects (${bytes(report.bytes)}) are not needed`,
  );
  if (ran) console.log(`${report.marked} recorded as dead, ${report.deletedPrefixes} deleted (${bytes(report.deletedBytes)})`);
  if (report.unknownObjects > 0) {
    console.log(`${report.unknownObjects} objects (${bytes(report.unknownBytes)}) are not covered by any record and are never touched:`);
    for (const key of report.unknownExamples) console.log(`  ${key}`);
  }
}

function blocked(report: GcReport): void {
  if (report.blocked.length > 0) throw new CommandError(`nothing may be deleted: ${report.blocked.join('; ')}`);
}

export function addUpkeepCommands(program: Command): void {
  program
    .command('check')
    .description('compare records, objects and memory; exit code 1 when anything is not as it must be')
    .option('--deep', 'read every object: checksums and row counts, not only lengths')
    .action(async (options: { deep?: boolean }, command: Command) =>
      withSession(command, async (session) => {
        printCheck(session, await session.upkeep.check({ deep: options.deep === true }, session.options));
      }),
    );

  const gc = program.command('gc').description('garbage: objects that nothing refers to any more');
  for (const [name, description] of [
    ['plan', 'what would be deleted, why, and how many bytes; changes nothing'],
    ['run', 'record as dead what nothing refers to, and delete what has been dead for the grace time'],
  ] as const) {
    gc.command(name)
      .description(description)
      .option('--limit <count>', 'lines of the report at most', '1000')
      .action(async (options: { limit: string }, command: Command) =>
        withSession(command, async (session) => {
          const limit = Number(options.limit);
          if (!Number.isSafeInteger(limit) || limit < 1)
            throw new CommandError(`--limit must be a whole number above 0, not '${options.limit}'`, 2);
          const report =
            name === 'plan'
              ? await session.upkeep.gcPlan({ limit }, session.options)
              : await session.upkeep.gcRun({ limit }, session.options);
          printGarbage(session, report, name === 'run');
          blocked(report);
        }),
      );
  }
}

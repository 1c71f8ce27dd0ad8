import type { RestoreJobRecord } from '@cairn/proto/cairn/meta';
import type { RestorePlan } from '@cairn/proto/cairn/services';
import type { Command } from 'commander';
import { bytes, print, printOne, type Row } from '../output.ts';
import { jobRow, stateNamed, watchJob } from '../restore-progress.ts';
import { CommandError, EXIT, type Session, withSession } from '../session.ts';
import { type NamingOptions, snapshotNamed, withNaming } from '../snapshot-name.ts';

interface RestoreOptions extends NamingOptions {
  readonly targetDatabase?: string;
  readonly mode?: string;
  /** commander's form of --no-index. */
  readonly index: boolean;
  readonly partitions?: string;
  readonly dryRun?: boolean;
  readonly wait?: boolean;
  readonly shards?: string;
  readonly rewriteData?: boolean;
}

function jobId(value: string): number {
  const id = Number(value);
  if (!Number.isSafeInteger(id) || id <= 0) throw new CommandError(`a job id is a whole number above 0, not '${value}'`, EXIT.usage);
  return id;
}

/** 0: as many as the source. */
function shardsOf(value: string | undefined): number {
  if (value === undefined) return 0;
  const shards = Number(value);
  if (!Number.isSafeInteger(shards) || shards <= 0)
    throw new CommandError(`--shards is a whole number above 0, not '${value}'`, EXIT.usage);
  return shards;
}

/** Partition names of a comma-separated list. */
function namesOf(list: string | undefined): string[] {
  return (list ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

function planRow(plan: RestorePlan): Row {
  return {
    mode: plan.mode,
    shards: plan.shards,
    rewrites_rows: plan.rewriteData,
    segments: plan.segments,
    delta_logs: plan.deltaLogs,
    rows: plan.rows,
    objects: plan.objects,
    would_copy: bytes(plan.bytes),
    bytes: plan.bytes,
    estimated_seconds: plan.estimateMs === 0 ? null : plan.estimateMs / 1000,
    partitions: plan.partitions,
    indexes: plan.indexes,
    conflicts: plan.conflicts,
  };
}

async function start(session: Session, name: string, target: string, options: RestoreOptions): Promise<void> {
  const { jobId: id, plan } = await session.admin.restoreSnapshot(
    {
      restore: {
        snapshot: snapshotNamed(session.database, name, options),
        targetDatabase: options.targetDatabase ?? '',
        targetCollection: target,
        noIndex: !options.index,
        shards: shardsOf(options.shards),
        rewriteData: options.rewriteData ?? false,
        mode: options.mode ?? '',
        requestId: '',
        partitions: namesOf(options.partitions),
      },
      dryRun: options.dryRun ?? false,
    },
    session.options,
  );
  if (plan) {
    printOne(session.format, planRow(plan));
    if (plan.conflicts.length > 0) throw new CommandError(`the restore would be refused: ${plan.conflicts.join('; ')}`);
  } else if (options.wait) await watchJob(session, id);
  else printOne(session.format, { job_id: id });
}

interface ListOptions {
  readonly collection: string;
  readonly source: string;
  readonly target: string;
  readonly state?: string;
  readonly allDatabases?: boolean;
}

/** `database.collection`, or a collection of any database. */
function sideOf(name: string): { database: string; collection: string } {
  const dot = name.indexOf('.');
  return { database: name.slice(0, Math.max(0, dot)), collection: name.slice(dot + 1) };
}

async function list(session: Session, options: ListOptions): Promise<void> {
  const state = options.state === undefined ? undefined : stateNamed(options.state);
  if (options.state !== undefined && state === undefined) throw new CommandError(`no job has a state '${options.state}'`, EXIT.usage);
  const [source, target] = [sideOf(options.source), sideOf(options.target)];
  const { jobs } = await session.admin.listRestoreJobs(
    {
      database: options.allDatabases ? '' : session.database,
      collection: options.collection,
      sourceDatabase: source.database,
      sourceCollection: source.collection,
      targetDatabase: target.database,
      targetCollection: target.collection,
    },
    session.options,
  );
  print(
    session.format,
    jobs.filter((job) => state === undefined || job.state === state).map((job: RestoreJobRecord) => jobRow(job)),
  );
}

/** What `restore list` and `snapshot jobs` choose by; names that a collection had when the job began, or has now. */
function withFilters(command: Command): Command {
  return command
    .option('-c, --collection <name>', 'jobs from or into this collection', '')
    .option('--source <[database.]collection>', 'jobs from it', '')
    .option('--target <[database.]collection>', 'jobs into it', '')
    .option('--state <state>', 'pending, executing, publishing, completed, failed or cancelled')
    .option('--all-databases', 'jobs between any databases');
}

/** `snapshot restore`, `snapshot clone` and `snapshot jobs`: what makes a collection of a snapshot. */
export function addSnapshotRestoreCommands(snapshot: Command): void {
  const common = (name: string, what: string): Command =>
    withNaming(snapshot.command(name))
      .description(what)
      .argument('<name>', 'snapshot; with --id its id')
      .argument('<target>', 'collection to make; must not exist')
      .option('--target-database <name>', 'database of the new collection (default: the same)')
      .option('--no-index', 'leave the indexes out')
      .option('--partitions <a,b>', 'only these partitions')
      .option('--dry-run', 'say what would be done and what stands in its way; do nothing')
      .option('-w, --wait', 'wait until the job has ended, with a progress bar');

  common('restore', 'restore a snapshot into a new collection')
    .option('--shards <n>', 'another number of shards: rows are written anew, as with --rewrite-data')
    .option('--rewrite-data', 'write rows anew, without the deleted ones, and build indexes again; not with --mode reference')
    .option('--mode <mode>', 'copy, or reference for a clone that shares the objects (default: restore.mode of the server)')
    .addHelpText(
      'after',
      '\nExample:\n  cairn snapshot restore -c packages before_upgrade packages_copy --wait\n  cairn snapshot restore --id 4711 packages_back --wait',
    )
    .action(async (name: string, target: string, options: RestoreOptions, command: Command) =>
      withSession(command, (session) => start(session, name, target, options)),
    );

  common('clone', 'make a new collection of a snapshot at once: it shares the objects, no byte is copied')
    .addHelpText('after', '\nExample:\n  cairn snapshot clone -c packages before_upgrade packages_try --wait')
    .action(async (name: string, target: string, options: RestoreOptions, command: Command) =>
      withSession(command, (session) => start(session, name, target, { ...options, mode: 'reference' })),
    );

  withFilters(snapshot.command('jobs'))
    .description('restore jobs and how far they are (as `restore list`)')
    .argument('[id]', 'one job, with a progress bar until it ends')
    .action(async (id: string | undefined, options: ListOptions, command: Command) =>
      withSession(command, (session) => (id === undefined ? list(session, options) : watchJob(session, jobId(id)))),
    );
}

/** `restore list|describe|watch|cancel`. */
export function addRestoreCommands(program: Command): void {
  const restore = program.command('restore').description('restore jobs');

  withFilters(restore.command('list'))
    .description('restore jobs and how far they are')
    .action(async (options: ListOptions, command: Command) => withSession(command, (session) => list(session, options)));

  restore
    .command('describe')
    .description('one job')
    .argument('<id>', 'job id')
    .action(async (id: string, _options: unknown, command: Command) =>
      withSession(command, async (session) => {
        const job = await session.admin.getRestoreJob({ jobId: jobId(id) }, session.options);
        printOne(session.format, {
          ...jobRow(job),
          mode: job.mode,
          shards: job.shards,
          rewrites_rows: job.rewriteData,
          rows: job.totalRows,
          segments: `${job.copiedSegments} of ${job.totalSegments}`,
          objects: `${job.copiedObjects} of ${job.totalObjects}`,
          indexes: job.noIndex ? 'left out' : 'restored',
          partitions: job.partitions.length === 0 ? 'all' : job.partitions,
          deadline: new Date(job.deadlineMs).toISOString(),
        });
      }),
    );

  restore
    .command('watch')
    .description('follow a job to its end; exit code 4 when it does not end Completed')
    .argument('<id>', 'job id')
    .action(async (id: string, _options: unknown, command: Command) => withSession(command, (session) => watchJob(session, jobId(id))));

  restore
    .command('cancel')
    .description('end a job and remove what it made; answers when nothing of it is left')
    .argument('<id>', 'job id')
    .addHelpText('after', '\nExample:\n  cairn restore cancel 4711')
    .action(async (id: string, _options: unknown, command: Command) =>
      withSession(command, async (session) => {
        const row = jobRow(await session.admin.cancelRestoreJob({ jobId: jobId(id) }, session.options));
        printOne(session.format, row);
        if (row['state'] !== 'Cancelled') throw new CommandError(`restore job ${id} had ended before: ${row['state']}`);
      }),
    );
}

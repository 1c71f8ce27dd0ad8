import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import type { Finding, VerifyReport } from '@cairn/proto/cairn/upkeep';
import { bytes, print, printOne } from './output.ts';
import { CommandError, EXIT, type Session } from './session.ts';

export interface VerifyCommandOptions {
  readonly collection: string;
  readonly id?: boolean;
  readonly deep?: boolean;
  readonly resume?: string;
}

/** What `--resume` keeps between runs. */
interface Saved {
  readonly snapshot: string;
  readonly collection: string;
  readonly deep: boolean;
  readonly cursor: string;
  readonly findings: readonly Finding[];
}

/** Page by page, with the progress on stderr; findings fail the command with exit code 1. */
export async function verifySnapshot(session: Session, name: string, options: VerifyCommandOptions): Promise<void> {
  const snapshotId = options.id ? Number(name) : 0;
  if (options.id && !(Number.isSafeInteger(snapshotId) && snapshotId > 0)) throw new CommandError(`'${name}' is no id`, EXIT.usage);
  if (!options.id && options.collection === '') throw new CommandError('a snapshot is named with its collection (-c)', EXIT.usage);
  const { database } = session;
  const deep = options.deep === true;
  const request = { database, collection: options.collection, name: options.id ? '' : name, snapshotId, deep, paged: true };
  const saved = options.resume === undefined ? undefined : load(options.resume);
  if (saved && (saved.snapshot !== name || saved.collection !== options.collection || saved.deep !== deep))
    throw new CommandError(`${options.resume} is of another verification: ${saved.collection} ${saved.snapshot}`, EXIT.usage);
  const findings: Finding[] = [...(saved?.findings ?? [])];
  let report: VerifyReport | undefined;
  let cursor = saved?.cursor ?? '';
  do {
    report = await session.upkeep.verifySnapshot({ ...request, cursor }, session.options);
    findings.push(...report.findings);
    ({ cursor } = report);
    if (cursor === '') break;
    if (options.resume !== undefined) save(options.resume, { snapshot: name, collection: options.collection, deep, cursor, findings });
    showProgress(report);
  } while (cursor !== '');
  if (options.resume !== undefined) rmSync(options.resume, { force: true });
  printReport(session, report, findings);
}

function load(file: string): Saved | undefined {
  if (!existsSync(file)) return undefined;
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Saved;
  } catch {
    throw new CommandError(`${file} is no progress of a verification`, EXIT.usage);
  }
}

/** Whole or not at all: a verification may be stopped at any time. */
function save(file: string, state: Saved): void {
  writeFileSync(`${file}.new`, `${JSON.stringify(state)}\n`);
  renameSync(`${file}.new`, file);
}

function showProgress({ objects, totalObjects, bytes: done, totalBytes, elapsedMs }: VerifyReport): void {
  const share = totalBytes === 0 ? 100 : Math.floor((100 * done) / totalBytes);
  const line = `${share} %: ${objects} of ${totalObjects} objects, ${bytes(done)} of ${bytes(totalBytes)} in ${Math.round(elapsedMs / 1000)} s`;
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line}`);
  else process.stderr.write(`${line}\n`);
}

function printReport(session: Session, report: VerifyReport, findings: readonly Finding[]): void {
  const { deep, objects, segments, elapsedMs } = report;
  const seconds = Math.max(1, elapsedMs) / 1000;
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  if (session.format === 'table') {
    print(
      'table',
      findings.map(({ kind, subject, detail }) => ({ kind, subject, detail })),
    );
    console.log(`${findings.length} findings; ${objects} objects (${bytes(report.bytes)}), ${segments} segments in ${elapsedMs} ms`);
    if (deep) console.log(contentWords(report));
  } else {
    printOne(session.format, {
      snapshot: report.snapshotName,
      id: report.snapshotId,
      deep,
      whole: findings.length === 0,
      findings: findings.map(({ kind, subject, detail }) => `${kind} ${subject}: ${detail}`),
      objects,
      bytes: report.bytes,
      segments,
      hashed_segments: report.hashedSegments,
      unrecorded_segments: report.unrecordedSegments,
      content_hash: report.contentHash,
      visible_rows: report.visibleRows,
      visible_hash: report.visibleHash,
      elapsed_ms: elapsedMs,
      objects_per_second: Math.round(objects / seconds),
      bytes_per_second: deep ? Math.round(report.bytes / seconds) : 0,
    });
  }
  if (findings.length > 0) throw new CommandError(`${findings.length} findings`);
}

function contentWords(report: VerifyReport): string {
  const recorded =
    report.unrecordedSegments === 0
      ? `content hashes of ${report.hashedSegments} segments compared`
      : `content hashes of ${report.hashedSegments} segments compared, of ${report.unrecordedSegments} not recorded`;
  if (report.contentHash === '') return recorded;
  return `${recorded}; stored rows ${report.contentHash}, ${report.visibleRows} visible rows ${report.visibleHash}`;
}

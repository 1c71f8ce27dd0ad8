import { mkdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { CairnError } from '@cairn/base';
import { open } from 'lmdb';

/** Who holds a directory, in words that tell whether it still lives. Fields a system cannot tell are empty. */
interface Holder {
  readonly pid: number;
  /** When the process began, in the kernel's ticks since boot: a pid that was given again begins later. */
  readonly started: string;
  readonly boot: string;
  /** Processes of another pid namespace (container) cannot be asked for: such a holder counts as gone. */
  readonly namespace: string;
}

/**
 * Keeps a second process out of a data directory: embedded stores belong to one process at a time. The holder stands in a small LMDB environment,
 * whose write transactions exclude one another across processes, so that of two that start at once one wins. A holder that died without
 * releasing (kill -9, power) is seen by its pid, its start time and the boot it lived in, and is replaced.
 */
export class DirectoryLock {
  readonly #release: () => Promise<void>;

  private constructor(release: () => Promise<void>) {
    this.#release = release;
  }

  /** Takes directory `dir`, made where it is missing. Throws StoreUnavailable with the holder's pid when another living process has it. */
  static take(dir: string): DirectoryLock {
    mkdirSync(dir, { recursive: true });
    const db = open<Holder, string>({ path: join(dir, 'holder'), encoding: 'json', overlappingSync: false, mapSize: 1 << 20 });
    const me = describeProcess(process.pid);
    const other = db.transactionSync(() => {
      const holder = db.get('holder');
      if (holder && holder.pid !== me.pid && lives(holder, me)) return holder;
      db.putSync('holder', me);
      return undefined;
    });
    if (other) {
      void db.close();
      throw new CairnError(
        'StoreUnavailable',
        `data directory ${dir} belongs to process ${other.pid}, which is running; stop it first, or give this one another directory (CAIRN_DATA_DIR)`,
      );
    }
    return new DirectoryLock(async () => {
      db.transactionSync(() => {
        if (db.get('holder')?.pid === me.pid) db.removeSync('holder');
      });
      await db.close();
    });
  }

  async release(): Promise<void> {
    await this.#release();
  }
}

function lives(holder: Holder, me: Holder): boolean {
  if (holder.boot !== me.boot || holder.namespace !== me.namespace) return false;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it lives and is another user's.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  return describeProcess(holder.pid).started === holder.started;
}

function describeProcess(pid: number): Holder {
  // Field 22 of stat, counted after the name in brackets, which may hold blanks (proc(5)).
  const stat = orEmpty(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    pid,
    // A process that ended and was not yet waited for (Z) holds nothing any more.
    started: fields[0] === 'Z' ? 'ended' : (fields[19] ?? ''),
    boot: orEmpty(() => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()),
    namespace: orEmpty(() => readlinkSync('/proc/self/ns/pid')),
  };
}

function orEmpty(read: () => string): string {
  try {
    return read();
  } catch {
    return '';
  }
}

/** The whole house under one seed: shared stores in memory, two processes of each role, and what befalls them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Config, type Logger, loadConfig } from '@cairn/base';
import { type SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import { MemoryMetaStore } from '@cairn/meta';
import { MemoryObjectStore } from '@cairn/objects';
import { MemoryWalStore } from '@cairn/wal';
import { type LinkFaults, NO_LINK_FAULTS } from './links.ts';
import { type NetworkFaults, SimulatedNetwork } from './network.ts';
import { SimulatedProcess, type SimulatedRole, type StoreName } from './process.ts';

/** For the files of simulated nodes, some hundred KB: in memory where the system has a place for that. */
function makeDirectory(): string {
  try {
    return mkdtempSync('/dev/shm/cairn-sim-');
  } catch {
    return mkdtempSync(join(tmpdir(), 'cairn-sim-'));
  }
}

/** Small segments and short times, so that much happens in few virtual seconds. */
const SETTINGS = [
  'gc.intervalMs=2000',
  'node.leaseTtlMs=2000',
  'wal.channels=3',
  'wal.maxRecordBytes=16384',
  'segment.maxRows=40',
  'segment.maxAgeMs=8000',
  'flush.checkIntervalMs=500',
  'flush.timeoutMs=10000',
  'snapshot.timeoutMs=15000',
  'restore.jobTimeoutMs=60000',
  'compaction.intervalMs=300',
  'compaction.minSegments=2',
  'compaction.targetBytes=65536',
  'compaction.deletedPercent=10',
  'compaction.retentionMs=1000',
  'streaming.loadTimeoutMs=5000',
  'streaming.repeatWindowMs=60000',
  'rpc.callTimeoutMs=5000',
  'proxy.requestTimeoutMs=10000',
  'index.workers=1',
];
const TRIMMING = ['streaming.repeatLogBytes=0', 'streaming.repeatWindowMs=0'];
const COORDINATOR_SETTINGS = {
  sweepPeriodMs: 1_000,
  callTimeoutMs: 5_000,
  assignSettleMs: 200,
  balanceSettleMs: 500,
  gcOrphanMs: 30_000,
  indexMinRows: 8,
  compactionDeltaKeepMs: 20_000,
  compactionPauseMs: 500,
};
/** The shorter one is hardly longer than a call that comes late. */
const GC_GRACES_MS = [4_000, 15_000] as const;
const ROLES: readonly SimulatedRole[] = ['datacoord', 'streaming', 'datanode', 'proxy'];
const OF_EACH_ROLE = 2;
/** Wait of a call that brings no deadline, virtual ms. */
const CALL_TIMEOUT_MS = 5_000;

/** Kills one process at one of the points that are counted from `World.recordPoints` on: as it sends a call, or as a timer of it fires. */
export interface Kill {
  readonly at: number;
  /** Whether the call arrives. */
  readonly lands: boolean;
  /** Happens there instead of a death. */
  readonly strike?: ((world: World) => void) | undefined;
}

const RESTART_MS = 300;
const TIMER = 'timer';

export interface WorldOptions {
  readonly seed: number;
  /** Prints what the services log, with virtual times. */
  readonly log?: boolean;
  /** Settings beside those of every world, `key=value`. */
  readonly settings?: readonly string[];
}

export class World {
  readonly simulation: Simulation;
  readonly meta: MemoryMetaStore;
  readonly objects: MemoryObjectStore;
  readonly wal = new MemoryWalStore();
  readonly network: SimulatedNetwork;
  readonly config: Config;
  /** Flushed log is trimmed at once: repeated request ids may be forgotten, so nobody inserts what a repeat would double. */
  readonly trims: boolean;
  /** Collections get graph indexes, which are built and opened in files; else FLAT. */
  readonly graphs: boolean;
  readonly #directory = makeDirectory();
  readonly processes: SimulatedProcess[] = [];
  /** Time and random numbers of what stands outside: clients, the chaos, the checker. */
  readonly outside: SimulatedRuntime;
  readonly problems: string[] = [];
  readonly linkFaults: Readonly<Record<StoreName, LinkFaults>> = {
    meta: { ...NO_LINK_FAULTS },
    wal: { ...NO_LINK_FAULTS },
    objects: { ...NO_LINK_FAULTS },
  };
  readonly networkFaults: NetworkFaults = { maxDelayMs: 4, lost: 0, unanswered: 0, silent: 0, doubled: 0 };
  /** Where processes crashed, by the call that they were sending. */
  readonly crashes = new Map<string, number>();
  /** Chance that a process crashes as it sends a call. */
  crashChance = 0;
  readonly #log: boolean;
  #points: string[] | undefined;
  #kill: Kill | undefined;

  constructor(options: WorldOptions) {
    const simulation = new Simulation(options.seed);
    this.simulation = simulation;
    this.#log = options.log ?? false;
    this.outside = simulation.instance('outside');
    this.meta = new MemoryMetaStore(this.outside);
    this.objects = new MemoryObjectStore(this.outside);
    this.trims = simulation.random() < 0.5;
    const mode = simulation.random() < 0.5 ? 'copy' : 'reference';
    const graceMs = GC_GRACES_MS[simulation.below(GC_GRACES_MS.length)];
    this.config = loadConfig({
      env: {},
      sets: [...SETTINGS, `restore.mode=${mode}`, `gc.graceMs=${graceMs}`, ...(this.trims ? TRIMMING : []), ...(options.settings ?? [])],
    });
    this.graphs = simulation.random() < 0.5;
    this.network = new SimulatedNetwork({
      simulation,
      faults: this.networkFaults,
      timeoutMs: CALL_TIMEOUT_MS,
      sending: (from, what) => this.#sending(from, what),
    });
    const environment = {
      ...{ simulation, network: this.network, meta: this.meta, objects: this.objects, wal: this.wal, config: this.config },
      faults: this.linkFaults,
      directory: this.#directory,
      keepNodeIds: simulation.random() < 0.5,
      coordinatorSettings: COORDINATOR_SETTINGS,
      logger: (name: string) => this.logger(name),
      sending: (runtime: SimulatedRuntime, what: string) => this.#sending(runtime, what),
      timer: (runtime: SimulatedRuntime) => void this.#point(runtime, TIMER),
      problem: (text: string) => this.problem(text),
    };
    for (const role of ROLES)
      for (let number = 1; number <= OF_EACH_ROLE; number++)
        this.processes.push(new SimulatedProcess(`${role}-${number}`, role, environment));
  }

  /** Every process is gone, and what it left on disk. */
  end(): void {
    for (const process of this.processes) process.crash();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Something that must not be. */
  problem(text: string): void {
    this.problems.push(`${Math.round(this.simulation.nowMs)} ms: ${text}`);
    this.note(`PROBLEM ${text}`);
  }

  /** A line of the log, when it is printed. */
  note(text: string): void {
    if (this.#log) console.log(`${this.simulation.nowMs.toFixed(1).padStart(9)} ${text}`);
  }

  start(): void {
    for (const process of this.processes) process.start();
  }

  /** No more faults; every process lives. */
  heal(): void {
    for (const faults of Object.values(this.linkFaults))
      Object.assign(faults, { ...NO_LINK_FAULTS, maxDelayMs: Math.min(faults.maxDelayMs, 30) });
    Object.assign(this.networkFaults, { lost: 0, unanswered: 0, silent: 0, doubled: 0 });
    this.crashChance = 0;
    this.network.heal();
    for (const process of this.processes) {
      process.cutOff.clear();
      process.setClock();
      process.start();
    }
  }

  logger(name: string): Logger {
    const line = (level: string) => (fields: Record<string, unknown>, message: string) => {
      if (!this.#log) return;
      const { error, ...rest } = fields;
      const reason = error instanceof Error ? ` ${error.stack ?? error.message}` : error === undefined ? '' : ` ${String(error)}`;
      this.note(`${name} ${level} ${message} ${JSON.stringify(rest)}${reason}`);
    };
    return { debug: line('debug'), info: line('info'), warn: line('warn'), error: line('ERROR'), child: () => this.logger(name) };
  }

  /** From now on every call and every timer of a process is a point, named `role: call`; the process dies at the one that `kill` names. */
  recordPoints(kill?: Kill): void {
    this.#points = [];
    this.#kill = kill;
  }

  /** The points since then; no more are recorded. */
  takePoints(): readonly string[] {
    const points = this.#points ?? [];
    this.#points = undefined;
    return points;
  }

  #point(from: SimulatedRuntime, what: string): boolean {
    if (!this.#points || from === this.outside || !from.alive) return true;
    this.#points.push(`${from.name.replace(/-.*/, '')}: ${what}`);
    if (this.#kill?.at !== this.#points.length - 1) return true;
    if (this.#kill.strike) {
      this.#kill.strike(this);
      return true;
    }
    this.#crash(from, what, RESTART_MS);
    return this.#kill.lands;
  }

  /** Whether the call arrives, should its process die now. */
  #sending(from: SimulatedRuntime, what: string): boolean {
    if (!this.#point(from, what)) return false;
    if (this.crashChance === 0 || from === this.outside || !from.alive || this.simulation.random() >= this.crashChance) return true;
    this.#crash(from, what, this.simulation.random() * 3_000);
    return this.simulation.random() < 0.5;
  }

  #crash(from: SimulatedRuntime, what: string, downMs: number): void {
    const where = `${from.name.replace(/-.*/, '')}: ${what}`;
    this.crashes.set(where, (this.crashes.get(where) ?? 0) + 1);
    this.note(`${from.name} crashes as it sends ${what}`);
    from.crash();
    const process = this.processes.find(({ runtime }) => runtime === from);
    this.simulation.schedule(downMs, () => process?.start());
  }
}

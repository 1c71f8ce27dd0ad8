/** A simulated process: one role on its links to the stores and the network. It starts, crashes at any moment, stops in good order, and starts again. */
import { join } from 'node:path';
import type { Config, Logger, Service } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import { CatalogView } from '@cairn/catalog';
import { IndexPool } from '@cairn/index';
import type { MemoryMetaStore } from '@cairn/meta';
import type { MemoryObjectStore } from '@cairn/objects';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { ProxyService } from '@cairn/proxy';
import type { Handlers } from '@cairn/rpc';
import { type InnerRole, makeRole } from '@cairn/standalone';
import type { MemoryWalStore } from '@cairn/wal';
import { Link, type LinkFaults, linkedMeta, linkedObjects, linkedWal } from './links.ts';
import type { SimulatedNetwork } from './network.ts';

export type StoreName = 'meta' | 'wal' | 'objects';

export type SimulatedRole = InnerRole | 'proxy';

/** What all processes share. */
export interface ProcessEnvironment {
  readonly simulation: Simulation;
  readonly network: SimulatedNetwork;
  readonly meta: MemoryMetaStore;
  readonly objects: MemoryObjectStore;
  readonly wal: MemoryWalStore;
  /** Of every link to the store of this name. */
  readonly faults: Readonly<Record<StoreName, LinkFaults>>;
  readonly config: Config;
  /** A directory of this world on the disk of this machine. */
  readonly directory: string;
  /** A process keeps its node id over restarts, as in a stateful set; else each life has its own. */
  readonly keepNodeIds: boolean;
  readonly coordinatorSettings: Record<string, number>;
  logger(name: string): Logger;
  /** Each call of a process, before it is sent; may crash it. False: then the call does not arrive. */
  sending(runtime: SimulatedRuntime, what: string): boolean;
  /** A timer of the process fires; may crash it. */
  timer(runtime: SimulatedRuntime): void;
  problem(text: string): void;
}

/** A process that cannot start ends, and whoever runs it starts it again after this, virtual ms. */
const START_AGAIN_MS = 500;

export class SimulatedProcess {
  readonly name: string;
  readonly role: SimulatedRole;
  readonly #environment: ProcessEnvironment;
  /** Stores that it cannot reach now. */
  readonly cutOff = new Set<StoreName>();
  #runtime: SimulatedRuntime | undefined;
  #services: Service[] = [];
  #lives = 0;
  #skewMs = 0;

  constructor(name: string, role: SimulatedRole, environment: ProcessEnvironment) {
    this.name = name;
    this.role = role;
    this.#environment = environment;
  }

  get alive(): boolean {
    return this.#runtime?.alive ?? false;
  }

  get runtime(): SimulatedRuntime | undefined {
    return this.#runtime;
  }

  start(): void {
    if (this.alive) return;
    const { simulation } = this.#environment;
    this.#lives++;
    const runtime = simulation.instance(this.name, this.#skewMs);
    runtime.onTimer = () => this.#environment.timer(runtime);
    this.#runtime = runtime;
    this.#services = [];
    this.#start(runtime).catch(() => {
      if (!runtime.alive) return;
      runtime.crash();
      simulation.schedule(START_AGAIN_MS, () => this.start());
    });
  }

  /** Gone, wherever it is. */
  crash(): void {
    this.#runtime?.crash();
  }

  /** Ends in good order, as on SIGTERM; what does not end in time is killed. */
  async stop(graceMs: number): Promise<void> {
    const runtime = this.#runtime;
    if (!runtime?.alive) return;
    const services = [...this.#services].reverse();
    const killed = this.#environment.simulation.schedule(graceMs, () => runtime.crash());
    for (const service of services) await service.stop();
    killed.cancel();
    runtime.crash();
  }

  /** It cannot reach the store for so long, virtual ms. */
  cut(store: StoreName, forMs: number): void {
    this.cutOff.add(store);
    this.#environment.simulation.schedule(forMs, () => this.cutOff.delete(store));
  }

  /** The wall clock of this and every later life jumps. */
  jump(byMs: number): void {
    this.#skewMs += byMs;
    this.#runtime?.jump(byMs);
  }

  /** Its clock is right again. */
  setClock(): void {
    this.jump(-this.#skewMs);
  }

  async #start(runtime: SimulatedRuntime): Promise<void> {
    const { simulation, network, faults, keepNodeIds, coordinatorSettings, directory } = this.#environment;
    const config = { ...this.#environment.config, dataDir: join(directory, `${this.name}-${this.#lives}`) };
    const nodeId = keepNodeIds ? this.name : `${this.name}-${this.#lives}`;
    const logger = this.#environment.logger(`${this.name}#${this.#lives}`);
    const link = (what: StoreName, ordered: boolean): Link =>
      new Link({
        ...{ simulation, runtime, what, ordered },
        faults: faults[what],
        cut: () => this.cutOff.has(what),
        cutFor: (forMs) => this.cut(what, forMs),
        sending: (call) => this.#environment.sending(runtime, call),
      });
    const meta = linkedMeta(this.#environment.meta, link('meta', false));
    const objects = linkedObjects(this.#environment.objects, link('objects', false));
    const wal = linkedWal(this.#environment.wal, link('wal', true));
    const transport = network.transport(runtime);
    const catalog = new CatalogView(meta, runtime, logger);
    const pool = new IndexPool({ runtime, threads: 1 });
    const parts = { config, runtime, logger, nodeId, meta, objects, wal, transport, catalog, pool, coordinatorSettings };
    await this.#begin(catalog);
    if (this.role === 'proxy') {
      const proxy = new ProxyService({ ...parts, listen: false });
      await this.#begin(proxy);
      network.serve(this.name, runtime, MilvusServiceDefinition, proxy.handlers() as unknown as Handlers<typeof MilvusServiceDefinition>);
      network.serve(this.name, runtime, AdminDefinition, proxy.admin());
      network.serve(this.name, runtime, UpkeepDefinition, proxy.upkeep());
      return;
    }
    const host = {
      address: () => this.name,
      serve: ((_role, definition, handlers) => network.serve(this.name, runtime, definition, handlers)) as Parameters<
        typeof makeRole
      >[2]['serve'],
    };
    await this.#begin(makeRole(this.role, parts, host));
  }

  async #begin(service: Service): Promise<void> {
    this.#services.push(service);
    await service.start();
  }
}

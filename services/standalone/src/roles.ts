import { CairnError, type Config, type Logger, type Runtime, type Service } from '@cairn/base';
import type { CatalogView } from '@cairn/catalog';
import { DataCoordService, type DataCoordSettings, dataCoordSettings } from '@cairn/datacoord';
import { DataNodeService } from '@cairn/datanode';
import type { IndexPool } from '@cairn/index';
import type { MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { DataCoordDefinition, DataNodeDefinition, StreamingDefinition } from '@cairn/proto/cairn/services';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import type { Handlers, ServiceDefinition, Transport } from '@cairn/rpc';
import { StreamingService } from '@cairn/streaming';
import type { WalStore } from '@cairn/wal';
import { delegate } from './delegating-handlers.ts';
import { RoleSupervisor } from './role-supervisor.ts';

/** What services are made of, whatever lies behind each part: a process gives real stores and gRPC, the simulation its own. */
export interface RoleParts {
  readonly config: Config;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly nodeId: string;
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  readonly transport: Transport;
  /** Started before the roles; of the whole process. */
  readonly catalog: CatalogView;
  readonly pool: IndexPool;
  /** Settings of the coordinator that no configuration names (tests). */
  readonly coordinatorSettings?: Partial<DataCoordSettings>;
}

export type InnerRole = 'datacoord' | 'streaming' | 'datanode';

/** Serves definitions where other nodes reach them. */
export interface RoleHost {
  /** Where `role` is reached: `host:port` or `inproc:<name>`. */
  address(role: InnerRole): string;
  serve<D extends ServiceDefinition>(role: InnerRole, definition: D, handlers: Handlers<D>): void;
}

/** A role behind its address: the service in it is replaced when its lease is lost. */
export function makeRole(role: InnerRole, parts: RoleParts, host: RoleHost): Service {
  const address = host.address(role);
  const options = { ...parts, address };
  switch (role) {
    case 'datacoord': {
      const supervisor = new RoleSupervisor(
        role,
        parts.runtime,
        parts.logger,
        () => new DataCoordService({ ...options, settings: { ...dataCoordSettings(parts.config), ...parts.coordinatorSettings } }),
      );
      host.serve(
        role,
        DataCoordDefinition,
        delegate(DataCoordDefinition, role, () => supervisor.current?.handlers),
      );
      host.serve(
        role,
        UpkeepDefinition,
        delegate(UpkeepDefinition, role, () => supervisor.current?.upkeep),
      );
      return supervisor;
    }
    case 'streaming': {
      const supervisor = new RoleSupervisor(role, parts.runtime, parts.logger, () => new StreamingService(options));
      host.serve(
        role,
        StreamingDefinition,
        delegate(StreamingDefinition, role, () => supervisor.current?.handlers),
      );
      return supervisor;
    }
    case 'datanode': {
      const supervisor = new RoleSupervisor(role, parts.runtime, parts.logger, () => new DataNodeService(options));
      host.serve(
        role,
        DataNodeDefinition,
        delegate(DataNodeDefinition, role, () => supervisor.current?.handlers),
      );
      return supervisor;
    }
    default:
      throw new CairnError('Internal', `unknown role ${role satisfies never}`);
  }
}

import type { Config, Logger, Runtime } from '@cairn/base';
import type { CoordinatorClient } from './coordinator-client.ts';
import type { ProxyCatalog } from './proxy-catalog.ts';
import type { Quota } from './quota.ts';
import type { AutoIds, ReadTimestamps } from './sequences.ts';
import type { ShardOwners } from './shard-owners.ts';

/** What the handlers of all areas work with. */
export interface ProxyParts {
  readonly catalog: ProxyCatalog;
  readonly coordinator: CoordinatorClient;
  readonly owners: ShardOwners;
  readonly quota: Quota;
  readonly autoIds: AutoIds;
  readonly readTimestamps: ReadTimestamps;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly config: Config;
}

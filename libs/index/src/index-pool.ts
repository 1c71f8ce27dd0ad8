import { CairnError, type Runtime, type Service } from '@cairn/base';
import type { BuildRequest, BuiltIndex, ExactQuery, IndexHits, IndexQuery, OpenIndex } from './search-types.ts';

export interface IndexPoolOptions {
  readonly runtime: Runtime;
  /** Worker threads; ignored under `runtime.inline`. */
  readonly threads: number;
  /** Requests that may wait for a worker; one more is TooManyRequests. */
  readonly queueLimit?: number;
  /** Index files that one worker keeps mapped. */
  readonly openLimit?: number;
}

/** Vector work in worker threads: building, graph search, exact search. One per process. */
export class IndexPool implements Service {
  readonly name = 'index-pool';
  readonly options: IndexPoolOptions;

  constructor(options: IndexPoolOptions) {
    this.options = options;
  }

  async start(): Promise<void> {}

  async stop(): Promise<void> {}

  /** Builds an index into a file. */
  async build(_request: BuildRequest): Promise<BuiltIndex> {
    throw new CairnError('NotSupported', 'not supported: building an index');
  }

  /** Opens an index file that `build` wrote; ObjectDamaged when it is not one. */
  async open(_path: string): Promise<OpenIndex> {
    throw new CairnError('NotSupported', 'not supported: opening an index');
  }

  /** Best rows by the index, filtered. */
  async search(_index: OpenIndex, _query: IndexQuery): Promise<IndexHits> {
    throw new CairnError('NotSupported', 'not supported: searching an index');
  }

  /** Best rows by looking at every one that the filter lets through. */
  async exact(_query: ExactQuery): Promise<IndexHits> {
    throw new CairnError('NotSupported', 'not supported: exact search');
  }

  /** Closes an index file in every worker. */
  async release(_path: string): Promise<void> {}
}

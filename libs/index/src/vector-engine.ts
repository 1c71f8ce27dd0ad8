import { type CodeColumn, type CodeScanTask, codeColumn, scanCodes } from './code-scan.ts';
import { searchExact } from './exact-search.ts';
import { type BuildTask, buildIndexFile, OpenGraphs } from './graph-index.ts';
import { type GraphTask, searchGraph } from './graph-search.ts';
import type { IndexTrailer } from './index-file.ts';
import { buildScalarFile, type ScalarBuildTask } from './scalar-build.ts';
import type { DenseVectors, ExactTask, GraphCodes, IndexHits } from './search-types.ts';

/** One piece of vector work, as it travels to a worker. */
export type EngineTask =
  | ({ readonly op: 'exact' } & ExactTask)
  | ({ readonly op: 'graph' } & GraphTask)
  | { readonly op: 'codes'; readonly vectors: DenseVectors; readonly codes: GraphCodes }
  | ({ readonly op: 'codeScan' } & CodeScanTask)
  | ({ readonly op: 'build' } & BuildTask)
  | ({ readonly op: 'buildScalar' } & ScalarBuildTask)
  | { readonly op: 'release'; readonly path: string };

export interface EngineResult {
  readonly hits?: IndexHits;
  /** Search of a graph or of codes: queries that want an exact search. */
  readonly unfinished?: readonly number[];
  readonly column?: CodeColumn;
  readonly trailer?: IndexTrailer;
  readonly released?: boolean;
}

/** Does the work, in whatever thread it lives: a worker's, or the main one under simulation. */
export class VectorEngine {
  readonly #graphs: OpenGraphs;

  constructor(openLimit: number) {
    this.#graphs = new OpenGraphs(openLimit);
  }

  /** Searches now, in the caller's turn. */
  graph(task: GraphTask): EngineResult {
    const { unfinished, ...hits } = searchGraph(this.#graphs, task);
    return { hits, unfinished };
  }

  exact(task: ExactTask): EngineResult {
    return { hits: searchExact(task) };
  }

  codeScan(task: CodeScanTask): EngineResult {
    const { unfinished, ...hits } = scanCodes(task);
    return { hits, unfinished };
  }

  async run(task: EngineTask): Promise<EngineResult> {
    switch (task.op) {
      case 'exact':
        return this.exact(task);
      case 'graph':
        return this.graph(task);
      case 'codes':
        return { column: codeColumn(task.vectors, task.codes) };
      case 'codeScan':
        return this.codeScan(task);
      case 'build':
        return { trailer: buildIndexFile(task) };
      case 'buildScalar':
        return { trailer: buildScalarFile(task) };
      case 'release':
        return { released: this.#graphs.close(task.path) };
    }
  }
}

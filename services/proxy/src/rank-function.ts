import { CairnError } from '@cairn/base';
import { type FunctionScore, FunctionType } from '@cairn/proto/milvus/schema';
import { notSupported } from './status.ts';

/** One function of a function score. */
export interface RankFunction {
  /** `rrf`, `weighted`, `decay`, `boost`, …; empty: not named. */
  readonly reranker: string;
  /** Names of fields. */
  readonly inputs: readonly string[];
  /** By names in lower case. */
  readonly params: ReadonlyMap<string, string>;
}

/** The functions of a function score, one at least; several are boosts only. */
export function rankFunctions(score: FunctionScore, rpc: string): readonly [RankFunction, ...RankFunction[]] {
  const [first, ...others] = score.functions.map((one): RankFunction => {
    if (one.type !== FunctionType.Rerank)
      throw new CairnError('InvalidParameter', `function ${one.name} of a ${rpc} is of type ${one.type}, only rerank functions rank hits`);
    const params = new Map(one.params.map(({ key, value }) => [key.toLowerCase(), value]));
    return { reranker: (params.get('reranker') ?? '').toLowerCase(), inputs: one.inputFieldNames, params };
  });
  if (!first) throw new CairnError('InvalidParameter', `function_score of a ${rpc} has no function`);
  const other = [first, ...others].find(({ reranker }) => reranker !== 'boost');
  if (other && others.length > 0)
    throw notSupported(
      `function_score of ${score.functions.length} functions, ${other.reranker || 'one without a name'} among them, in ${rpc}`,
    );
  return [first, ...others];
}

import { Status } from '@cairn/proto/milvus/common';
import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import type { CallContext, Handlers, MethodDefinition } from '@cairn/rpc';
import { decodeInsertRequest, decodeUpsertRequest } from './codec/mutation-request.ts';
import { encodeQueryReply, encodeSearchReply, type QueryReply, type SearchReply } from './codec/results.ts';
import { decodeSearchRequest } from './codec/search-request.ts';
import type { RequestContext } from './request-context.ts';

/** Hand-made (de)serialisers of the messages that carry columns. */
export const milvusCodecs = {
  insert: { decodeRequest: decodeInsertRequest },
  upsert: { decodeRequest: decodeUpsertRequest },
  search: { decodeRequest: decodeSearchRequest, encodeResponse: encodeSearchReply },
  hybridSearch: { encodeResponse: encodeSearchReply },
  query: { encodeResponse: encodeQueryReply },
};

export type MilvusHandlers = Handlers<MilvusServiceDefinition, typeof milvusCodecs>;
export type MilvusMethod = keyof MilvusHandlers;
type UnaryHandler<K extends MilvusMethod> = MilvusHandlers[K] extends (request: infer Q, context: CallContext) => Promise<infer R>
  ? (request: Q, context: RequestContext) => Promise<R>
  : never;

/** Handlers of some methods: they answer success, or throw a CairnError that becomes the Status of the reply. */
export type Area<K extends MilvusMethod> = { readonly [M in K]: UnaryHandler<M> };

/** The reply of a method that failed: its Status where the method's reply has it, everything else empty. */
export function failureReply(method: MethodDefinition, status: Status): unknown {
  if (method.name === 'Search' || method.name === 'HybridSearch') {
    return { status, results: undefined, collectionName: '', sessionTs: 0n } satisfies SearchReply;
  }
  if (method.name === 'Query') {
    return { status, fields: [], collectionName: '', outputFields: [], sessionTs: 0n, primaryFieldName: '' } satisfies QueryReply;
  }
  const type: unknown = method.responseType;
  if (type === Status) return status;
  return (type as { fromPartial(partial: { status: Status }): unknown }).fromPartial({ status });
}

/** Left out on purpose, so that gRPC's own UNIMPLEMENTED is the answer: pymilvus falls back to AddCollectionField on it. */
export const RAW_UNIMPLEMENTED: ReadonlySet<string> = new Set(['alterCollectionSchema', 'createReplicateStream']);

export const milvusMethods: Readonly<Record<string, MethodDefinition>> = MilvusServiceDefinition.methods;

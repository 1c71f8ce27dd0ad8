import { CairnError } from '@cairn/base';
import { SearchRequest } from '@cairn/proto/milvus/milvus';
import { WireReader } from './wire-reader.ts';

/** Parts of a search that are not built, by their field numbers: to leave them out silently would answer another question. */
const UNSUPPORTED: Readonly<Record<number, string>> = { 21: 'highlighter', 23: 'search_aggregation', 24: 'function_chains' };

/** The generated decoder copies no bytes (the placeholder group is a view); in front of it stands the look at what is not built. */
export function decodeSearchRequest(bytes: Uint8Array): SearchRequest {
  const reader = new WireReader(bytes);
  reader.fields((field, wire) => {
    if (UNSUPPORTED[field]) throw new CairnError('NotSupported', `not supported: ${UNSUPPORTED[field]} in Search`);
    reader.skip(wire);
  });
  return SearchRequest.decode(bytes);
}

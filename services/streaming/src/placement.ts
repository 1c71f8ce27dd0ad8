import { checksum } from '@cairn/base';

/** One life of a datanode: a process that starts again under the same id is another instance, and empty. */
export interface DataNodeInstance {
  /** Id and the revision of its registration. */
  readonly key: string;
  readonly nodeId: string;
  readonly address: string;
}

const encoder = new TextEncoder();

/**
 * Rendezvous hashing: the node with the largest hash of (segment, node) serves the segment. Every owner picks the same node for itself, and only
 * the segments of a node that comes or goes move. undefined: no node lives.
 */
export function placeSegment(segmentId: number, nodes: readonly DataNodeInstance[]): DataNodeInstance | undefined {
  let best: DataNodeInstance | undefined;
  let bestScore = -1;
  for (const node of nodes) {
    const score = mix(checksum(encoder.encode(`${segmentId}/${node.nodeId}`)));
    if (score > bestScore || (score === bestScore && best !== undefined && node.nodeId > best.nodeId)) {
      best = node;
      bestScore = score;
    }
  }
  return best;
}

/** A CRC is linear, so that two nodes would differ by a constant; this spreads it. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

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

/** Places segments, each once for as long as the nodes are the same. */
export class Placement {
  #nodes: readonly DataNodeInstance[] = [];
  readonly #places = new Map<number, DataNodeInstance>();

  /** As `placeSegment` says. */
  of(segmentId: number, nodes: readonly DataNodeInstance[]): DataNodeInstance | undefined {
    if (nodes.length !== this.#nodes.length || nodes.some((node, i) => node.key !== this.#nodes[i]?.key)) {
      this.#nodes = [...nodes];
      this.#places.clear();
    }
    const known = this.#places.get(segmentId);
    if (known) return known;
    const node = placeSegment(segmentId, nodes);
    if (node) this.#places.set(segmentId, node);
    return node;
  }

  forget(segmentId: number): void {
    this.#places.delete(segmentId);
  }
}

/** A CRC is linear, so that two nodes would differ by a constant; this spreads it. */
function mix(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

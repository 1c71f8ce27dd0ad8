/** A streaming node as the balance sees it. */
export interface BalancedNode {
  readonly id: string;
  /** It will end and wants to be rid of its channels. */
  readonly draining: boolean;
  /** Channels that it owns. */
  readonly channels: readonly string[];
}

/** A channel that should leave its living owner; to whom is decided when it is free. */
export interface Move {
  readonly channel: string;
  readonly from: string;
}

/**
 * What to move next between living nodes. First everything off nodes that drain; then, when `settled`, one channel from the fullest node to the
 * emptiest while they differ by two or more: so few move, and none moves back. Channels in `held` stay. Nothing without a node to take it.
 */
export function nextMove(nodes: readonly BalancedNode[], held: ReadonlySet<string>, settled: boolean): Move | undefined {
  const staying = nodes.filter((node) => !node.draining);
  if (staying.length === 0) return undefined;
  const free = ({ channels }: BalancedNode): string | undefined => [...channels].sort().findLast((channel) => !held.has(channel));
  for (const node of nodes) {
    const channel = node.draining ? free(node) : undefined;
    if (channel !== undefined) return { channel, from: node.id };
  }
  if (!settled) return undefined;
  const least = Math.min(...staying.map((node) => node.channels.length));
  const byLoad = staying.filter((node) => node.channels.length >= least + 2).sort((a, b) => b.channels.length - a.channels.length);
  for (const node of byLoad) {
    const channel = free(node);
    if (channel !== undefined) return { channel, from: node.id };
  }
  return undefined;
}

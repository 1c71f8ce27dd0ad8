import type { Command } from 'commander';
import { bytes, print, printOne } from '../output.ts';
import { withSession } from '../session.ts';

export function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description('who lives, who leads, who owns which channel, and how far behind each shard is')
    .action(async (_options: unknown, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.admin.getStatus({}, session.options);
        const cluster = reply.cluster;
        const nodes = (cluster?.nodes ?? []).map((node) => ({
          node: node.id,
          role: node.role,
          address: node.address,
          leads: node.role === 'datacoord' && node.id === cluster?.leader?.nodeId,
          channels: (cluster?.channels ?? [])
            .filter((channel) => node.role === 'streaming' && channel.nodeId === node.id)
            .map((channel) => `${channel.channel} (epoch ${channel.epoch})`),
        }));
        const shards = reply.shards.map((shard) => ({
          shard: shard.vchannel,
          sealed_rows: shard.sealedRows,
          growing_rows: shard.growingRows,
          growing: bytes(shard.growingBytes),
          loaded: shard.loaded,
          unflushed_records: Math.max(0, shard.tail - shard.checkpoint),
          segments: shard.holders.length,
        }));
        if (session.format !== 'table')
          return printOne(session.format, {
            version: reply.cairnVersion,
            milvus: reply.version,
            nodes: JSON.stringify(nodes),
            shards: JSON.stringify(shards),
            certificate_key: cluster?.certificateKey ?? '',
          });
        console.log(`Cairn ${reply.cairnVersion} (serves clients of Milvus ${reply.version})\n`);
        print('table', nodes);
        console.log('');
        print('table', shards);
        console.log(`\ncertificates are signed by ${cluster?.certificateKey || 'nobody'}`);
      }),
    );
}

import { LoadState } from '@cairn/proto/milvus/common';
import {
  DescribeCollectionRequest,
  GetLoadStateRequest,
  ManualCompactionRequest,
  QueryRequest,
  ShowCollectionsRequest,
  ShowType,
} from '@cairn/proto/milvus/milvus';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import type { Command } from 'commander';
import { compactionRow, compactionState, watchCompaction } from '../compaction-progress.ts';
import { print, printOne } from '../output.ts';
import { CommandError, EXIT, must, withSession } from '../session.ts';

const typeNames = new Map<number, string>(Object.entries(DataType).map(([name, value]) => [value, name]));

const loadStates: Readonly<Partial<Record<LoadState, string>>> = {
  [LoadState.LoadStateLoaded]: 'yes',
  [LoadState.LoadStateLoading]: 'loading',
};

export function addCollectionCommands(program: Command): void {
  const collection = program.command('collection').description('collections of a database');

  collection
    .command('list')
    .description('collections, and whether they are loaded')
    .action(async (_options: unknown, command: Command) =>
      withSession(command, async (session) => {
        const show = (type: ShowType) =>
          session.milvus.showCollections(ShowCollectionsRequest.fromPartial({ dbName: session.database, type }), session.options);
        const [all, loaded] = await Promise.all([show(ShowType.All), show(ShowType.InMemory)]);
        must(all.status);
        must(loaded.status);
        const percent = new Map(loaded.collectionNames.map((name, i) => [name, Number(loaded.inMemoryPercentages[i] ?? 0)]));
        print(
          session.format,
          all.collectionNames.map((name, i) => ({
            name,
            id: String(all.collectionIds[i] ?? ''),
            loaded: percent.has(name) ? `${percent.get(name)} %` : 'no',
          })),
        );
      }),
    );

  collection
    .command('describe')
    .description('schema, shards and properties')
    .argument('<name>', 'collection or alias')
    .action(async (name: string, _options: unknown, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.milvus.describeCollection(
          DescribeCollectionRequest.fromPartial({ dbName: session.database, collectionName: name }),
          session.options,
        );
        must(reply.status);
        const load = await session.milvus.getLoadState(
          GetLoadStateRequest.fromPartial({ dbName: session.database, collectionName: name }),
          session.options,
        );
        const schema = CollectionSchema.fromPartial(reply.schema ?? {});
        const fields = schema.fields.map((field) => {
          const params = field.typeParams.map((pair) => `${pair.key}=${pair.value}`).join(' ');
          const marks = [field.isPrimaryKey ? 'primary key' : '', field.autoID ? 'auto id' : '', field.nullable ? 'nullable' : ''].filter(
            Boolean,
          );
          return `${field.name} ${typeNames.get(field.dataType) ?? field.dataType} ${params} ${marks.join(', ')}`
            .trim()
            .replaceAll(/ +/g, ' ');
        });
        printOne(session.format, {
          name: reply.collectionName,
          id: String(reply.collectionID),
          database: reply.dbName,
          shards: reply.shardsNum,
          loaded: loadStates[load.state] ?? 'no',
          load_failure: (load.status?.code ?? 0) === 0 ? null : (load.status?.reason ?? ''),
          dynamic_field: schema.enableDynamicField,
          aliases: reply.aliases,
          fields,
          properties: reply.properties.map((pair) => `${pair.key}=${pair.value}`),
        });
      }),
    );

  collection
    .command('count')
    .description('rows that are visible now (the collection must be loaded)')
    .argument('<name>', 'collection or alias')
    .option('-f, --filter <expression>', 'count only rows that match', '')
    .action(async (name: string, options: { filter: string }, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.milvus.query(
          QueryRequest.fromPartial({ dbName: session.database, collectionName: name, expr: options.filter, outputFields: ['count(*)'] }),
          session.options,
        );
        must(reply.status);
        const field = reply.fieldsData[0]?.field;
        const data = field?.$case === 'scalars' ? field.value.data : undefined;
        printOne(session.format, { count: data?.$case === 'longData' ? Number(data.value.data[0] ?? 0n) : 0 });
      }),
    );

  collection
    .command('compact')
    .description('merge small segments and purge deleted rows now')
    .argument('<name>', 'collection or alias')
    .option('-w, --wait', 'wait until every plan has ended, with a progress bar')
    .option('--target-size <MiB>', 'size of the segments to be made; default: the configured one', '0')
    .addHelpText('after', '\nExample:\n  cairn collection compact packages --wait')
    .action(async (name: string, options: { wait?: boolean; targetSize: string }, command: Command) =>
      withSession(command, async (session) => {
        const reply = await session.milvus.manualCompaction(
          ManualCompactionRequest.fromPartial({
            dbName: session.database,
            collectionName: name,
            targetSize: BigInt(Math.trunc(Number(options.targetSize)) || 0),
          }),
          session.options,
        );
        must(reply.status);
        if (options.wait) await watchCompaction(session, reply.compactionID);
        else printOne(session.format, { compaction_id: String(reply.compactionID), plans: reply.compactionPlanCount });
      }),
    );

  collection
    .command('compaction')
    .description('how a compaction that was asked for stands')
    .argument('<id>', 'as `compact` printed it')
    .option('-w, --wait', 'wait until every plan has ended')
    .action(async (id: string, options: { wait?: boolean }, command: Command) =>
      withSession(command, async (session) => {
        if (!/^\d+$/.test(id)) throw new CommandError(`a compaction id is a number, not '${id}'`, EXIT.usage);
        if (options.wait) await watchCompaction(session, BigInt(id));
        else printOne(session.format, compactionRow(await compactionState(session, BigInt(id))));
      }),
    );
}

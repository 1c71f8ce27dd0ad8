/**
 * Suites against an installed release: node tests/k8s/main.ts SUITE. The script tests/scripts/e2e-k8s.sh installs it and calls this.
 *
 *   smoke     `helm test` and a round trip from here
 *   sdk       the example of the README, unchanged, through the Service
 *   snapshot  a seeded workload of writes, deletes, flushes, snapshots and restores; every snapshot exact, also after a rolling restart
 *   life      a steady writer and reader while roles are scaled up and down, a volume is lost, and all pods are replaced: nothing refused
 *   chaos     the same while pods, stores and nodes are hurt; after each fault exact contents and jobs in an end state
 *
 * E2E_UPGRADE: an image to which `life` upgrades in the end. E2E_NAMESPACE, E2E_RELEASE, E2E_CYCLES (chaos), E2E_CUT_MS, E2E_SEED, E2E_STEPS (snapshot); CAIRN_K8S_TOOLS: directory with node.sh.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeProblems, type Problem, seeded, Workload } from '../support/workload.ts';
import { type Fault, faultPlan, loseVolume, rollingUpgrade, scale, upgradeTo } from './faults.ts';
import { Release, ROLES } from './release.ts';
import { SteadyReader } from './steady-reader.ts';
import { SteadyWriter } from './steady-writer.ts';

const root = join(import.meta.dirname, '../..');
const env = process.env;
const tools = env['CAIRN_K8S_TOOLS'] ?? '';
const release = new Release(
  env['E2E_NAMESPACE'] ?? 'cairn',
  env['E2E_RELEASE'] ?? 'cairn',
  existsSync(join(tools, 'node.sh')) ? tools : '',
);
const seed = Number(env['E2E_SEED'] ?? 1);
const RECOVERY_MS = 90_000;
const SETTLE_MS = 6_000;
/** What a fault leaves to be verified is kept in bounds: verifying is most of a cycle's time. */
const OPEN_RESTORES = 4;
const STEP_PAUSE_MS = 100;

function say(text: string): void {
  console.log(`${new Date().toISOString().slice(11, 19)} ${text}`);
}

function program(command: string, args: readonly string[], more: Readonly<Record<string, string>> = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: 'inherit', env: { ...env, ...more } });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${command} ${args[0]} ended with ${code}`))));
  });
}

async function eventually<T>(what: string, work: () => Promise<T>): Promise<T> {
  const until = performance.now() + RECOVERY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until)
        throw new Error(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
      await sleep(300);
    }
  }
}

function exact(where: string, problems: readonly Problem[]): void {
  if (problems.length > 0) throw new Error(`${where}:\n${describeProblems(problems)}`);
}

/** Where clients connect; while a node is hurt, a proxy that stands elsewhere. */
async function clientAddress(without?: string): Promise<string> {
  if (without === undefined) return release.address();
  // One that is not ready just now may be so in a moment; one on the hurt node will not.
  const proxies = (await release.pods('proxy')).filter(({ node, ip }) => ip !== '' && node !== without);
  const proxy = proxies.find(({ ready }) => ready) ?? proxies[0];
  if (!proxy) throw new Error(`no proxy stands outside of ${without}`);
  return `${proxy.ip}:19530`;
}

/** Whole seconds, as the API counts. */
async function sayStarts(): Promise<void> {
  for (const role of ROLES) {
    const waits = (await release.pods(role)).map(({ startedMs, readyMs }) => (readyMs - startedMs) / 1000);
    say(`${role}: ready ${waits.join(' and ')} s after its container had started`);
  }
}

/** Node keeps compiled code by user and by flags, and says nothing when it takes none: that costs a pod a second and more of its start. */
async function compiledCodeIsTaken(): Promise<void> {
  const command = `const { stdout, stderr } = require('node:child_process').spawnSync(process.execPath, ['/app/bundle/main.js', 'config', 'show'],
    { encoding: 'utf8', env: { ...process.env, NODE_DEBUG_NATIVE: 'COMPILE_CACHE' } }); console.log(stdout + stderr)`;
  const words = await release.kubectl('exec', `deploy/${release.named('proxy')}`, '--', '/app/bin/node', '-e', command);
  const refused = words.split('\n').find((line) => /was rejected|no such file|Cannot create/.test(line));
  if (refused !== undefined || !words.includes('was accepted'))
    throw new Error(`compiled code of the image is not taken: ${refused ?? 'none'}`);
}

async function smoke(): Promise<void> {
  await sayStarts();
  await compiledCodeIsTaken();
  await program('helm', ['-n', release.namespace, 'test', release.name, '--logs']);
  await program(process.execPath, [join(root, 'deploy/docker/round-trip.ts')], { CAIRN_ADDRESS: await release.address() });
}

async function sdk(): Promise<void> {
  await program(process.execPath, [join(root, 'examples/packages/main.ts')], { CAIRN_ADDRESS: await release.address() });
}

/** A steady writer and a steady reader while `work` runs: nothing refused, nothing lost, nothing answered wrongly. */
async function underLoad(
  what: string,
  work: (writer: SteadyWriter, reader: SteadyReader) => Promise<void>,
  address: () => Promise<string>,
): Promise<void> {
  const name = `steady_${Date.now()}`;
  const writer = new SteadyWriter(address, name);
  const reader = new SteadyReader(address, name);
  await writer.start();
  await sleep(500);
  await reader.start();
  let failure: unknown;
  await sleep(1000);
  writer.takeWorst();
  reader.takeWorst();
  await work(writer, reader).catch((error: unknown) => {
    failure = error;
  });
  await sleep(1000);
  const worst = writer.takeWorst();
  const worstRead = reader.takeWorst();
  const reads = await reader.stop();
  const report = await eventually('steady writer', () => writer.stop());
  say(
    `${what}: ${report.sent} rows sent, ${report.acknowledged} acknowledged, longest wait ${worst} ms, ${report.refused.length} refused, ${report.wrong} lost or doubled`,
  );
  say(
    `${what}: ${reads.asked} reads, ${reads.answered} answered, longest wait ${worstRead} ms, ${reads.refused.length} refused, ${reads.wrong.length} wrong`,
  );
  for (const words of new Set([...reads.refused, ...reads.wrong])) say(`  reads: ${words}`);
  for (const [words, count] of report.retried) say(`  tried again ${count} times: ${words}`);
  for (const words of new Set(report.refused)) say(`  refused: ${words}`);
  if (failure !== undefined) throw failure;
  if (report.wrong > 0) throw new Error(`${what}: ${report.wrong} acknowledged rows are lost or doubled`);
  if (report.refused.length > 0) throw new Error(`${what}: ${report.refused.length} writes were refused for good`);
  if (reads.refused.length + reads.wrong.length > 0)
    throw new Error(`${what}: ${reads.refused.length} reads were refused for good, ${reads.wrong.length} answered wrongly`);
}

async function snapshot(): Promise<void> {
  const workload = new Workload({ address: await release.address(), collection: `snapshots_${Date.now()}`, seed });
  try {
    await workload.prepare();
    const steps = Number(env['E2E_STEPS'] ?? 120);
    for (let i = 0; i < steps; i++) await workload.step();
    exact('contents', await workload.checkCollection());
    exact('restores', await workload.checkRestores());
    say(`${workload.snapshots.length} snapshots after ${steps} operations; restoring the last five`);
    exact('snapshots', await workload.checkSnapshots(5));
    await underLoad(
      'rolling restart of all roles',
      () => rollingUpgrade(release).run(),
      () => release.address(),
    );
    await workload.reconnect(await release.address());
    exact('contents after the restart', await eventually('contents', () => workload.checkCollection()));
    exact('snapshots after the restart', await workload.checkSnapshots(5));
  } finally {
    await workload.close();
  }
}

async function life(): Promise<void> {
  const random = seeded(seed);
  const plan: (() => Promise<Fault>)[] = [
    async () => scale(release, 'streaming', 3),
    async () => scale(release, 'streaming', 2),
    async () => scale(release, 'datanode', 3),
    async () => scale(release, 'datanode', 2),
    () => loseVolume(release, random),
    async () => rollingUpgrade(release),
    ...(env['E2E_UPGRADE'] ? [async () => upgradeTo(release, env['E2E_UPGRADE'] ?? '')] : []),
  ];
  await underLoad(
    'all of it',
    async (writer, reader) => {
      for (const make of plan) {
        const fault = await make();
        writer.takeWorst();
        reader.takeWorst();
        await fault.run();
        await sleep(SETTLE_MS);
        say(`${fault.name}: longest wait of a write ${writer.takeWorst()} ms, of a read ${reader.takeWorst()} ms`);
      }
    },
    () => release.address(),
  );
  // Their stores were there: the figure of a start.
  await sayStarts();
}

interface Figure {
  readonly fault: string;
  readonly worstMs: number;
  readonly reachMs: number | undefined;
}

async function chaosCycle(cycle: number, fault: Fault, workload: Workload, writer: SteadyWriter): Promise<Figure> {
  let over = false;
  const hurt = fault.run().finally(() => {
    over = true;
  });
  while (!over) {
    await Promise.race([workload.step(), hurt]);
    await sleep(STEP_PAUSE_MS);
  }
  await hurt;
  // What was sent during the fault is still tried again.
  await sleep(SETTLE_MS);
  const worstMs = writer.takeWorst();
  await workload.reconnect(await eventually('address', () => release.address()));
  const where = `cycle ${cycle}, ${fault.name}`;
  exact(where, await eventually(`${where}: contents`, () => workload.checkCollection()));
  exact(where, await eventually(`${where}: restores`, () => workload.checkRestores()));
  exact(where, await workload.checkSnapshots(2));
  return { fault: fault.name, worstMs, reachMs: fault.reachMs };
}

async function chaos(): Promise<void> {
  const cycles = Number(env['E2E_CYCLES'] ?? 24);
  const random = seeded(seed);
  let without: string | undefined;
  const address = () => clientAddress(without);
  const workload = new Workload({
    address: await release.address(),
    collection: `chaos_${Date.now()}`,
    seed: seed + 100,
    keys: 4000,
    openRestores: OPEN_RESTORES,
  });
  const figures: Figure[] = [];
  const started = performance.now();
  try {
    await workload.prepare();
    for (let i = 0; i < 20; i++) await workload.step();
    const plan = faultPlan(release, random, { cutMs: Number(env['E2E_CUT_MS'] ?? 60_000) });
    const only = env['E2E_FAULTS']?.split(',').map(Number);
    await underLoad(
      `${cycles} cycles`,
      async (writer, reader) => {
        for (let cycle = 0; cycle < cycles; cycle++) {
          const make = plan[only ? (only[cycle % only.length] ?? 0) : cycle % plan.length];
          if (!make) throw new Error(`there is no fault ${cycle}`);
          const fault = await eventually('fault', make);
          without = fault.node;
          const target = await address();
          await writer.reconnect();
          await reader.reconnect();
          await workload.reconnect(target);
          await sleep(500);
          writer.takeWorst();
          reader.takeWorst();
          const figure = await chaosCycle(cycle, fault, workload, writer);
          without = undefined;
          figures.push(figure);
          say(
            `cycle ${cycle + 1} of ${cycles}: ${fault.name}: exact; longest wait of a write ${figure.worstMs} ms, of a read ${reader.takeWorst()} ms`,
          );
        }
      },
      address,
    );
    exact('targets', await eventually('targets', () => workload.settleTargets()));
    exact('snapshots', await workload.checkSnapshots(10));
  } finally {
    await workload.close();
    say(`${figures.length} of ${cycles} cycles in ${Math.round((performance.now() - started) / 1000)} s`);
    for (const { fault, worstMs, reachMs } of figures)
      console.log(
        `${fault.padEnd(60)} ${String(worstMs).padStart(7)} ms${reachMs !== undefined && worstMs > reachMs ? `  MORE than ${reachMs} ms` : ''}`,
      );
  }
}

const suites: Readonly<Record<string, () => Promise<void>>> = { smoke, sdk, snapshot, life, chaos };
const wanted = process.argv[2] ?? 'smoke';
const suite = suites[wanted];
if (!suite) {
  console.error(`unknown suite '${wanted}'; there are: ${Object.keys(suites).join(', ')}`);
  process.exit(2);
}
try {
  await suite();
  say(`suite ${wanted}: passed`);
} catch (error) {
  say(`suite ${wanted}: FAILED: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
} finally {
  release.close();
}
process.exit();

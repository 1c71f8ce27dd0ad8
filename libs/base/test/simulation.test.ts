import { expect, test } from 'vitest';
import { Simulation } from '../src/simulation.ts';

async function trace(seed: number): Promise<string[]> {
  const simulation = new Simulation(seed);
  const lines: string[] = [];
  const worker = async (name: string): Promise<void> => {
    const runtime = simulation.instance(name);
    for (let i = 0; i < 5; i++) {
      await runtime.sleep(Math.floor(runtime.random() * 3));
      lines.push(`${runtime.monotonic()} ${name}`);
    }
  };
  await simulation.run(Promise.all(['a', 'b', 'c'].map(worker)), 1000);
  return lines;
}

test('a seed replays exactly, another seed runs otherwise', async () => {
  expect(await trace(7)).toEqual(await trace(7));
  expect(await trace(7)).not.toEqual(await trace(8));
});

test('virtual time passes without waiting, in order', async () => {
  const simulation = new Simulation(1);
  const order: number[] = [];
  for (const delay of [3_600_000, 5, 60_000]) simulation.schedule(delay, () => order.push(delay));
  await simulation.run(simulation.instance('a').sleep(4_000_000), 5_000_000);
  expect(order).toEqual([5, 60_000, 3_600_000]);
  expect(simulation.nowMs).toBe(4_000_000);
});

test('a crashed instance never hears again of what it awaited', async () => {
  const simulation = new Simulation(1);
  const victim = simulation.instance('victim');
  let heard = false;
  victim.sleep(10).then(() => {
    heard = true;
  });
  victim.seam(Promise.resolve()).then(() => {
    heard = true;
  });
  victim.crash();
  await simulation.run(simulation.instance('other').sleep(100), 1000);
  expect(heard).toBe(false);
});

test('a run that hangs is told apart from one that ends', async () => {
  await expect(new Simulation(3).run(new Promise(() => undefined), 1000)).rejects.toThrow('nothing is left to happen');
  const simulation = new Simulation(3);
  const runtime = simulation.instance('a');
  const forever = async (): Promise<void> => {
    for (;;) await runtime.sleep(10);
  };
  await expect(simulation.run(forever(), 1000)).rejects.toThrow('not ended after 1000 virtual ms');
});

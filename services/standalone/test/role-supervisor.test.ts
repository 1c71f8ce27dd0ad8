import { silentLogger } from '@cairn/base';
import { Simulation } from '@cairn/base/simulation';
import { expect, test } from 'vitest';
import { RoleSupervisor, type SteppingService } from '../src/role-supervisor.ts';

class FakeService implements SteppingService {
  readonly name = 'fake';
  readonly #lost = new AbortController();
  readonly lost = this.#lost.signal;
  stopped = false;
  readonly fails: boolean;

  constructor(fails: boolean) {
    this.fails = fails;
  }

  async start(): Promise<void> {
    if (this.fails) throw new Error('not yet');
  }

  async stop(): Promise<void> {
    this.stopped = true;
  }

  lose(): void {
    this.#lost.abort(new Error('the lease ran out'));
  }
}

test('a service that lost its lease is stopped and replaced, through failures to start', async () => {
  const simulation = new Simulation(1);
  const runtime = simulation.instance('process');
  const made: FakeService[] = [];
  const supervisor = new RoleSupervisor('fake', runtime, silentLogger, () => {
    const service = new FakeService(made.length === 1 || made.length === 2);
    made.push(service);
    return service;
  });
  await simulation.run(
    (async () => {
      await supervisor.start();
      expect(supervisor.current).toBe(made[0]);
      made[0]?.lose();
      await runtime.sleep(5_000);
      expect(made[0]?.stopped).toBe(true);
      expect(made.length).toBe(4);
      expect(supervisor.current).toBe(made[3]);
      // What had begun to start goes on until it is stopped: its registration would keep the next one out.
      expect(made.slice(0, 3).every((service) => service.stopped)).toBe(true);
      await supervisor.stop();
      expect(made[3]?.stopped).toBe(true);
    })(),
    60_000,
  );
});

test('a service is reached until it has stopped: it may need to be asked for what it hands over', async () => {
  const supervisor = new RoleSupervisor('fake', new Simulation(1).instance('process'), silentLogger, () => new FakeService(false));
  await supervisor.start();
  const service = supervisor.current;
  if (!service) throw new Error('nothing was started');
  let served: unknown;
  service.stop = async () => {
    served = supervisor.current;
  };
  await supervisor.stop();
  expect(served).toBe(service);
  expect(supervisor.current).toBeUndefined();
});

test('the first failure to start is told to the caller', async () => {
  const supervisor = new RoleSupervisor('fake', new Simulation(1).instance('process'), silentLogger, () => new FakeService(true));
  await expect(supervisor.start()).rejects.toThrow('not yet');
});

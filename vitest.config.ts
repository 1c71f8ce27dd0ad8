import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/**
 * Files that take long, and seconds they took alone on two cores: they start first, the longest at once, so that none of them ends alone. All others
 * come after, in Vitest's own order.
 */
const LONG = new Map([
  ['tests/sim/sim.test.ts', 220],
  ['tests/chaos/cluster-kill.test.ts', 150],
  ['tests/chaos/standalone-kill.test.ts', 110],
  ['tests/sim/races.test.ts', 90],
  ['tests/e2e/rewrite.test.ts', 65],
  ['tests/e2e/races.test.ts', 60],
  ['tests/e2e/restore-matrix.test.ts', 50],
  ['tests/e2e/example.test.ts', 45],
  ['libs/query/test/index-answers.test.ts', 35],
  ['tests/e2e/snapshot-proof.test.ts', 35],
  ['tests/e2e/compaction.test.ts', 35],
  ['libs/wal/test/jetstream-wal.test.ts', 30],
]);

class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const secondsOf = ({ moduleId }: TestSpecification): number => LONG.get(moduleId.slice(this.ctx.config.root.length + 1)) ?? 0;
    return (await super.sort(files)).sort((a, b) => secondsOf(b) - secondsOf(a));
  }
}

// biome-ignore lint/style/noDefaultExport: vitest reads the default export.
export default defineConfig({
  test: {
    // Clients that look at it are as quiet as in a user's application.
    env: { NODE_ENV: 'production' },
    pool: 'forks',
    // Two cores and much waiting: for leases that run out, for servers that start.
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 20_000,
    sequence: { sequencer: LongFirst },
    projects: [
      // Rooms share workers: starting one for each file, and loading the house anew, took as long as half of their tests.
      {
        extends: true,
        test: {
          name: 'rooms',
          include: ['libs/*/test/**/*.test.ts', 'services/*/test/**/*.test.ts', 'tools/*/test/**/*.test.ts'],
          isolate: false,
        },
      },
      { extends: true, test: { name: 'house', include: ['tests/**/*.test.ts'] } },
    ],
  },
});

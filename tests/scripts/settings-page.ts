/**
 * Writes docs/settings.md from the table of settings. `node tests/scripts/settings-page.ts`; a test compares the page.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describeConfig, loadConfig } from '@cairn/base';

const UNITS: readonly (readonly [number, string])[] = [
  [3_600_000, 'h'],
  [60_000, 'm'],
  [1000, 's'],
];

/** A default as people read it: `3h`, `256MiB`; the setting takes it in that form too. */
function readable(value: string, expects: string): string {
  if (value === '') return 'empty';
  const number = Number(value);
  if (expects.startsWith('milliseconds') && number > 0) {
    const [unit, name] = UNITS.find(([each]) => number % each === 0) ?? [1, 'ms'];
    return `${number / unit}${name}`;
  }
  if (expects.startsWith('bytes') && number > 0) {
    if (number % 2 ** 20 === 0) return `${number / 2 ** 20}MiB`;
    if (number % 2 ** 10 === 0) return `${number / 2 ** 10}KiB`;
  }
  return value;
}

const cell = (text: string): string => text.replaceAll('|', '\\|');

/** The page as it should be. */
export function settingsPage(): string {
  const lines = describeConfig(loadConfig({ env: {} }));
  const sections = Map.groupBy(lines, (line) => line.path.split('.')[0]);
  const parts = [...sections].map(([name, of]) => {
    const rows = of.map(
      (line) => `| \`${line.path}\` | ${cell(readable(String(line.default), line.expects))} | ${cell(line.doc)} | ${cell(line.expects)} |`,
    );
    return [`## ${name}`, '', '| setting | default | what | expects |', '|---|---|---|---|', ...rows].join('\n');
  });
  return `# Settings

Three ways to give one, the later wins: a YAML file (\`cairn server ROLE --config FILE\`), the environment (\`compaction.ttlGraceMs\` is \`CAIRN_COMPACTION_TTL_GRACE_MS\`),
\`--set compaction.ttlGraceMs=2h\`. A name that is not known is an error that suggests the nearest. \`cairn config show\` prints each setting with its value and where that came from.
Defaults are those of one embedded process; the Helm chart and \`make cluster\` set what a cluster needs. This page is written by \`tests/scripts/settings-page.ts\`.

${parts.join('\n\n')}
`;
}

if (import.meta.main) writeFileSync(join(import.meta.dirname, '../../docs/settings.md'), settingsPage());

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { settingsPage } from './settings-page.ts';

test('the page for people has every setting with its default and purpose (else: node tests/scripts/settings-page.ts)', () => {
  expect(readFileSync(join(import.meta.dirname, '../../docs/settings.md'), 'utf8')).toBe(settingsPage());
});

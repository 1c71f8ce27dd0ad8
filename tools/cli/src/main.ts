#!/usr/bin/env node
// The compile cache comes before any other import: without it the generated protocol code costs half a second at each start. It lies with the packages, where
// `make install` has filled it; NODE_COMPILE_CACHE puts it elsewhere (worker threads find it by that variable only).
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';

process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, '../../../node_modules/.cache/cairn');
enableCompileCache(process.env['NODE_COMPILE_CACHE']);
const { main } = await import('./program.ts');
await main(process.argv);

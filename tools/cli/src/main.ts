#!/usr/bin/env node
// The compile cache comes before any other import: without it the generated protocol code costs half a second at each start. It lies with the packages, where
// `make install` has filled it; NODE_COMPILE_CACHE puts it elsewhere (worker threads find it by that variable only).
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

// Rows live in buffers outside of V8's heap. By default V8 collects the whole heap after every 64 MB of new buffers, however large the live set is: a third of
// the CPU of an insert. Counted into the heap's own limit, they are collected when they have grown by a share of what lives. It must be set before buffers are made.
setFlagsFromString('--external-memory-accounted-in-global-limit');
process.env['NODE_COMPILE_CACHE'] ??= join(import.meta.dirname, '../../../node_modules/.cache/cairn');
enableCompileCache(process.env['NODE_COMPILE_CACHE']);
const { main } = await import('./program.ts');
await main(process.argv);

#!/usr/bin/env node
// The compile cache comes before any other import: without it the generated protocol code costs half a second at each start.
import { enableCompileCache } from 'node:module';

enableCompileCache();
const { main } = await import('./program.ts');
await main(process.argv);

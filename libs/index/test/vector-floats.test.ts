import { DataType } from '@cairn/schema';
import { expect, test } from 'vitest';
import { floatsOf } from '../src/vector-floats.ts';

test.each([
  ['a Uint8Array', (bytes: Uint8Array) => bytes],
  ['a Buffer', (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)],
])('vectors in %s that starts at an odd place are read as they are', (_what, form) => {
  const values = Float32Array.of(1.5, -2.25, 3e10);
  const shifted = new Uint8Array(values.byteLength + 1);
  shifted.set(new Uint8Array(values.buffer), 1);
  expect([...floatsOf(DataType.FloatVector, form(shifted.subarray(1)))]).toEqual([...values]);
});

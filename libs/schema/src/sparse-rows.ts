import { CairnError } from '@cairn/base';
import type { Field } from './types.ts';

const PAIR_BYTES = 8;
/** The largest index is kept free, so that dim = index + 1 fits 32 bits. */
const MAX_INDEX = 0xfffffffe;

/**
 * Checks sparse vectors (pairs of u32 LE index and f32 LE value, rows back to back) and returns them with each row sorted by index: not every
 * SDK sorts. InvalidParameter for a torn pair, a repeated index, NaN, infinity or a negative value.
 */
export function orderSparseRows(field: Field, offsets: Int32Array, data: Uint8Array): Uint8Array {
  let out = data;
  let view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let row = 0; row + 1 < offsets.length; row++) {
    const [start, end] = [offsets[row], offsets[row + 1]];
    if ((end - start) % PAIR_BYTES !== 0) throw wrong(field, row, `${end - start} bytes are no whole pairs of index and value`);
    if (checkRow(field, row, view, start, end)) continue;
    if (out === data) {
      out = data.slice();
      view = new DataView(out.buffer, out.byteOffset, out.byteLength);
    }
    sortRow(field, row, view, start, end);
  }
  return out;
}

function wrong(field: Field, row: number, message: string): CairnError {
  return new CairnError('InvalidParameter', `field "${field.name}": sparse vector at row ${row}: ${message}`);
}

/** True when the row is in order already. */
function checkRow(field: Field, row: number, view: DataView, start: number, end: number): boolean {
  let sorted = true;
  let before = -1;
  for (let at = start; at < end; at += PAIR_BYTES) {
    const index = view.getUint32(at, true);
    const value = view.getFloat32(at + 4, true);
    if (index > MAX_INDEX) throw wrong(field, row, `index ${index} is above ${MAX_INDEX}`);
    if (!Number.isFinite(value)) throw wrong(field, row, `value ${value} at index ${index} is NaN or infinity`);
    if (value < 0) throw wrong(field, row, `value ${value} at index ${index} is negative`);
    if (index <= before) sorted = false;
    before = index;
  }
  return sorted;
}

function sortRow(field: Field, row: number, view: DataView, start: number, end: number): void {
  const pairs: { index: number; bits: number }[] = [];
  for (let at = start; at < end; at += PAIR_BYTES) pairs.push({ index: view.getUint32(at, true), bits: view.getUint32(at + 4, true) });
  pairs.sort((a, b) => a.index - b.index);
  for (let i = 0, at = start; i < pairs.length; i++, at += PAIR_BYTES) {
    if (i > 0 && pairs[i].index === pairs[i - 1].index) throw wrong(field, row, `index ${pairs[i].index} comes twice`);
    view.setUint32(at, pairs[i].index, true);
    view.setUint32(at + 4, pairs[i].bits, true);
  }
}

import type { Bitmap } from '@cairn/base';
import type { BytesColumn } from '@cairn/schema';
import { scanRows } from './scan.ts';

const ANY_ONE = -1;

/**
 * A `like` pattern over UTF-8 bytes: `%` any text, `_` one character, backslash takes the next character as it is. Cut at its `%` into pieces;
 * the first must stand at the start, the last at the end, those between anywhere, in order.
 */
export class LikePattern {
  /** Bytes, or ANY_ONE for one character. */
  readonly #pieces: readonly Int16Array[];

  constructor(pattern: string) {
    this.#pieces = piecesOf(pattern);
  }

  /** Whether the bytes start..end of `data` match. */
  matches(data: Uint8Array, start: number, end: number): boolean {
    const pieces = this.#pieces;
    let at = matchPiece(pieces[0], data, start, end);
    if (at < 0) return false;
    if (pieces.length === 1) return at === end;
    for (let i = 1; i < pieces.length - 1; i++) {
      at = findPiece(pieces[i], data, at, end);
      if (at < 0) return false;
    }
    const last = pieces[pieces.length - 1];
    return endsWith(last, data, at, end);
  }

  /** Rows whose text matches. */
  scan(column: BytesColumn, within: Bitmap): Bitmap {
    const needle = this.#needle();
    if (needle) return scanContaining(column, needle, within);
    const { data, offsets } = column;
    return scanRows(within, (row) => this.matches(data, offsets[row], offsets[row + 1]));
  }

  /** The text x of a plain `%x%`. */
  #needle(): Uint8Array | undefined {
    const [first, middle, last] = this.#pieces;
    const plain = this.#pieces.length === 3 && first.length === 0 && last.length === 0 && !middle.includes(ANY_ONE);
    return plain ? Uint8Array.from(middle) : undefined;
  }
}

function piecesOf(pattern: string): Int16Array[] {
  const pieces: number[][] = [[]];
  for (let i = 0; i < pattern.length; i++) {
    const piece = pieces[pieces.length - 1];
    if (pattern[i] === '%') pieces.push([]);
    else if (pattern[i] === '_') piece.push(ANY_ONE);
    else {
      if (pattern[i] === '\\' && i + 1 < pattern.length) i++;
      const char = String.fromCodePoint(pattern.codePointAt(i) ?? 0);
      piece.push(...Buffer.from(char));
      i += char.length - 1;
    }
  }
  // `%%` is `%`: empty pieces between two signs say nothing.
  return pieces.filter((piece, i) => piece.length > 0 || i === 0 || i === pieces.length - 1).map((piece) => Int16Array.from(piece));
}

/** Bytes with which every text that matches begins; `whole`: and nothing but `%` follows, so that every text that begins so matches. */
export function literalPrefix(pattern: string): { readonly bytes: Uint8Array; readonly whole: boolean } {
  const pieces = piecesOf(pattern);
  const [first] = pieces;
  const wild = first.indexOf(ANY_ONE);
  const bytes = Uint8Array.from(wild < 0 ? first : first.subarray(0, wild));
  return { bytes, whole: wild < 0 && pieces.length === 2 && pieces[1].length === 0 };
}

/** Stretches of bytes that every text that matches holds. */
export function needlesOf(pattern: string): Uint8Array[] {
  return piecesOf(pattern).flatMap((piece) => {
    const parts: number[][] = [[]];
    for (const byte of piece) {
      if (byte === ANY_ONE) parts.push([]);
      else parts[parts.length - 1].push(byte);
    }
    return parts.filter((part) => part.length > 0).map((part) => Uint8Array.from(part));
  });
}

const isContinuation = (byte: number): boolean => (byte & 0xc0) === 0x80;

/** Position behind the piece when it stands at `at`, else -1. */
function matchPiece(piece: Int16Array, data: Uint8Array, at: number, end: number): number {
  for (let i = 0; i < piece.length; i++) {
    if (at >= end) return -1;
    const wanted = piece[i];
    if (wanted === ANY_ONE) {
      at++;
      while (at < end && isContinuation(data[at])) at++;
    } else if (data[at++] !== wanted) return -1;
  }
  return at;
}

function findPiece(piece: Int16Array, data: Uint8Array, from: number, end: number): number {
  for (let at = from; at <= end; at++) {
    // A character is matched whole: no match starts inside one.
    if (at < end && at > from && isContinuation(data[at])) continue;
    const next = matchPiece(piece, data, at, end);
    if (next >= 0) return next;
  }
  return -1;
}

function endsWith(piece: Int16Array, data: Uint8Array, from: number, end: number): boolean {
  let at = end;
  for (let i = piece.length - 1; i >= 0; i--) {
    if (at <= from) return false;
    if (piece[i] === ANY_ONE) {
      at--;
      while (at > from && isContinuation(data[at])) at--;
    } else if (data[--at] !== piece[i]) return false;
  }
  return true;
}

/** `%x%`: one search through all texts at once; a hit that crosses into the next row does not count. */
function scanContaining(column: BytesColumn, needle: Uint8Array, within: Bitmap): Bitmap {
  const { offsets } = column;
  const out = new Uint8Array(within.length);
  const rows = Math.min(column.length, within.length * 8);
  const data = Buffer.from(column.data.buffer, column.data.byteOffset, offsets[rows]);
  let row = 0;
  let at = data.indexOf(needle, offsets[0]);
  while (at >= 0 && row < rows) {
    row = rowOfByte(offsets, row, rows, at);
    if (at + needle.length <= offsets[row + 1]) {
      out[row >> 3] |= 1 << (row & 7);
      at = data.indexOf(needle, offsets[row + 1]);
    } else at = data.indexOf(needle, at + 1);
  }
  for (let b = 0; b < out.length; b++) out[b] &= within[b];
  return out;
}

/** The row that holds byte `at`, at or after `from`: steps that double, then a binary search. */
function rowOfByte(offsets: Int32Array, from: number, rows: number, at: number): number {
  let step = 1;
  let low = from;
  while (low + step < rows && offsets[low + step] <= at) {
    low += step;
    step *= 2;
  }
  let high = Math.min(low + step, rows);
  while (low + 1 < high) {
    const middle = (low + high) >> 1;
    if (offsets[middle] <= at) low = middle;
    else high = middle;
  }
  return low;
}

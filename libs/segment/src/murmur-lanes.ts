import type { Bitmap } from '@cairn/base';
import { isValid } from '@cairn/schema';

/**
 * Murmur3_x86_128 over the rows of a fixed-width column, four rows at once in the lanes of 128-bit registers: a WebAssembly function of some 700 bytes,
 * put together here from its instructions. Same results as the loop in row-hash.ts, at three times its speed.
 */

/** Of the memory: states of rows at its start, 16 bytes each, then their cells. */
const STATE_BYTES = 64 * 1024;
const CELL_BYTES = 512 * 1024;
const PAGE_BYTES = 64 * 1024;
/** Cells copied in at once: they and their states stay in the second-level cache. */
const CHUNK_BYTES = 128 * 1024;
const ROWS_AT_ONCE = 4;

/** What is used here of the engine's interface; its types come with those of browsers only. */
declare const WebAssembly: {
  validate(bytes: Uint8Array): boolean;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: { readonly memory: { readonly buffer: ArrayBuffer }; readonly mix: Mix } };
};

type Mix = (cells: number, stride: number, state: number, groups: number, head1: number, head2: number, head3: number) => void;

type Code = readonly number[];

/** Opcodes, as in the WebAssembly specification; those of vectors come after 0xfd. */
const LOCAL_GET = 0x20;
const LOCAL_SET = 0x21;
const LOCAL_TEE = 0x22;
const I32_CONST = 0x41;
const I32_ADD = 0x6a;
const I32_SUB = 0x6b;
const LOOP = 0x03;
const BR_IF = 0x0d;
const END = 0x0b;
const VOID = 0x40;
const I32 = 0x7f;
const V128 = 0x7b;

const unsigned = (value: number): number[] => (value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)]);
const signed = (value: number): number[] => (value >= -64 && value < 64 ? [value & 127] : [(value & 127) | 128, ...signed(value >> 7)]);
const get = (local: number): Code => [LOCAL_GET, ...unsigned(local)];
const set = (local: number): Code => [LOCAL_SET, ...unsigned(local)];
const tee = (local: number): Code => [LOCAL_TEE, ...unsigned(local)];
const number = (value: number): Code => [I32_CONST, ...signed(value)];
const vector = (opcode: number): Code => [0xfd, ...unsigned(opcode)];
const ALIGN_16 = 4;
const load = (address: Code, offset: number): Code => [...address, ...vector(0), ALIGN_16 - 4, ...unsigned(offset)];
const store = (address: Code, value: Code, offset: number): Code => [
  ...address,
  ...value,
  ...vector(11),
  ALIGN_16 - 4,
  ...unsigned(offset),
];
const splat = (value: Code): Code => [...value, ...vector(17)];
const four = (value: number): Code => [...vector(12), ...[0, 1, 2, 3].flatMap(() => [...new Uint8Array(Int32Array.of(value).buffer)])];
const add = (a: Code, b: Code): Code => [...a, ...b, ...vector(0xae)];
const multiply = (a: Code, b: Code): Code => [...a, ...b, ...vector(0xb5)];
const xor = (a: Code, b: Code): Code => [...a, ...b, ...vector(0x51)];
const or = (a: Code, b: Code): Code => [...a, ...b, ...vector(0x50)];
const left = (a: Code, bits: number): Code => [...a, ...number(bits), ...vector(0xab)];
const right = (a: Code, bits: number): Code => [...a, ...number(bits), ...vector(0xad)];
/** 32-bit words of two vectors, 0 to 3 of the first, 4 to 7 of the second. */
const words = (a: Code, b: Code, ...which: readonly number[]): Code => [
  ...a,
  ...b,
  ...vector(13),
  ...which.flatMap((word) => [0, 1, 2, 3].map((byte) => word * 4 + byte)),
];

/** Parameters and locals of the function. */
const CELLS = 0;
const STRIDE = 1;
const STATE = 2;
const GROUPS = 3;
const HEAD = [4, 5, 6] as const;
const LEFT = 7;
const ROW = [8, 9, 10, 11] as const;
/** The four lanes of Murmur's state, each of four rows. */
const LANES = [12, 13, 14, 15] as const;
const K = 16;
const T = [17, 18, 19, 20] as const;
const WORDS = [21, 22, 23, 24] as const;

/** Multipliers, rotations and addends of each lane of Murmur3_x86_128. */
const MIX = [
  { before: 0x239b961b, turn: 15, after: 0xab0e9789, turnLane: 19, plus: 0x561ccd1b },
  { before: 0xab0e9789, turn: 16, after: 0x38b34ae5, turnLane: 17, plus: 0x0bcaa747 },
  { before: 0x38b34ae5, turn: 17, after: 0xa1e38b93, turnLane: 15, plus: 0x96cd1c35 },
  { before: 0xa1e38b93, turn: 18, after: 0x239b961b, turnLane: 13, plus: 0x32ac3b17 },
] as const;

/** Rows to columns of a square of 4 × 4 words, and back. */
function transposed(from: readonly number[], to: readonly number[]): Code {
  const pairs: Code = [
    ...words(get(from[0]), get(from[1]), 0, 4, 1, 5),
    ...set(T[0]),
    ...words(get(from[2]), get(from[3]), 0, 4, 1, 5),
    ...set(T[1]),
    ...words(get(from[0]), get(from[1]), 2, 6, 3, 7),
    ...set(T[2]),
    ...words(get(from[2]), get(from[3]), 2, 6, 3, 7),
    ...set(T[3]),
  ];
  return [
    ...pairs,
    ...words(get(T[0]), get(T[1]), 0, 1, 4, 5),
    ...set(to[0]),
    ...words(get(T[0]), get(T[1]), 2, 3, 6, 7),
    ...set(to[1]),
    ...words(get(T[2]), get(T[3]), 0, 1, 4, 5),
    ...set(to[2]),
    ...words(get(T[2]), get(T[3]), 2, 3, 6, 7),
    ...set(to[3]),
  ];
}

/** One block of each of the four rows. */
function block(ofLane: (lane: number) => Code): Code {
  return MIX.flatMap(({ before, turn, after, turnLane, plus }, lane) => {
    const state = LANES[lane];
    const next = LANES[(lane + 1) % 4];
    return [
      ...multiply(ofLane(lane), four(before)),
      ...set(K),
      ...xor(get(state), multiply(or(left(get(K), turn), right(get(K), 32 - turn)), four(after))),
      ...set(state),
      ...add(or(left(get(state), turnLane), right(get(state), 32 - turnLane)), get(next)),
      ...set(state),
      ...add(add(left(get(state), 2), get(state)), four(plus)),
      ...set(state),
    ];
  });
}

/** mix(cells, stride, state, groups, head1, head2, head3): a head block and then `stride` bytes, a multiple of 16, of 4 × groups rows. */
function mixCode(): Code {
  const repeatWhile = (body: Code, counter: number, step: Code): Code => [
    ...[LOOP, VOID],
    ...body,
    ...[...get(counter), ...step, I32_SUB, ...tee(counter)],
    ...[BR_IF, 0, END],
  ];
  const forward = (local: number, by: Code): Code => [...get(local), ...by, I32_ADD, ...set(local)];
  const head: Code = block((lane) => (lane < 3 ? splat(get(HEAD[lane])) : four(0)));
  const blocks: Code = [
    ...WORDS.flatMap((word, row) => [...load(get(ROW[row]), 0), ...set(word)]),
    ...transposed(WORDS, WORDS),
    ...block((lane) => get(WORDS[lane])),
    ...ROW.flatMap((row) => forward(row, number(16))),
  ];
  const group: Code = [
    ...WORDS.flatMap((word, row) => [...load(get(STATE), row * 16), ...set(word)]),
    ...transposed(WORDS, LANES),
    ...head,
    ...[...get(CELLS), ...set(ROW[0])],
    ...[1, 2, 3].flatMap((row) => [...get(ROW[row - 1]), ...get(STRIDE), I32_ADD, ...set(ROW[row])]),
    ...[...get(STRIDE), ...set(LEFT)],
    ...repeatWhile(blocks, LEFT, number(16)),
    ...transposed(LANES, WORDS),
    ...WORDS.flatMap((word, row) => store(get(STATE), get(word), row * 16)),
    // The last row ends where the next group begins.
    ...[...get(ROW[3]), ...set(CELLS)],
    ...forward(STATE, number(64)),
  ];
  return repeatWhile(group, GROUPS, number(1));
}

function moduleBytes(): Uint8Array<ArrayBuffer> {
  const text = (of: string): Code => [of.length, ...Buffer.from(of)];
  const section = (id: number, ...content: readonly Code[]): Code => [id, ...unsigned(content.flat().length), ...content.flat()];
  const parameters = Array.from({ length: LEFT }, () => I32);
  const body: Code = [2, 5, I32, 13, V128, ...mixCode(), END];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, parameters.length, ...parameters, 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, (STATE_BYTES + CELL_BYTES) / PAGE_BYTES]),
    ...section(7, [2], text('memory'), [2, 0], text('mix'), [0, 0]),
    ...section(10, [1, ...unsigned(body.length)], body),
  ]);
}

export interface FixedCells {
  readonly data: Uint8Array;
  /** A multiple of 16, above 0. */
  readonly bytesPerRow: number;
  readonly fieldId: number;
  readonly type: number;
  readonly validity: Bitmap | null;
}

export class MurmurLanes {
  readonly #states: Int32Array;
  readonly #cells: Buffer;
  readonly #mix: Mix;

  private constructor(module: object) {
    const { memory, mix } = new WebAssembly.Instance(module).exports;
    this.#states = new Int32Array(memory.buffer, 0, STATE_BYTES / 4);
    this.#cells = Buffer.from(memory.buffer, STATE_BYTES);
    this.#mix = mix;
  }

  /** One a thread, made when it is first asked for; undefined on a processor without such registers. */
  static get here(): MurmurLanes | undefined {
    if (MurmurLanes.#here === undefined) {
      const bytes = moduleBytes();
      MurmurLanes.#here = { lanes: WebAssembly.validate(bytes) ? new MurmurLanes(new WebAssembly.Module(bytes)) : undefined };
    }
    return MurmurLanes.#here.lanes;
  }

  static #here: { readonly lanes: MurmurLanes | undefined } | undefined;

  static takes(bytesPerRow: number): boolean {
    return bytesPerRow > 0 && bytesPerRow % 16 === 0 && bytesPerRow * ROWS_AT_ONCE <= CELL_BYTES;
  }

  /** Mixes head and content of rows [start, end) into `states`, four numbers a row; rows that are not valid stay as they are. */
  mix({ data, bytesPerRow, fieldId, type, validity }: FixedCells, states: Int32Array, start: number, end: number): void {
    const fitting = Math.floor(CHUNK_BYTES / bytesPerRow / ROWS_AT_ONCE) * ROWS_AT_ONCE;
    const step = Math.min(STATE_BYTES / 16, Math.max(ROWS_AT_ONCE, fitting));
    // A plain copy of memory: `set` takes three times as long where one side is shared.
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    for (let row = start; row < end; row += step) {
      const rows = Math.min(step, end - row);
      const own = states.subarray(row * 4, (row + rows) * 4);
      this.#states.set(own);
      bytes.copy(this.#cells, 0, row * bytesPerRow, (row + rows) * bytesPerRow);
      this.#mix(STATE_BYTES, bytesPerRow, 0, Math.ceil(rows / ROWS_AT_ONCE), fieldId, type, bytesPerRow);
      if (validity === null) own.set(this.#states.subarray(0, own.length));
      else for (let i = 0; i < rows; i++) if (isValid(validity, row + i)) own.set(this.#states.subarray(i * 4, i * 4 + 4), i * 4);
    }
  }
}

import type { DataType } from './types.ts';

/**
 * One field of an Insert, Upsert or result as it lies on the wire, but in columns: the hand-written decoders of the proxy produce it straight
 * from the request's bytes, `rawFromWire` produces it from a generated FieldData. Nothing in it is validated yet: `columnFromRaw` does that.
 *
 * Arrays may be views on the request's buffer. Typed arrays must be aligned (copy once if the run on the wire is not).
 */
export interface RawFieldData {
  readonly name: string;
  /** As sent: `type` of FieldData. May be None when the sender left it out. */
  readonly type: DataType;
  readonly isDynamic: boolean;
  /** One entry per row, non-zero: the row has a value. Absent or empty: all have. From FieldData.valid_data 7, or the newer 17 (scalars) and 9 (vectors). */
  readonly validData?: Uint8Array | readonly boolean[] | undefined;
  readonly payload: RawPayload;
}

/** Values back to back. Null rows may be absent (compact) or hold placeholders (dense): the number of values tells. */
export type RawPayload =
  | RawScalars
  | RawVectors
  | RawArrays
  | RawVectorArrays
  | RawStructs
  | { readonly kind: 'none' }
  | { readonly kind: 'unsupported'; readonly what: string };

export type RawScalars =
  /** bool_data: one byte per value, 0 or 1. */
  | { readonly kind: 'bool'; readonly values: Uint8Array }
  | { readonly kind: 'int'; readonly values: Int32Array }
  | { readonly kind: 'long'; readonly values: BigInt64Array }
  | { readonly kind: 'float'; readonly values: Float32Array }
  | { readonly kind: 'double'; readonly values: Float64Array }
  /** timestamptz_data: µs since the Unix epoch, UTC. */
  | { readonly kind: 'timestamptz'; readonly values: BigInt64Array }
  | RawByteStrings;

/** Value i is data[offsets[i], offsets[i + 1]); offsets has one entry more than there are values. `text` is string_data (UTF-8). */
export interface RawByteStrings {
  readonly kind: 'text' | 'json' | 'bytes' | 'wkb' | 'wkt';
  readonly offsets: Int32Array;
  readonly data: Uint8Array;
}

export type RawVectors =
  /** float_vector: one packed run of rows · dim values. */
  | { readonly kind: 'floatVector'; readonly dim: number; readonly values: Float32Array }
  /** binary_vector, float16_vector, bfloat16_vector, int8_vector: the bytes as sent. */
  | { readonly kind: 'binaryVector' | 'float16Vector' | 'bfloat16Vector' | 'int8Vector'; readonly dim: number; readonly data: Uint8Array }
  /** sparse_float_vector: contents back to back, each pairs of u32 LE index and f32 LE value. */
  | { readonly kind: 'sparseVector'; readonly dim: number; readonly offsets: Int32Array; readonly data: Uint8Array };

/** array_data: row i has elements[offsets[i], offsets[i + 1]). `elements` is none when no row has an element. */
export interface RawArrays {
  readonly kind: 'array';
  readonly elementType: DataType;
  readonly offsets: Int32Array;
  readonly elements: RawScalars | { readonly kind: 'none' };
}

/** struct_arrays: the members of an array of structs, each an array or an array of vectors. Cut up into its members before it becomes columns. */
export interface RawStructs {
  readonly kind: 'struct';
  readonly members: readonly RawFieldData[];
}

/** vector_array: row i has the vectors [offsets[i], offsets[i + 1]). */
export interface RawVectorArrays {
  readonly kind: 'vectorArray';
  readonly dim: number;
  readonly elementType: DataType;
  readonly offsets: Int32Array;
  readonly elements: RawVectors | { readonly kind: 'none' };
}

/** What became of a call: done, refused for good, or nobody knows. */
export type Outcome<T> =
  | { readonly kind: 'done'; readonly value: T }
  | { readonly kind: 'refused'; readonly code: number; readonly reason: string }
  | { readonly kind: 'unknown'; readonly reason: string };

/** A row of the tests: everything else in it follows from its key and version. */
export interface Row {
  readonly key: number;
  readonly version: number;
}

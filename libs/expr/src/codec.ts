import { CairnError } from '@cairn/base';
import type { Expr } from './expression.ts';

/** First byte of every encoded filter; a reader refuses others. */
const VERSION = 1;
const KINDS: ReadonlySet<unknown> = new Set([
  'true',
  'false',
  'compare',
  'in',
  'like',
  'regex',
  'isNull',
  'exists',
  'contains',
  'bool',
  'and',
  'or',
  'not',
  'randomSample',
]);

/**
 * A filter as bytes: one version byte and JSON, in which an int64 is `{"int":"…"}`. It travels between services of one release, never to a file.
 * `true` is no bytes at all.
 */
export function serializeExpr(expr: Expr): Uint8Array {
  if (expr.kind === 'true') return new Uint8Array(0);
  const text = JSON.stringify(expr, (_key, value: unknown) => {
    if (typeof value === 'bigint') return { int: value.toString() };
    // JSON has no infinity; arithmetic on constants can make one.
    if (typeof value === 'number' && !Number.isFinite(value)) return { float: String(value) };
    return value;
  });
  const out = Buffer.allocUnsafe(1 + Buffer.byteLength(text));
  out[0] = VERSION;
  out.write(text, 1);
  return out;
}

/** What serializeExpr wrote; empty bytes are `true`. Anything else is InvalidParameter. */
export function deserializeExpr(bytes: Uint8Array): Expr {
  if (bytes.length === 0) return { kind: 'true' };
  if (bytes[0] !== VERSION)
    throw new CairnError('InvalidParameter', `encoded filter has version ${bytes[0]}, this reader knows ${VERSION}`);
  let expr: unknown;
  try {
    expr = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset + 1, bytes.length - 1).toString(), (_key, value: unknown) => {
      if (typeof value !== 'object' || value === null) return value;
      if ('int' in value) return BigInt(value.int as string);
      return 'float' in value ? Number(value.float) : value;
    });
  } catch (error) {
    throw new CairnError('InvalidParameter', `encoded filter of ${bytes.length} bytes is damaged`, { cause: error });
  }
  if (typeof expr !== 'object' || expr === null || !('kind' in expr) || !KINDS.has(expr.kind))
    throw new CairnError('InvalidParameter', `encoded filter of ${bytes.length} bytes holds no filter`);
  return expr as Expr;
}

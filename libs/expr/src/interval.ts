import { DataType } from '@cairn/schema';
import { makeArithmetic } from './checker.ts';
import type { ValueExpr } from './expression.ts';
import { ParseProblem } from './parse-problem.ts';

/** A duration: its length in µs is known but for its months. */
export interface Interval {
  readonly months: number;
  readonly micros: bigint;
}

const DURATION = /^P(?:(\d{1,9})Y)?(?:(\d{1,9})M)?(?:(\d{1,9})D)?(?:T(?=\d)(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9})S)?)?$/;

/** An ISO 8601 duration; undefined: it is none. */
export function readInterval(text: string): Interval | undefined {
  const found = DURATION.exec(text);
  if (!found || text === 'P') return undefined;
  const [years, months, days, hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  return { months: years * 12 + months, micros: BigInt(((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1_000_000n };
}

/** A Timestamptz field so much later or earlier. */
export function shifted(time: ValueExpr, { months, micros }: Interval, op: '+' | '-', position: number): ValueExpr {
  const isTime = time.kind === 'shift' || (time.kind === 'column' && time.type === DataType.Timestamptz);
  if (!isTime) throw new ParseProblem('INTERVAL is added to and taken from Timestamptz fields only', position);
  const sign = op === '+' ? 1 : -1;
  if (months !== 0) return { kind: 'shift', time, months: sign * months, micros: BigInt(sign) * micros };
  return makeArithmetic(op, time, { kind: 'literal', value: micros }, position);
}

/**
 * A time (µs since the Unix epoch) so many months and µs later, on the calendar of UTC: a day that a month does not have is as many days into the next one,
 * as in Milvus (31 January and a month is 3 March, or the 2nd). undefined: outside the calendar.
 */
export function shiftTime(time: bigint, months: number, micros: bigint): bigint | undefined {
  const below = ((time % 1000n) + 1000n) % 1000n;
  const wall = new Date(Number((time - below) / 1000n));
  wall.setUTCMonth(wall.getUTCMonth() + months);
  const ms = wall.getTime();
  return Number.isNaN(ms) ? undefined : BigInt(ms) * 1000n + below + micros;
}

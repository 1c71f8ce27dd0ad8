import { CairnError } from '@cairn/base';
import { TimeZone } from './time-zone.ts';

const ISO = /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?$/;

/** Clocks are at most so far behind and ahead of UTC, in minutes. */
const LEAST_OFFSET = -12 * 60;
const MOST_OFFSET = 14 * 60;

/** ISO 8601 text to µs since the Unix epoch. A time without an offset is one of `zone`; digits below a µs are cut. */
export function parseTimestamptz(text: string, zone: TimeZone = TimeZone.UTC): bigint {
  const found = ISO.exec(text.trim());
  const wrong = (): CairnError =>
    new CairnError('InvalidParameter', `timestamptz "${text}" is not an ISO 8601 time such as 2025-01-31T12:00:00Z`);
  if (found === null) throw wrong();
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', offset] = found;
  const parts = [year, month, day, hour, minute, second].map(Number);
  const ms = Date.UTC(parts[0], parts[1] - 1, parts[2], parts[3], parts[4], parts[5]);
  const back = new Date(ms);
  // Date.UTC carries the 31st of June over into July; such text is an error here.
  if (
    back.getUTCDate() !== parts[2] ||
    back.getUTCMonth() !== parts[1] - 1 ||
    parts[3] > 23 ||
    parts[4] > 59 ||
    parts[5] > 59 ||
    parts[0] < 100
  )
    throw wrong();
  const micros = BigInt(`${fraction}000000`.slice(0, 6));
  return BigInt(offset === undefined ? zone.instantOf(ms) : ms - offsetMs(offset, text)) * 1000n + micros;
}

function offsetMs(offset: string, text: string): number {
  if (offset === 'Z' || offset === 'z') return 0;
  const digits = offset.slice(1).replace(':', '');
  const minutes = (Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2, 4) || '0')) * (offset[0] === '-' ? -1 : 1);
  if (minutes < LEAST_OFFSET || minutes > MOST_OFFSET)
    throw new CairnError('InvalidParameter', `timestamptz "${text}": its offset from UTC is out of the range [-12:00, +14:00]`);
  return minutes * 60_000;
}

/** A date whose UTC fields are what clocks of the zone show, the µs below a second, and the offset in ms. */
function wallOf(micros: bigint, zone: TimeZone): { readonly wall: Date; readonly rest: number; readonly offset: number } {
  let seconds = micros / 1_000_000n;
  let rest = micros % 1_000_000n;
  if (rest < 0n) {
    rest += 1_000_000n;
    seconds -= 1n;
  }
  const ms = Number(seconds) * 1000;
  if (!(Math.abs(ms) <= 8.64e15)) throw new CairnError('InvalidParameter', `timestamptz ${micros} µs is outside the calendar`);
  const offset = zone.offsetAt(ms);
  return { wall: new Date(ms + offset), rest: Number(rest), offset };
}

/** µs since the Unix epoch to ISO 8601 with the offset of `zone`, `Z` where there is none; the fraction only where there is one. */
export function formatTimestamptz(micros: bigint, zone: TimeZone = TimeZone.UTC): string {
  const { wall, rest, offset } = wallOf(micros, zone);
  const fraction = rest === 0 ? '' : `.${rest.toString().padStart(6, '0').replace(/0+$/, '')}`;
  return `${wall.toISOString().slice(0, -5)}${fraction}${offsetText(offset)}`;
}

function offsetText(offset: number): string {
  if (offset === 0) return 'Z';
  const minutes = Math.floor(Math.abs(offset) / 60_000);
  const two = (value: number): string => String(value).padStart(2, '0');
  return `${offset < 0 ? '-' : '+'}${two(Math.floor(minutes / 60))}:${two(minutes % 60)}`;
}

const TIME_FIELDS = {
  year: ({ wall }) => wall.getUTCFullYear(),
  month: ({ wall }) => wall.getUTCMonth() + 1,
  day: ({ wall }) => wall.getUTCDate(),
  hour: ({ wall }) => wall.getUTCHours(),
  minute: ({ wall }) => wall.getUTCMinutes(),
  second: ({ wall }) => wall.getUTCSeconds(),
  microsecond: ({ rest }) => rest,
} satisfies Record<string, (time: ReturnType<typeof wallOf>) => number>;
export type TimeField = keyof typeof TIME_FIELDS;

/** `year, month` as fields of a time. InvalidParameter for other names. */
export function readTimeFields(text: string): TimeField[] {
  return text
    .split(/[,\s]+/)
    .filter((name) => name !== '')
    .map((name) => {
      const known = (Object.keys(TIME_FIELDS) as TimeField[]).find((field) => field === name.toLowerCase());
      if (!known) throw new CairnError('InvalidParameter', `time_fields: "${name}" is none of ${Object.keys(TIME_FIELDS).join(', ')}`);
      return known;
    });
}

/** What clocks of a zone show at an instant (µs since the Unix epoch), field by field. */
export function timeFieldsOf(micros: bigint, fields: readonly TimeField[], zone: TimeZone): number[] {
  const time = wallOf(micros, zone);
  return fields.map((field) => TIME_FIELDS[field](time));
}

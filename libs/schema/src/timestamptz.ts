import { CairnError } from '@cairn/base';

const ISO = /^(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?$/;

/** ISO 8601 text to µs since the Unix epoch. A time without a zone is UTC; digits below a µs are cut. */
export function parseTimestamptz(text: string): bigint {
  const found = ISO.exec(text.trim());
  const wrong = (): CairnError =>
    new CairnError('InvalidParameter', `timestamptz "${text}" is not an ISO 8601 time such as 2025-01-31T12:00:00Z`);
  if (found === null) throw wrong();
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', zone = 'Z'] = found;
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
  return BigInt(ms) * 1000n + micros - zoneMicros(zone);
}

function zoneMicros(zone: string): bigint {
  if (zone === 'Z' || zone === 'z') return 0n;
  const digits = zone.slice(1).replace(':', '');
  const minutes = Number(digits.slice(0, 2)) * 60 + Number(digits.slice(2, 4) || '0');
  return BigInt(minutes) * 60_000_000n * (zone[0] === '-' ? -1n : 1n);
}

/** µs since the Unix epoch to ISO 8601 in UTC; the fraction only where there is one. */
export function formatTimestamptz(micros: bigint): string {
  let seconds = micros / 1_000_000n;
  let rest = micros % 1_000_000n;
  if (rest < 0n) {
    rest += 1_000_000n;
    seconds -= 1n;
  }
  const ms = Number(seconds) * 1000;
  if (!(Math.abs(ms) <= 8.64e15)) throw new CairnError('InvalidParameter', `timestamptz ${micros} µs is outside the calendar`);
  const whole = new Date(ms).toISOString().slice(0, -5);
  return rest === 0n ? `${whole}Z` : `${whole}.${rest.toString().padStart(6, '0').replace(/0+$/, '')}Z`;
}

import { CairnError } from '@cairn/base';

/** Rules of zones change at whole quarters of an hour. */
const STEP_MS = 15 * 60_000;
/** Quarters that are remembered of one zone: 40 days in all, more than results usually span. */
const MAX_STEPS = 4096;

/** A zone of the IANA database, as the runtime knows it. */
export class TimeZone {
  readonly name: string;
  readonly #format: Intl.DateTimeFormat | undefined;
  readonly #offsets = new Map<number, number>();

  private constructor(name: string, format: Intl.DateTimeFormat | undefined) {
    this.name = name;
    this.#format = format;
  }

  static readonly UTC = new TimeZone('UTC', undefined);
  static readonly #known = new Map<string, TimeZone>([['UTC', TimeZone.UTC]]);

  /** InvalidParameter for what is no name of a zone. */
  static of(name: string): TimeZone {
    const known = TimeZone.#known.get(name);
    if (known) return known;
    try {
      // Offsets such as +08:00 are taken by Intl, and are no zones of the database.
      if (!/^[A-Za-z]/.test(name)) throw new RangeError(name);
      const zone = new TimeZone(
        name,
        new Intl.DateTimeFormat('en-US', {
          timeZone: name,
          hourCycle: 'h23',
          era: 'short',
          year: 'numeric',
          month: 'numeric',
          day: 'numeric',
          hour: 'numeric',
          minute: 'numeric',
          second: 'numeric',
        }),
      );
      TimeZone.#known.set(name, zone);
      return zone;
    } catch {
      throw new CairnError(
        'InvalidParameter',
        `unknown or invalid IANA time zone "${name}", it should be a name such as Asia/Shanghai or UTC`,
      );
    }
  }

  /** Milliseconds that clocks there are ahead of UTC at an instant (ms since the Unix epoch). */
  offsetAt(ms: number): number {
    if (!this.#format) return 0;
    const step = Math.floor(ms / STEP_MS);
    const known = this.#offsets.get(step);
    if (known !== undefined) return known;
    const offset = offsetOf(this.#format, step * STEP_MS);
    if (this.#offsets.size >= MAX_STEPS) this.#offsets.clear();
    this.#offsets.set(step, offset);
    return offset;
  }

  /** The instant at which clocks there show what a clock in UTC shows at `wallMs`. Of a time that is shown twice the first, of one that is left out the time after it. */
  instantOf(wallMs: number): number {
    if (!this.#format) return wallMs;
    const before = this.offsetAt(wallMs - 24 * 3_600_000);
    const after = this.offsetAt(wallMs + 24 * 3_600_000);
    const early = wallMs - before;
    if (this.offsetAt(early) === before) return early;
    const late = wallMs - after;
    return this.offsetAt(late) === after ? late : early;
  }
}

function offsetOf(format: Intl.DateTimeFormat, ms: number): number {
  const shown = new Map(format.formatToParts(ms).map(({ type, value }) => [type, value]));
  const part = (type: Intl.DateTimeFormatPartTypes): number => Number(shown.get(type));
  const year = shown.get('era') === 'BC' ? 1 - part('year') : part('year');
  const wall = new Date(0);
  wall.setUTCFullYear(year, part('month') - 1, part('day'));
  wall.setUTCHours(part('hour'), part('minute'), part('second'));
  return wall.getTime() - ms;
}

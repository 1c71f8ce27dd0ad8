import { CairnError } from '@cairn/base';

/** What an object costs beside its bytes: a copy of an empty one takes a store about as long as this many bytes. */
const OBJECT_BYTES = 64 * 1024;
/** A job that comes gets at most so much more than its turn until it has caught up with those that are there. */
const CREDIT_BYTES = 128 * 1024 * 1024;

interface Lane {
  /** Copies that wait. */
  readonly waiting: { readonly bytes: number; readonly begin: () => void }[];
  running: number;
  /** Bytes of the copies that were begun. */
  served: number;
}

/**
 * Permits for copies of a whole node. When all are taken, the next free one goes to the job that has been served least, whatever each has queued: jobs
 * that begin together end together, also where the first of them had all permits for a moment, and a small one that comes late does not stand behind
 * all objects of a large one.
 */
export class CopyLanes {
  readonly #permits: number;
  readonly #queueLimit: number;
  #running = 0;
  #queued = 0;
  /** Of jobs that have copies running or waiting. */
  readonly #lanes = new Map<number, Lane>();

  constructor(permits: number, queueLimit: number) {
    this.#permits = permits;
    this.#queueLimit = queueLimit;
  }

  /** `bytes`: of the object that is copied. */
  async run<T>(job: number, bytes: number, copy: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#permits && this.#queued >= this.#queueLimit)
      throw new CairnError('TooManyRequests', `copies: ${this.#queueLimit} are waiting already at this datanode`);
    const lane = this.#lane(job);
    if (this.#running < this.#permits) this.#begin(lane, bytes);
    else await this.#turn(lane, bytes);
    try {
      return await copy();
    } finally {
      this.#running--;
      lane.running--;
      this.#next();
      if (lane.running === 0 && lane.waiting.length === 0) this.#lanes.delete(job);
    }
  }

  #lane(job: number): Lane {
    const known = this.#lanes.get(job);
    if (known) return known;
    const least = Math.min(...[...this.#lanes.values()].map(({ served }) => served));
    const lane: Lane = { waiting: [], running: 0, served: Number.isFinite(least) ? Math.max(0, least - CREDIT_BYTES) : 0 };
    this.#lanes.set(job, lane);
    return lane;
  }

  #begin(lane: Lane, bytes: number): void {
    this.#running++;
    lane.running++;
    lane.served += OBJECT_BYTES + bytes;
  }

  #turn(lane: Lane, bytes: number): Promise<void> {
    this.#queued++;
    return new Promise((resolve) => {
      lane.waiting.push({ bytes, begin: resolve });
    });
  }

  /** Hands the permit on. */
  #next(): void {
    let least: Lane | undefined;
    for (const lane of this.#lanes.values())
      if (lane.waiting.length > 0 && (least === undefined || lane.served < least.served)) least = lane;
    const first = least?.waiting.shift();
    if (least === undefined || first === undefined) return;
    this.#queued--;
    this.#begin(least, first.bytes);
    first.begin();
  }
}

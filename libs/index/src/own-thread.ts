/** Longest search that may hold the calling thread, ns; and when others are under way, which would wait behind it. */
const ALONE_NS = 1_000_000;
const AMONG_OTHERS_NS = 400_000;
/** Of one turn of the event loop: a search of many segments looks at one after the other without giving way. */
const TURN_NS = 4_000_000;
/** Mapping a larger file reads its list of levels for too long. */
const MAX_ROWS = 500_000;
/**
 * Weights of a newest measurement that is slower or faster than what was known, and the most that one counts for: a slow one may only mean that the
 * system had put the thread aside.
 */
const SLOWER = 0.05;
const FASTER = 0.5;
const MOST = 8;
/** What each search elsewhere takes off what was learned, so that an index that was slow (cold on disk) is tried again. */
const FORGET = 0.995;

/** A search whose clock ran so many times its CPU time was put aside, or waited for the disk. */
const MUCH_LONGER = 4;

/** Searches that took much longer than their CPU time, between two looks at the pages read: a look costs as much as a tenth of a search. */
const LOOK_EVERY = 4;

/** What a search at the call cost, ns. */
export interface Measured {
  readonly wallNs: number;
  /** Of the calling thread. */
  readonly cpuNs: number;
}

interface Learned {
  /** Measured time by estimated time. */
  ratio: number;
  /** Searches at the call so far. */
  searches: number;
}

/** The first searches of a file are measured, then one of so many: reading the thread's CPU time costs as much as a tenth of a search. */
const MEASURED_FIRST = 16;
const MEASURED_EVERY = 8;

/** What a message to a worker and its answer cost the thread that serves, twice: shorter searches are not worth one. */
const WORTH_NS = 40_000;

/** Searches in a turn of the event loop, on average, from which on they wait for each other; a lone client never has more than one. Weight of the newest turn. */
const CROWDED = 1.2;
const NEWEST = 1 / 16;

/** Where a search is to run. */
export type Place =
  /** Now, on the calling thread. */
  | 'here'
  /** In a worker: it takes too long, or nothing is known of its file. */
  | 'elsewhere'
  /** In a worker, for this thread has others waiting. */
  | 'relief';

/**
 * Decides which graph searches run at the call, on the thread that serves: for a lone request a worker would only add the way there and back. When
 * several come at a time, they and all else would wait behind each search: workers take what they can, a message costs this thread a tenth of it. Learns per index file how far the estimate is
 * from the truth.
 */
export class OwnThread {
  readonly #known = new Map<string, Learned>();
  readonly #pageFaults: () => number;
  readonly #nextTurn: (callback: () => void) => void;
  readonly #workers: number;
  #held = 0;
  /** Searches that came in this turn of the event loop, and in a turn that brought some, on average. */
  #inTurn = 0;
  #aTurn = 1;
  #elsewhere = 0;
  #faults = 0;
  #unlooked = LOOK_EVERY - 1;

  /**
   * `nextTurn` calls back once the event loop has turned. `pageFaults`: how many pages this process has read from disk so far. `workers`: how many
   * there are to turn to when searches come several at a time.
   */
  constructor(
    nextTurn: (callback: () => void) => void,
    pageFaults: () => number = () => process.resourceUsage().majorPageFault,
    workers = 0,
  ) {
    this.#nextTurn = nextTurn;
    this.#pageFaults = pageFaults;
    this.#workers = workers;
  }

  /** Where a search of an estimated cost should run. A file is first searched elsewhere: that brings its pages into memory. */
  placeOf(path: string, rows: number, estimateNs: number): Place {
    this.#untilTurn();
    this.#inTurn++;
    const learned = this.#known.get(path);
    if (!learned || rows > MAX_ROWS) return 'elsewhere';
    const ns = estimateNs * learned.ratio;
    // Only to a worker that has nothing to do: behind others a search would wait longer than here.
    const crowded = this.#elsewhere > 0 || this.#aTurn > CROWDED;
    if (crowded && ns > WORTH_NS && this.#elsewhere < this.#workers) return 'relief';
    return this.mayHold(ns) ? 'here' : 'elsewhere';
  }

  /** Whether the search that now runs at the call should be measured. */
  measures(path: string): boolean {
    const learned = this.#known.get(path);
    if (!learned) return false;
    return learned.searches++ < MEASURED_FIRST || learned.searches % MEASURED_EVERY === 0;
  }

  /** Whether work of such a cost, ns, may hold the calling thread now; what may counts as done at once. */
  mayHold(ns: number): boolean {
    if (ns > (this.#elsewhere > 0 ? AMONG_OTHERS_NS : ALONE_NS) || this.#held + ns > TURN_NS) return false;
    this.#untilTurn();
    this.#held += ns;
    return true;
  }

  #untilTurn(): void {
    if (this.#held === 0 && this.#inTurn === 0) this.#nextTurn(() => this.#turned());
  }

  #turned(): void {
    if (this.#inTurn > 0) this.#aTurn += NEWEST * (this.#inTurn - this.#aTurn);
    this.#held = 0;
    this.#inTurn = 0;
  }

  /**
   * A search at the call took this. What counts is its CPU time, since on a busy machine the clock mostly tells how long others ran; the clock counts
   * when the thread had to wait for pages of the file.
   */
  learn(path: string, estimateNs: number, { wallNs, cpuNs }: Measured): void {
    const learned = this.#known.get(path);
    if (!learned) return;
    const aside = wallNs > MUCH_LONGER * cpuNs;
    // Not looked: it may be either, and says nothing.
    if (aside && ++this.#unlooked < LOOK_EVERY) return;
    const waited = aside && this.#readFromDisk();
    const ratio = Math.min(MOST, (waited ? wallNs : cpuNs) / estimateNs);
    learned.ratio += (ratio > learned.ratio ? SLOWER : FASTER) * (ratio - learned.ratio);
  }

  /** A search of the file that runs elsewhere; `learns`: because of what is known of the file, which may be wrong by now. */
  async elsewhere<T>(path: string, work: () => Promise<T>, learns = true): Promise<T> {
    this.#elsewhere++;
    try {
      const result = await work();
      if (!learns) return result;
      const learned = this.#known.get(path);
      if (learned) learned.ratio *= FORGET;
      else this.#known.set(path, { ratio: 1, searches: 0 });
      return result;
    } finally {
      this.#elsewhere--;
    }
  }

  /** Whether pages came from disk since this was last looked at. While they do, each search is looked at. */
  #readFromDisk(): boolean {
    const faults = this.#pageFaults();
    const some = faults > this.#faults;
    this.#faults = faults;
    this.#unlooked = some ? LOOK_EVERY - 1 : 0;
    return some;
  }

  forget(path: string): void {
    this.#known.delete(path);
  }
}

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

/**
 * Decides which graph searches run at the call, on the thread that serves: a message to a worker and back costs about as much as a search of one
 * query, so sending it away would cost the serving thread nothing less. Learns per index file how far the estimate is from the truth.
 */
export class OwnThread {
  readonly #known = new Map<string, Learned>();
  readonly #pageFaults: () => number;
  readonly #nextTurn: (callback: () => void) => void;
  #held = 0;
  #elsewhere = 0;
  #faults = 0;
  #unlooked = LOOK_EVERY - 1;

  /** `nextTurn` calls back once the event loop has turned. `pageFaults`: how many pages this process has read from disk so far. */
  constructor(nextTurn: (callback: () => void) => void, pageFaults: () => number = () => process.resourceUsage().majorPageFault) {
    this.#nextTurn = nextTurn;
    this.#pageFaults = pageFaults;
  }

  /** Whether a search of an estimated cost should run at the call. A file is first searched elsewhere: that brings its pages into memory. */
  takes(path: string, rows: number, estimateNs: number): boolean {
    const learned = this.#known.get(path);
    if (!learned || rows > MAX_ROWS) return false;
    return this.mayHold(estimateNs * learned.ratio);
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
    if (this.#held === 0) this.#nextTurn(() => this.#turned());
    this.#held += ns;
    return true;
  }

  #turned(): void {
    this.#held = 0;
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

  /** A search of the file that runs elsewhere. */
  async elsewhere<T>(path: string, work: () => Promise<T>): Promise<T> {
    this.#elsewhere++;
    try {
      const result = await work();
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

/**
 * Well-known text of geometries, as far as storing needs it: is it one. A geometry is kept as the text that was sent; there are no predicates on it yet.
 * Grammar: OGC Simple Features, the seven types and their Z, M and ZM forms, EMPTY at every level.
 */
/** Depth of the parentheses around the positions of each type; a bare position has none. */
const DEPTHS: ReadonlyMap<string, number> = new Map([
  ['POINT', 1],
  ['LINESTRING', 1],
  ['POLYGON', 2],
  ['MULTIPOINT', 1],
  ['MULTILINESTRING', 2],
  ['MULTIPOLYGON', 3],
]);
const COLLECTION = 'GEOMETRYCOLLECTION';
/** Collections inside collections. */
const MAX_NESTING = 32;
const TOKENS = /\s*(?:([A-Za-z]+)|([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|([(),]))/y;

/** What is wrong with the text as WKT, or undefined when it is a geometry. Never throws; time grows with the length of the text. */
export function wktProblem(text: string): string | undefined {
  const tokens: string[] = [];
  TOKENS.lastIndex = 0;
  const end = text.trimEnd().length;
  while (TOKENS.lastIndex < end) {
    const at = TOKENS.lastIndex;
    const match = TOKENS.exec(text);
    if (!match) return `unexpected character at position ${at}`;
    tokens.push((match[1]?.toUpperCase() ?? match[2] ?? match[3]) as string);
  }
  const reader = new WktReader(tokens);
  reader.geometry(0);
  return reader.problem ?? (reader.atEnd ? undefined : `unexpected ${reader.next} after the geometry`);
}

/** Walks the tokens; the first problem stays. */
class WktReader {
  readonly #tokens: readonly string[];
  #at = 0;
  problem: string | undefined;

  constructor(tokens: readonly string[]) {
    this.#tokens = tokens;
  }

  get next(): string | undefined {
    return this.#tokens[this.#at];
  }

  get atEnd(): boolean {
    return this.#at === this.#tokens.length;
  }

  geometry(nesting: number): void {
    const type = this.next ?? '';
    const depth = DEPTHS.get(type);
    if (depth === undefined && type !== COLLECTION) {
      this.#fail(`${type === '' ? 'the end of the text' : type} is no geometry type`);
      return;
    }
    this.#at++;
    const dimensions = this.#dimensions();
    if (this.#take('EMPTY')) return;
    if (depth === undefined && nesting >= MAX_NESTING) this.#fail(`collections are nested deeper than ${MAX_NESTING}`);
    else if (depth === undefined) this.#list(() => this.geometry(nesting + 1));
    else if (type === 'POINT') this.#inParentheses(() => this.#position(dimensions));
    else if (type === 'MULTIPOINT') this.#list(() => this.#loosePosition(dimensions));
    else this.#positions(depth, dimensions);
  }

  /** Coordinates of a position: told by Z, M, ZM; 0 when the text does not tell, then 2 to 4. */
  #dimensions(): number {
    if (this.#take('Z') || this.#take('M')) return 3;
    return this.#take('ZM') ? 4 : 0;
  }

  #positions(depth: number, dimensions: number): void {
    if (this.#take('EMPTY')) return;
    this.#list(() => (depth === 1 ? this.#position(dimensions) : this.#positions(depth - 1, dimensions)));
  }

  /** Points of a MULTIPOINT stand in parentheses or bare. */
  #loosePosition(dimensions: number): void {
    if (this.#take('EMPTY')) return;
    if (this.next === '(') this.#inParentheses(() => this.#position(dimensions));
    else this.#position(dimensions);
  }

  #position(dimensions: number): void {
    let count = 0;
    while (this.next !== undefined && /^[-+.\d]/.test(this.next)) {
      count++;
      this.#at++;
    }
    const fits = dimensions === 0 ? count >= 2 && count <= 4 : count === dimensions;
    if (!fits) this.#fail(`a position has ${count} coordinates`);
  }

  #inParentheses(inner: () => void): void {
    if (!this.#take('(')) {
      this.#fail(`expected ( before ${this.next ?? 'the end'}`);
      return;
    }
    inner();
    if (this.problem === undefined && !this.#take(')')) this.#fail(`expected ) before ${this.next ?? 'the end'}`);
  }

  #list(item: () => void): void {
    this.#inParentheses(() => {
      do item();
      while (this.problem === undefined && this.#take(','));
    });
  }

  #take(token: string): boolean {
    if (this.next !== token) return false;
    this.#at++;
    return true;
  }

  #fail(problem: string): void {
    this.problem ??= problem;
  }
}

import type { Token } from './lexer.ts';
import { ParseProblem } from './parse-problem.ts';

/** Tokens of one filter and how far they are read. The last token is of kind `end` and is never passed. */
export class TokenCursor {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get following(): Token {
    return this.#tokens[Math.min(this.#at + 1, this.#tokens.length - 1)];
  }

  /** The current token, and on to the one after it. */
  next(): Token {
    return this.#tokens[this.#at++];
  }

  mark(): number {
    return this.#at;
  }

  reset(mark: number): void {
    this.#at = mark;
  }

  get current(): Token {
    return this.#tokens[this.#at];
  }

  /** Whether all tokens are read. */
  get ended(): boolean {
    return this.current.kind === 'end';
  }

  unexpected(): ParseProblem {
    return new ParseProblem(
      `unexpected ${this.current.kind === 'end' ? 'end of expression' : JSON.stringify(this.current.text)}`,
      this.current.position,
    );
  }

  is(text: string): boolean {
    return (this.current.kind === 'symbol' || this.current.kind === 'keyword') && this.current.text === text;
  }

  /** The current token when it is one of these, and on; else undefined and nothing moves. */
  take(...texts: string[]): Token | undefined {
    if (!texts.some((text) => this.is(text))) return undefined;
    return this.#tokens[this.#at++];
  }

  expect(text: string): Token {
    const token = this.take(text);
    if (!token)
      throw new ParseProblem(`expected ${JSON.stringify(text)}, found ${JSON.stringify(this.current.text)}`, this.current.position);
    return token;
  }
}

/** What is wrong with a filter and where; the parser turns it into a CairnError that quotes the text. */
export class ParseProblem extends Error {
  override readonly name = 'ParseProblem';
  readonly position: number;

  constructor(message: string, position: number) {
    super(message);
    this.position = position;
  }
}

/** A part of the language that is known and not built. */
export class UnsupportedPart extends Error {
  override readonly name = 'UnsupportedPart';
}

import { CairnError } from '@cairn/base';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Expr, fieldsOf, keyLookup, parseFilter } from '../src/index.ts';
import { FIELDS, SCHEMA } from './fixtures.ts';

const parse = (text: string): Expr => parseFilter(text, SCHEMA);
function failure(text: string): CairnError {
  try {
    parse(text);
  } catch (error) {
    if (error instanceof CairnError) return error;
    throw error;
  }
  throw new Error(`parsed: ${text}`);
}

describe('parseFilter', () => {
  it('reads the same tree from different spellings', () => {
    const pairs: [string, string][] = [
      ['count > 1 and id < 2', 'count>1&&id<2'],
      ['1 < count <= 5', 'count > 1 AND count <= 5'],
      ['5 >= count > 1', 'count <= 5 && count > 1'],
      ['3 < count', 'count > 3'],
      ['not (count > 1)', '!(count > 1)'],
      ['not count in [1]', 'not (count in [1])'],
      ['count in [1, 2,]', 'count IN [0x1, 0b10]'],
      ['name == "a\\"b"', "name == 'a\"b'"],
      ['name == "\\n"', 'name == "\\x0a"'],
      ['name like r"a\\%"', 'name like "a\\\\%"'],
      ['color == "red"', '$meta["color"] == "red"'],
      ['count == 2 + 3 * 2 ** 2', 'count == 14'],
      ['count == -2 ** 2', 'count == -4'],
      ['count == 010', 'count == 8'],
      ['ratio > 1e2', 'ratio > 100.0'],
      ['1 < 2 and count == 1', 'count == 1'],
      ['count == 1 or 1 == 1', ''],
      ['(count > 1) == true', 'count > 1'],
      ['big == -9223372036854775808', 'big == -0x8000000000000000'],
    ];
    // Names are kept as written, for messages only.
    const shape = (text: string): string =>
      JSON.stringify(parse(text), (key, value) => (key === 'name' ? undefined : typeof value === 'bigint' ? `${value}n` : value));
    for (const [a, b] of pairs) expect(shape(a), a).toBe(shape(b));
  });

  it('binds "and" tighter than "or", and bit operators looser than comparison', () => {
    expect(parse('flag or flag and count == 1')).toMatchObject({ kind: 'or', parts: [{ kind: 'bool' }, { kind: 'and' }] });
    expect(failure('count & 1 == 1').message).toContain('position');
    expect(parse('(count & 1) == 1')).toMatchObject({ kind: 'compare', left: { kind: 'arithmetic', op: '&' } });
  });

  it('says what is wrong and where', () => {
    const cases: [string, string][] = [
      ['count >', 'unexpected end of expression at position 7'],
      ['count > "a"', 'cannot compare field count (an integer) with "a" at position 6'],
      ['count == 99999999999999999999', 'out of range at position 9'],
      ['big == 9223372036854775808', 'out of range at position 4'],
      ['name == "a', 'string is not closed at position 8'],
      ['count in 5', 'needs a list of constants at position 6'],
      ['count in [1, "a"]', 'at position 6'],
      ['count / 0 == 1', 'division by zero at position 6'],
      ['count', 'is no condition at position 0'],
      ['vec == 1', 'that filters cannot read'],
      ['count["a"] == 1', 'neither JSON nor an array'],
      ['name like 5', 'needs a string pattern'],
      ['count == {missing}', 'template {missing} has no value'],
      ['count == 1 )', 'unexpected ")" at position 11'],
      ['1 < count > 2', 'the signs of a range point the same way'],
      ['name =~ "(a+)+b"', 'refused'],
      ['name == "\\q"', 'unknown escape sequence'],
      ['# == 1', 'unexpected character "#" at position 0'],
    ];
    for (const [text, part] of cases) {
      const error = failure(text);
      expect([error.codeName, error.message]).toEqual(['InvalidParameter', expect.stringContaining(part)]);
      expect(error.message).toContain(`cannot parse expression: ${text}, error: `);
    }
  });

  it('names the nearest field when there is no dynamic field', () => {
    const { dynamicField: _, ...rest } = SCHEMA;
    const closed = { ...rest, dynamicField: undefined, byName: new Map(Object.values(FIELDS).map((f) => [f.name, f])) };
    expect(() => parseFilter('cuont > 1', closed)).toThrow('field cuont does not exist, did you mean count?');
  });

  it('answers NotSupported for what is not built', () => {
    for (const text of ['text_match(name, "a")', 'ST_WITHIN(doc, "POINT")', 'phrase_match(name, "a b", 1)'])
      expect(failure(text)).toMatchObject({ codeName: 'NotSupported', message: expect.stringContaining('not supported: ') });
  });

  it('takes values from templates', () => {
    const templates = { keys: [1n, 2n], text: 'x', limit: 2.5 };
    expect(parseFilter('id in {keys} and name == {text} and ratio < {limit}', SCHEMA, templates)).toEqual(
      parse('id in [1, 2] and name == "x" and ratio < 2.5'),
    );
  });

  it('limits depth and list length', () => {
    expect(failure(`${'('.repeat(500)}flag${')'.repeat(500)}`).message).toContain('nested deeper than 200');
    expect(failure(`count${' + id'.repeat(300)} == 1`).message).toContain('nested deeper than 200');
    expect(failure(`${'not '.repeat(100_000)}flag`).message).toContain('nested deeper than 200');
    expect(failure(`count in [${'1,'.repeat(65_537)}]`).message).toContain('longer than 65536');
    expect(parse(`count in [${'1,'.repeat(65_536)}]`)).toMatchObject({ kind: 'in' });
    expect(parse(Array.from({ length: 5_000 }, (_, i) => `count == ${i}`).join(' or '))).toMatchObject({ kind: 'or' });
  });

  it('never throws anything but a CairnError, whatever the text', () => {
    const words = fc.constantFrom(
      'count',
      'name',
      'doc',
      'tags',
      'flag',
      '(',
      ')',
      '[',
      ']',
      ',',
      '==',
      '<',
      'in',
      'not',
      'and',
      'or',
      'like',
      '"a"',
      '1',
      '2.5',
      '-',
      '**',
      '%',
      'is null',
      'exists',
      'array_length',
      'json_contains',
      '{x}',
      '$meta',
      'true',
      '~',
      '|',
      'random_sample',
    );
    const soup = fc.array(words, { maxLength: 12 }).map((parts) => parts.join(' '));
    fc.assert(
      fc.property(fc.oneof(soup, fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ maxLength: 40 })), (text) => {
        try {
          parse(text);
        } catch (error) {
          expect(error).toBeInstanceOf(CairnError);
        }
      }),
      { numRuns: 5000 },
    );
  });
});

describe('analysis', () => {
  it('finds the fields that a filter reads', () => {
    expect(fieldsOf(parse('count + id > 3 and (name like "a%" or array_length(tags) > 1) and color is null'))).toEqual(
      new Set([102, 100, 106, 107, 112]),
    );
  });

  it('recognises look-ups by key', () => {
    expect(keyLookup(parse('id in [1, 2]'), 100)).toEqual([1n, 2n]);
    expect(keyLookup(parse('id == 7'), 100)).toEqual([7n]);
    expect(keyLookup(parse('count > 3 and id in [5]'), 100)).toEqual([5n]);
    for (const text of ['id not in [1]', 'id > 1', 'id == 1 or count == 1', 'not (id == 1)'])
      expect(keyLookup(parse(text), 100)).toBeUndefined();
  });
});

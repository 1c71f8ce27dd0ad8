import { describe, expect, it } from 'vitest';
import { wktProblem } from '../src/index.ts';

describe('well-known text', () => {
  it.each([
    'POINT (1 2)',
    ' point(-1.5 2e3) ',
    'POINT EMPTY',
    'POINT Z (1 2 3)',
    'POINT ZM (1 2 3 4)',
    'LINESTRING (0 0, 1 1, .5 2.)',
    'POLYGON ((0 0, 1 0, 1 1, 0 0), (0.1 0.1, 0.2 0.1, 0.2 0.2, 0.1 0.1))',
    'MULTIPOINT ((1 2), 3 4, EMPTY)',
    'MULTILINESTRING ((0 0, 1 1), EMPTY)',
    'MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), EMPTY)',
    'GEOMETRYCOLLECTION (POINT (1 2), GEOMETRYCOLLECTION (LINESTRING (0 0, 1 1)))',
  ])('is a geometry: %s', (text) => {
    expect(wktProblem(text)).toBeUndefined();
  });

  it.each([
    '',
    'CIRCLE (1 2)',
    'POINT',
    'POINT (1)',
    'POINT (1 2',
    'POINT (1 2) x',
    'POINT (1 2, 3 4)',
    'POINT Z (1 2)',
    'POLYGON (0 0, 1 1)',
    'LINESTRING ()',
    'POINT (a b)',
    'POINT [1 2]',
    `${'GEOMETRYCOLLECTION ('.repeat(40)}POINT (1 2)${')'.repeat(40)}`,
  ])('is none, and says why: %s', (text) => {
    expect(wktProblem(text)).toEqual(expect.any(String));
  });
});

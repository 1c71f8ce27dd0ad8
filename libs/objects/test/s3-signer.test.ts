import { describe, expect, test } from 'vitest';
import { EMPTY_HASH, encodePath, S3Signer, type Signable, sha256 } from '../src/s3-signer.ts';
import { elementsOf, escapeXml, textOf } from '../src/s3-xml.ts';

/** The examples of the S3 API reference: key, time and bucket are theirs. */
const CREDENTIALS = { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' };
const AT_MS = Date.UTC(2013, 4, 24);
const HOST = { host: 'examplebucket.s3.amazonaws.com' };

const EXAMPLES: readonly { readonly what: string; readonly request: Partial<Signable>; readonly signature: string }[] = [
  {
    what: 'GET of a range',
    request: { path: '/test.txt', headers: { ...HOST, range: 'bytes=0-9' } },
    signature: 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  },
  {
    what: 'PUT with a body and a key that is encoded',
    request: {
      method: 'PUT',
      path: encodePath('/test$file.text'),
      headers: { ...HOST, date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      bodyHash: sha256('Welcome to Amazon S3.'),
    },
    signature: '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
  },
  {
    what: 'a parameter without a value',
    request: { path: '/', query: { lifecycle: '' } },
    signature: 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543',
  },
  {
    what: 'parameters in any order',
    request: { path: '/', query: { prefix: 'J', 'max-keys': '2' } },
    signature: '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  },
];

describe('signatures of requests to S3', () => {
  for (const { what, request, signature } of EXAMPLES) {
    test(`are those of the specification: ${what}`, () => {
      const whole: Signable = { method: 'GET', path: '/', query: {}, headers: HOST, bodyHash: EMPTY_HASH, ...request };
      const { authorization } = new S3Signer('us-east-1').sign(whole, CREDENTIALS, AT_MS);
      expect(authorization.split('Signature=')[1]).toBe(signature);
    });
  }

  test('change with the day, the keys and the session, though the key of a day is kept', () => {
    const signer = new S3Signer('us-east-1');
    const request: Signable = { method: 'GET', path: '/', query: {}, headers: HOST, bodyHash: EMPTY_HASH };
    const of = (credentials: typeof CREDENTIALS & { sessionToken?: string }, atMs: number) =>
      signer.sign(request, credentials, atMs).authorization;
    const all = [
      of(CREDENTIALS, AT_MS),
      of(CREDENTIALS, AT_MS + 86_400_000),
      of({ ...CREDENTIALS, secretAccessKey: 'another' }, AT_MS + 86_400_000),
      of({ ...CREDENTIALS, sessionToken: 'of a role' }, AT_MS),
    ];
    expect(new Set(all).size).toBe(all.length);
    expect(of(CREDENTIALS, AT_MS)).toBe(all[0]);
    expect(all[3]).toContain('x-amz-security-token');
  });
});

describe('XML of S3', () => {
  test('texts come as they were written, also those that are escaped', () => {
    const key = `a&b<c>"d'e#&amp;`;
    expect(textOf(`<R><Key>${escapeXml(key)}</Key></R>`, 'Key')).toBe(key);
    expect(textOf('<R><ETag>&quot;1&#x2d;2&quot;</ETag></R>', 'ETag')).toBe('"1-2"');
    expect(textOf('<R><Key/></R>', 'Key')).toBeUndefined();
    expect([...elementsOf('<R><C><K>1</K></C><D/><C></C></R>', 'C')]).toEqual(['<K>1</K>', '']);
    expect([...elementsOf('<R><C>cut', 'C')]).toEqual([]);
  });
});

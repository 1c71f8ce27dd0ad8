import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import { SystemRuntime } from '@cairn/base';
import { afterEach, describe, expect, test } from 'vitest';
import { S3ObjectStore, type S3Options } from '../src/s3-object-store.ts';

/** What no real server does when asked: answers that are cut, late or wrong, from a server of the test's own. */
type Handler = (request: IncomingMessage, response: ServerResponse, call: number) => void;
const ended: (() => Promise<unknown>)[] = [];

async function storeOver(handler: Handler, options: Partial<S3Options> = {}): Promise<{ store: S3ObjectStore; calls: () => number }> {
  let calls = 0;
  const server = http.createServer((request, response) => {
    const call = ++calls;
    request.resume().on('end', () => handler(request, response, call));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const given = { endpoint: `http://127.0.0.1:${port}`, region: 'us-east-1', bucket: 'b', root: 'r', pathStyle: true };
  const store = new S3ObjectStore({ ...given, accessKeyId: 'key', secretAccessKey: 'secret', ...options }, new SystemRuntime());
  ended.push(async () => {
    await store.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { store, calls: () => calls };
}

const COPIED = '<CopyObjectResult><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&#34;abc&#34;</ETag></CopyObjectResult>';
const errorOf = (code: string): string => `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>m</Message></Error>`;
const thrownBy = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

describe('answers of S3', () => {
  afterEach(async () => {
    await Promise.all(ended.splice(0).map((end) => end()));
  });

  test('an error inside a 200 is no copy: tried again, and told as what it is', async () => {
    const { store, calls } = await storeOver((_, response, call) => response.end(call === 1 ? errorOf('InternalError') : COPIED));
    expect(await store.copy('a', 'b', { size: 5 })).toEqual({ key: 'b', size: 5, etag: 'abc', modifiedMs: Date.UTC(2026, 0, 2, 3, 4, 5) });
    expect(calls()).toBe(2);
    const refused = await storeOver((_, response) => response.end(errorOf('PreconditionFailed')));
    expect(await thrownBy(refused.store.copy('a', 'b', { size: 5, ifMatch: 'x' }))).toMatchObject({ codeName: 'ObjectDamaged' });
    expect(refused.calls()).toBe(1);
  });

  test('spaces before an answer keep a long copy alive and change nothing', async () => {
    const { store } = await storeOver((_, response) => response.end(`   ${COPIED}`));
    expect((await store.copy('a', 'b', { size: 5 })).etag).toBe('abc');
    const late = await storeOver((_, response) => response.end(`   ${errorOf('SlowDown')}`), { attempts: 1 });
    expect(await thrownBy(late.store.copy('a', 'b', { size: 5 }))).toMatchObject({ codeName: 'StoreUnavailable', retriable: true });
  });

  test('an answer without the result of a copy is no copy', async () => {
    const { store } = await storeOver((_, response) => response.end(), { attempts: 1 });
    expect(await thrownBy(store.copy('a', 'b', { size: 5 }))).toMatchObject({ codeName: 'StoreUnavailable', retriable: true });
  });

  test('an object whose answer is cut is read again, never half', async () => {
    const { store, calls } = await storeOver((_, response, call) => {
      response.writeHead(200, { 'content-length': 10 });
      if (call > 1) return void response.end('0123456789');
      response.write('01234');
      setImmediate(() => response.destroy());
    });
    expect(Buffer.from(await store.get('a')).toString()).toBe('0123456789');
    expect(calls()).toBe(2);
  });

  test('a server whose clock is another is told its own time at the second try', async () => {
    const theirs = Date.UTC(2031, 5, 1);
    const { store, calls } = await storeOver((request, response) => {
      const right = String(request.headers['x-amz-date']).startsWith('20310601T0000');
      const body = right ? '1' : errorOf('RequestTimeTooSkewed');
      response.writeHead(right ? 200 : 403, { date: new Date(theirs).toUTCString(), 'content-length': body.length });
      response.end(body);
    });
    expect((await store.get('a')).length).toBe(1);
    await store.get('b');
    expect(calls()).toBe(3);
  });

  test('a caller that gives up ends its call, and only that one', async () => {
    const waiting: ServerResponse[] = [];
    const { store } = await storeOver((_, response) => void waiting.push(response));
    const one = new AbortController();
    const given = thrownBy(store.get('a', one.signal));
    const kept = store.get('b');
    while (waiting.length < 2) await new Promise((resolve) => setImmediate(resolve));
    one.abort();
    expect(await given).toMatchObject({ codeName: 'Cancelled' });
    for (const response of waiting) response.end('x');
    expect((await kept).length).toBe(1);
  });
});

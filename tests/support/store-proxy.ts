/**
 * A small HTTP proxy before an object store, that can be slow, refuse, and break connections: what a real one does on a bad day. Requests go on with
 * their headers as they came, so that signatures hold.
 */
import { Agent, createServer, request as forward, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { freePorts } from './servers.ts';

/** `slow`: a second before each request goes on. `refuse`: 503 to every third. `full`: no room for anything that would be written. `cut`: a third of the writes and copies is done, and the connection
 * breaks before, or in the middle of, the answer. */
export type StoreMood = 'well' | 'slow' | 'refuse' | 'full' | 'cut';

/** A request that was caught on its way. */
export interface Caught {
  readonly path: string;
}

interface Trap {
  readonly path: RegExp;
  readonly when: 'before' | 'after';
  readonly spring: (caught: Caught) => void;
}

const SLOW_MS = 1_000;
const EVERY = 3;
const SLOW_DOWN = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>';
/** As MinIO says that its disks are full. */
const STORAGE_FULL =
  '<?xml version="1.0" encoding="UTF-8"?><Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its minimum free drive threshold.</Message></Error>';
const FULL_STATUS = 507;

export class StoreProxy {
  mood: StoreMood = 'well';
  readonly #target: URL;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #server: Server;
  #port = 0;
  #requests = 0;
  /** Requests that it hurt. */
  hurt = 0;
  #trap: Trap | undefined;

  constructor(target: string) {
    this.#target = new URL(target);
    this.#server = createServer((request, response) => this.#pass(request, response));
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    [this.#port = 0] = await freePorts(1);
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    this.#agent.destroy();
  }

  /**
   * The next PUT of such a path never gets an answer: `before`, it never reaches the store; `after`, it is done there. Resolves when it is caught.
   */
  catchPut(path: RegExp, when: 'before' | 'after'): Promise<Caught> {
    return new Promise((resolve) => {
      this.#trap = { path, when, spring: resolve };
    });
  }

  #pass(request: IncomingMessage, response: ServerResponse): void {
    const trap = this.#trap;
    const url = request.url ?? '';
    if (trap && request.method === 'PUT' && trap.path.test(url)) {
      this.#trap = undefined;
      request.on('error', () => undefined);
      if (trap.when === 'before') {
        request.resume();
        trap.spring({ path: url });
      } else this.#send(request, response, false, () => trap.spring({ path: url }));
      return;
    }
    const number = ++this.#requests;
    if (this.mood === 'slow') {
      this.hurt++;
      setTimeout(() => this.#send(request, response, false), SLOW_MS);
    } else if (this.mood === 'refuse' && number % EVERY === 0) this.#refuse(request, response, 503, SLOW_DOWN);
    else if (this.mood === 'full' && request.method === 'PUT') this.#refuse(request, response, FULL_STATUS, STORAGE_FULL);
    else {
      const cut = this.mood === 'cut' && request.method === 'PUT' && number % EVERY === 0;
      if (cut) this.hurt++;
      this.#send(request, response, cut);
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, status: number, error: string): void {
    this.hurt++;
    request.resume();
    request.on('end', () => response.writeHead(status, { 'content-type': 'application/xml' }).end(error));
  }

  /** `caught`: called instead of answering, once the store has answered. */
  #send(request: IncomingMessage, response: ServerResponse, cut: boolean, caught?: () => void): void {
    const { hostname, port } = this.#target;
    const { method, url: path, headers } = request;
    const onward = forward({ hostname, port, method, path, headers, agent: this.#agent }, (answer) => {
      if (caught) {
        answer.resume();
        caught();
        return;
      }
      if (cut) {
        answer.resume();
        response.destroy();
        return;
      }
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.on('error', () => onward.destroy());
    request.pipe(onward);
  }
}

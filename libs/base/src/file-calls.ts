import * as sync from 'node:fs';
import * as promises from 'node:fs/promises';
import type { Runtime } from './runtime.ts';

/** A file that is open for reading or writing at positions. */
export interface OpenFile {
  stat(): Promise<{ readonly size: number }>;
  /** Reads `length` bytes of the file from `position` on into `buffer` at `offset`; fewer at the end of the file. */
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ readonly bytesRead: number }>;
  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ readonly bytesWritten: number }>;
  close(): Promise<void>;
}

/** The calls to local files that caches and scratch space need; errors are those of Node. */
export interface FileCalls {
  /** With all above it; one that is there is fine. */
  mkdir(path: string): Promise<unknown>;
  readdir(path: string): Promise<readonly string[]>;
  open(path: string, flags: 'r' | 'wx'): Promise<OpenFile>;
  stat(path: string): Promise<{ readonly size: number }>;
  rename(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
}

const APART: FileCalls = {
  mkdir: (path) => promises.mkdir(path, { recursive: true }),
  readdir: (path) => promises.readdir(path),
  open: (path, flags) => promises.open(path, flags),
  stat: (path) => promises.stat(path),
  rename: (from, to) => promises.rename(from, to),
  unlink: (path) => promises.unlink(path),
};

const AT_ONCE: FileCalls = {
  mkdir: async (path) => sync.mkdirSync(path, { recursive: true }),
  readdir: async (path) => sync.readdirSync(path),
  open: async (path, flags) => {
    const fd = sync.openSync(path, flags);
    return {
      stat: async () => sync.fstatSync(fd),
      read: async (buffer, offset, length, position) => ({ bytesRead: sync.readSync(fd, buffer, offset, length, position) }),
      write: async (buffer, offset, length, position) => ({ bytesWritten: sync.writeSync(fd, buffer, offset, length, position) }),
      close: async () => sync.closeSync(fd),
    };
  },
  stat: async (path) => sync.statSync(path),
  rename: async (from, to) => sync.renameSync(from, to),
  unlink: async (path) => sync.unlinkSync(path),
};

/** Under `inline` a call is done when it returns: virtual time does not pass by a disk that it knows nothing of. */
export function fileCalls(runtime: Pick<Runtime, 'inline'>): FileCalls {
  return runtime.inline ? AT_ONCE : APART;
}

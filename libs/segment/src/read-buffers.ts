/** Smaller objects have memory of their own: it costs next to nothing. */
const SMALL_BYTES = 64 * 1024;
/** Buffers are made in steps of this, so that objects of about the same size share them. */
const STEP_BYTES = 256 * 1024;
/** A buffer is not used for an object that would leave more than this share of it empty. */
const MOST_EMPTY = 0.75;

/**
 * Buffers that are used again for the next object, while there is reading to do, and that worker threads see as they are. Memory new to the process
 * costs as much as reading a file into it, and a buffer that is moved between threads counts as new memory in each: the collector of garbage ran every
 * third object.
 */
export class ReadBuffers {
  readonly #keptBytes: number;
  readonly #kept: SharedArrayBuffer[] = [];
  #bytes = 0;

  /** `keptBytes`: of the buffers that wait for their next use. */
  constructor(keptBytes: number) {
    this.#keptBytes = keptBytes;
  }

  /** Room of exactly so many bytes; what is in it is of no meaning. */
  take(bytes: number): Uint8Array {
    if (bytes < SMALL_BYTES) return new Uint8Array(bytes);
    const at = this.#kept.findIndex(({ byteLength }) => byteLength >= bytes && bytes >= byteLength * (1 - MOST_EMPTY));
    if (at < 0) return new Uint8Array(new SharedArrayBuffer(Math.ceil(bytes / STEP_BYTES) * STEP_BYTES), 0, bytes);
    const [buffer] = this.#kept.splice(at, 1);
    this.#bytes -= buffer.byteLength;
    return new Uint8Array(buffer, 0, bytes);
  }

  /** Room that nobody reads or writes any more. */
  giveBack({ buffer }: Uint8Array): void {
    if (!(buffer instanceof SharedArrayBuffer) || this.#bytes + buffer.byteLength > this.#keptBytes) return;
    this.#kept.push(buffer);
    this.#bytes += buffer.byteLength;
  }
}

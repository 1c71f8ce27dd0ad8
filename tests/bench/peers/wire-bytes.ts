/** The few protobuf fields that Weaviate's requests need, written by hand: its messages are not among ours. */
function varint(value: number): number[] {
  const bytes: number[] = [];
  for (let left = value; ; left = Math.floor(left / 128)) {
    if (left < 128) return [...bytes, left];
    bytes.push((left % 128) | 0x80);
  }
}

export const integerField = (field: number, value: number): Uint8Array => Uint8Array.from([...varint(field * 8), ...varint(value)]);

/** A message, bytes or a text. */
export function bytesField(field: number, value: Uint8Array | string): Uint8Array {
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
  return join(Uint8Array.from([...varint(field * 8 + 2), ...varint(bytes.length)]), bytes);
}

export function doubleField(field: number, value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setFloat64(0, value, true);
  return join(Uint8Array.from(varint(field * 8 + 1)), bytes);
}

export const join = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(parts));

/** Values of a length-delimited field of a message. */
export function fieldsOf(message: Uint8Array, field: number): Uint8Array[] {
  const found: Uint8Array[] = [];
  let at = 0;
  const read = (): number => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = message[at++] ?? 0;
      value += (byte & 0x7f) * unit;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const key = read();
    const kind = key % 8;
    if (kind === 0) read();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else {
      const length = read();
      if (Math.floor(key / 8) === field) found.push(message.subarray(at, at + length));
      at += length;
    }
  }
  return found;
}

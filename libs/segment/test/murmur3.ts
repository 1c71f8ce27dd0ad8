/** MurmurHash3_x86_128 with seed 0 over any bytes, written for clearness, as a reader of docs/format.md might: the digest as a little-endian number. */
export function murmur3(bytes: Uint8Array): bigint {
  const c = [0x239b961bn, 0xab0e9789n, 0x38b34ae5n, 0xa1e38b93n];
  const first = [15n, 16n, 17n, 18n];
  const second = [19n, 17n, 15n, 13n];
  const add = [0x561ccd1bn, 0x0bcaa747n, 0x96cd1c35n, 0x32ac3b17n];
  const u32 = (n: bigint) => n & 0xffffffffn;
  const rotate = (n: bigint, by: bigint) => u32(n << by) | (u32(n) >> (32n - by));
  const h = [0n, 0n, 0n, 0n];
  const scramble = (k: bigint, lane: number) => u32(rotate(u32(k * c[lane]), first[lane]) * c[(lane + 1) % 4]);
  const whole = bytes.byteLength - (bytes.byteLength % 16);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < whole; at += 16)
    for (let lane = 0; lane < 4; lane++) {
      h[lane] ^= scramble(BigInt(view.getUint32(at + lane * 4, true)), lane);
      h[lane] = u32(u32(rotate(h[lane], second[lane]) + h[(lane + 1) % 4]) * 5n + add[lane]);
    }
  const tail = new Uint8Array(16);
  tail.set(bytes.subarray(whole));
  const rest = new DataView(tail.buffer);
  if (whole < bytes.byteLength) for (let lane = 0; lane < 4; lane++) h[lane] ^= scramble(BigInt(rest.getUint32(lane * 4, true)), lane);
  for (let lane = 0; lane < 4; lane++) h[lane] ^= BigInt(bytes.byteLength);
  const stir = () => {
    h[0] = u32(h[0] + h[1] + h[2] + h[3]);
    for (let lane = 1; lane < 4; lane++) h[lane] = u32(h[lane] + h[0]);
  };
  stir();
  for (let lane = 0; lane < 4; lane++) {
    h[lane] = u32((h[lane] ^ (h[lane] >> 16n)) * 0x85ebca6bn);
    h[lane] = u32((h[lane] ^ (h[lane] >> 13n)) * 0xc2b2ae35n);
    h[lane] ^= h[lane] >> 16n;
  }
  stir();
  return h[0] | (h[1] << 32n) | (h[2] << 64n) | (h[3] << 96n);
}

// Frames of RFC 6455, as both ends of a test need them: unfragmented, without extensions.

export const TEXT = 1;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

/** One frame. A player's are masked. */
export function frame(opcode, payload, masked = false) {
  const data = Buffer.from(payload);
  const long = data.length < 126 ? 0 : data.length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + long);
  head[0] = 0x80 | opcode;
  head[1] = (masked ? 0x80 : 0) | (long === 0 ? data.length : long === 2 ? 126 : 127);
  if (long === 2) head.writeUInt16BE(data.length, 2);
  if (long === 8) head.writeBigUInt64BE(BigInt(data.length), 2);
  if (!masked) return Buffer.concat([head, data]);
  const mask = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
  for (let at = 0; at < data.length; at++) data[at] ^= mask[at % 4];
  return Buffer.concat([head, mask, data]);
}

/** The payload of a close frame; none without a code. */
export function closing(code, reason = "") {
  if (code === undefined) return Buffer.alloc(0);
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return payload;
}

/** The code of a close frame: 1005 stands for none. */
export function codeOf(payload) {
  return payload.length >= 2 ? payload.readUInt16BE() : 1005;
}

/** Takes bytes, gives frames: `[{opcode, payload}]`. */
export class Reader {
  #bytes = Buffer.alloc(0);

  push(chunk) {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const frames = [];
    for (let next = this.#next(); next; next = this.#next()) frames.push(next);
    return frames;
  }

  #next() {
    const bytes = this.#bytes;
    if (bytes.length < 2) return null;
    const masked = (bytes[1] & 0x80) !== 0;
    const short = bytes[1] & 0x7f;
    const head = 2 + (short === 126 ? 2 : short === 127 ? 8 : 0);
    if (bytes.length < head) return null;
    const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
    const start = head + (masked ? 4 : 0);
    if (bytes.length < start + length) return null;
    const payload = Buffer.from(bytes.subarray(start, start + length));
    if (masked) for (let at = 0; at < length; at++) payload[at] ^= bytes[head + (at % 4)];
    this.#bytes = bytes.subarray(start + length);
    return { opcode: bytes[0] & 0x0f, payload };
  }
}

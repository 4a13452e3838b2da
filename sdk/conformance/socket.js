// A WebSocket for Node without one of its own (before 22): what the SDK needs of it, for tests. Applications take the
// package `ws`, or a newer Node.
import { randomBytes } from "node:crypto";
import net from "node:net";
import tls from "node:tls";
import { CLOSE, PING, PONG, Reader, TEXT, closing, codeOf, frame } from "./frames.js";

export class NodeSocket {
  readyState = 0;
  protocol = "";
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  #stream;
  #reader = new Reader();
  #head = Buffer.alloc(0);
  #code = 1006;

  /** TLS settings of every socket, such as `ca`. */
  static tls = {};

  constructor(url, protocols = []) {
    const { protocol, hostname, port, host, pathname, search } = new URL(url);
    const secure = protocol === "wss:";
    const to = { host: hostname, port: Number(port || (secure ? 443 : 80)) };
    this.#stream = secure ? tls.connect({ ...to, servername: "localhost", ...NodeSocket.tls }) : net.connect(to);
    const offered = [protocols].flat().join(", ");
    this.#stream.on(secure ? "secureConnect" : "connect", () => {
      this.#stream.write([
        `GET ${pathname}${search} HTTP/1.1`, `Host: ${host}`, "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}`,
        ...(offered ? [`Sec-WebSocket-Protocol: ${offered}`] : []), "", "",
      ].join("\r\n"));
    });
    this.#stream.on("data", (chunk) => this.#hear(chunk));
    this.#stream.on("error", () => this.onerror?.({ type: "error" }));
    this.#stream.on("close", () => {
      this.readyState = 3;
      this.onclose?.({ type: "close", code: this.#code, reason: "", wasClean: this.#code !== 1006 });
    });
  }

  send(text) {
    if (this.readyState === 1) this.#stream.write(frame(TEXT, text, true));
  }

  close(code) {
    if (this.readyState === 0) this.#stream.destroy();
    else if (this.readyState === 1) this.#stream.write(frame(CLOSE, closing(code), true));
    this.readyState = Math.max(this.readyState, 2);
  }

  #hear(chunk) {
    if (this.readyState === 0) {
      this.#head = Buffer.concat([this.#head, chunk]);
      const end = this.#head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = this.#head.subarray(0, end).toString();
      if (!head.startsWith("HTTP/1.1 101")) return this.#stream.destroy();
      this.protocol = /^sec-websocket-protocol: *(.*)$/im.exec(head)?.[1] ?? "";
      this.readyState = 1;
      this.onopen?.({ type: "open" });
      chunk = this.#head.subarray(end + 4);
    }
    for (const { opcode, payload } of this.#reader.push(chunk)) {
      if (opcode === TEXT) this.onmessage?.({ type: "message", data: payload.toString() });
      else if (opcode === PING) this.#stream.write(frame(PONG, payload, true));
      else if (opcode === CLOSE) {
        this.#code = codeOf(payload);
        if (this.readyState === 1) this.#stream.write(frame(CLOSE, payload, true));
        this.readyState = 2;
        this.#stream.end(() => this.#stream.destroy());
      }
    }
  }
}

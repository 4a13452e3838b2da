// One run of one case: the gateway's side of the script, and its judgement.
import { createHash } from "node:crypto";
import { CLOSE, PING, PONG, Reader, TEXT, closing, codeOf, frame } from "./frames.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** One connection, from the upgrade to its end. */
class Connection {
  startedAt = Date.now();
  endedAt = null;
  /** Frames of the player that no step has taken yet. */
  unread = [];
  all = [];
  closeCode = null;
  granted = false;
  draining = false;
  deaf = false;
  #arrived = () => {};

  constructor(socket, url, token) {
    this.socket = socket;
    this.query = Object.fromEntries(url.searchParams);
    this.token = token;
    const reader = new Reader();
    socket.on("data", (chunk) => { for (const one of reader.push(chunk)) this.#frame(one); });
    socket.on("error", () => {});
    socket.on("end", () => socket.end());
    socket.on("close", () => { this.endedAt ??= Date.now(); this.#arrived(); });
  }

  get open() { return this.endedAt === null; }

  upgrade(key) {
    const accept = createHash("sha1").update(key + GUID).digest("base64");
    this.socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
      + `Sec-WebSocket-Protocol: usher.v1\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
  }

  send(message) {
    this.socket.write(frame(TEXT, typeof message === "string" ? message : JSON.stringify(message)));
  }

  close(code) {
    this.endedAt ??= Date.now();
    this.socket.write(frame(CLOSE, closing(code)));
    setTimeout(() => this.socket.destroy(), 200);
  }

  cut() {
    this.endedAt ??= Date.now();
    this.socket.resetAndDestroy();
  }

  #frame({ opcode, payload }) {
    if (opcode === PING) this.socket.write(frame(PONG, payload));
    if (opcode === CLOSE) {
      this.closeCode ??= codeOf(payload);
      if (this.open) this.socket.end(frame(CLOSE, payload));
      this.endedAt ??= Date.now();
    }
    if (opcode === TEXT) {
      const message = JSON.parse(payload.toString());
      this.unread.push(message);
      this.all.push(message);
      if (!this.deaf) this.#answer(message);
    }
    this.#arrived();
  }

  /** What every gateway does. */
  #answer({ type, id }) {
    if (type === "stop" && this.open) {
      this.send({ type: "ended", code: "stopped", detail: "the player stopped", id });
      this.close(4000);
    } else if (!["heartbeat", "switch", "takeover", "wait", "takeover_answer", "token", "stop", "message"].includes(type)) {
      this.send({ type: "error", code: "unknown_type", detail: "", id });
    }
  }

  /** The first frame that fits, also one that came before; null after this time or the connection's end. */
  async awaits(pattern, withinMs) {
    const deadline = Date.now() + withinMs;
    const fits = (message) => Object.entries(pattern).every(([key, value]) => message[key] === value);
    for (;;) {
      const at = this.unread.findIndex(fits);
      if (at >= 0) return this.unread.splice(0, at + 1).at(-1);
      const left = deadline - Date.now();
      if (left <= 0 || !this.open) return null;
      await Promise.race([new Promise((arrived) => { this.#arrived = arrived; }), sleep(left)]);
    }
  }
}

/** A case that runs. */
export class Run {
  connections = [];
  problems = [];
  #case;
  #defaults;
  #secret;
  #refusal = null;
  #running = 0;
  #lastAt = Date.now();

  constructor(id, chosen, defaults) {
    this.id = id;
    this.#case = chosen;
    this.#defaults = defaults;
    this.#secret = `secret${id}`.padEnd(22, "x").slice(0, 22);
  }

  /** A plain request to the watch URL: refused as the last upgrade was, else it lacks the upgrade. */
  plain() {
    return this.#refusal ?? { status: 426, code: "upgrade_required" };
  }

  /** An upgrade. */
  async connect(request, socket, url) {
    const offered = (request.headers["sec-websocket-protocol"] ?? "").split(/, */);
    const bearer = offered.find((one) => one.startsWith("bearer."));
    const token = bearer?.slice(7) ?? request.headers.authorization?.replace(/^Bearer /, "") ?? url.searchParams.get("token");
    const connection = new Connection(socket, url, token);
    const number = this.connections.push(connection);
    this.#lastAt = Date.now();
    const script = this.#case.connections[number - 1];
    if (!script) {
      this.problems.push(`connection ${number}: one more than the ${this.#case.connections.length} that may come`);
      return connection.cut();
    }
    this.#judgeStart(script, connection, number);
    this.#running++;
    try {
      await this.#play(script, connection, request, number);
    } catch (error) {
      this.problems.push(`connection ${number}: ${error.message}`);
    }
    this.#running--;
    this.#lastAt = Date.now();
  }

  #judgeStart(script, connection, number) {
    const problem = (text) => this.problems.push(`connection ${number}: ${text}`);
    if (!connection.token) problem("no token");
    const { query } = connection;
    if (script.resume === true && query.resume !== this.#secret) problem(`resume must be the granted secret, not ${query.resume}`);
    if (script.resume === false && query.resume !== undefined) problem("resume must be forgotten");
    for (const [name, value] of Object.entries({ ...this.#defaults.query, ...script.query })) {
      if (query[name] !== value) problem(`${name} is ${query[name]} instead of ${value}`);
    }
    const before = this.connections[number - 2];
    if (script.fresh_token && connection.token === before?.token) problem("the token is the one that was refused");
    if (script.gap_ms && before) {
      const [least, most] = script.gap_ms;
      const gap = connection.startedAt - (before.endedAt ?? before.startedAt);
      // A timer may fire a little early by another clock.
      if (gap < least - 20) problem(`after ${gap} ms, ${least} at least`);
      if (gap > most + this.#defaults.slack_ms) problem(`after ${gap} ms, ${most} at most`);
    }
    const others = this.connections.slice(0, -1).filter((other) => other.open);
    if (others.some((other) => !other.draining)) problem("another connection is still open: one socket at a time");
  }

  async #play(script, connection, request, number) {
    for (const step of script.do) {
      if (step.refuse !== undefined) {
        this.#refusal = { status: step.refuse, code: step.code, retryAfter: step.retry_after };
        connection.endedAt = Date.now();
        connection.socket.end(refusalText(this.#refusal));
        return;
      }
      if (step.black_hole) return;
      if (!connection.upgraded) {
        this.#refusal = null;
        connection.upgraded = true;
        connection.upgrade(request.headers["sec-websocket-key"]);
      }
      await this.#step(step, connection, number);
    }
  }

  async #step(step, connection, number) {
    if (step.granted) {
      const expires_at = new Date(Date.now() + 60_000).toISOString();
      connection.send({ ...this.#defaults.granted, session: `session-${this.id}`, resume: this.#secret,
        resumed: connection.query.resume === this.#secret, ticket: { token: `ticket-${number}`, expires_at },
        server_time: new Date().toISOString(), ...step.granted });
      for (const other of this.connections) {
        if (other !== connection && other.open && other.draining) {
          other.send({ type: "ended", code: "moved", detail: "resumed on another socket" });
          other.close(4006);
        }
      }
    } else if (step.send !== undefined) {
      connection.draining ||= step.send.type === "draining";
      connection.send(step.send);
    } else if (step.await) {
      const within = step.within_ms ?? this.#defaults.within_ms;
      const found = await connection.awaits(step.await, within);
      if (!found) throw new Error(`no ${JSON.stringify(step.await)} within ${within} ms, but ${JSON.stringify(connection.all)}`);
    } else if (step.never) {
      const found = await connection.awaits(step.never, step.for_ms);
      if (found) throw new Error(`${JSON.stringify(found)} must not come`);
    } else if (step.await_close !== undefined) {
      const deadline = Date.now() + this.#defaults.within_ms;
      while (connection.open && Date.now() < deadline) await sleep(10);
      const wanted = step.await_close;
      if (connection.open) throw new Error("the player does not close");
      if (wanted !== true && connection.closeCode !== wanted) throw new Error(`closed with ${connection.closeCode}, not ${wanted}`);
    } else if (step.wait_ms) {
      await sleep(step.wait_ms);
    } else if (step.deaf) {
      connection.deaf = true;
    } else if (step.close) {
      connection.close(step.close);
    } else if (step.cut) {
      connection.cut();
    } else {
      throw new Error(`unknown step ${JSON.stringify(step)}`);
    }
  }

  /** Waits until the script is through and quiet, or nothing comes any more. */
  async done() {
    const quiet = this.#case.quiet_ms ?? this.#defaults.quiet_ms;
    for (;;) {
      const complete = this.connections.length >= this.#case.connections.length;
      const idle = Date.now() - this.#lastAt;
      if (this.#running === 0 && idle > (complete ? quiet : this.#defaults.give_up_ms)) return;
      await sleep(20);
    }
  }

  /** What was wrong, with what the player saw. */
  verdict({ events = [], state }) {
    const chosen = this.#case;
    const problems = [...this.problems];
    if (this.connections.length < chosen.connections.length) {
      problems.push(`${this.connections.length} connections came, ${chosen.connections.length} should`);
    }
    const span = (this.connections.at(-1)?.startedAt ?? 0) - (this.connections[0]?.startedAt ?? 0);
    // One pause may be short by chance, all of them together not.
    if (span < chosen.least_span_ms) problems.push(`all tries within ${span} ms, ${chosen.least_span_ms} at least: the pauses do not grow`);
    let at = 0;
    for (const wanted of chosen.events ?? []) {
      const found = events.findIndex((event, index) => index >= at && holds(event, wanted));
      if (found < 0) problems.push(`no event ${JSON.stringify(wanted)} (in this order) among ${JSON.stringify(events)}`);
      else at = found + 1;
    }
    for (const unwanted of chosen.no_events ?? []) {
      if (events.some((event) => holds(event, unwanted))) problems.push(`event ${JSON.stringify(unwanted)} must not come`);
    }
    if (chosen.state && state !== chosen.state) problems.push(`the state is ${state} instead of ${chosen.state}`);
    for (const connection of this.connections) connection.socket.destroy();
    return { case: chosen.name, passed: problems.length === 0, problems };
  }
}

/** Whether an object has what is wanted, at any depth. */
function holds(found, wanted) {
  if (wanted === null || typeof wanted !== "object") return found === wanted;
  return found !== null && typeof found === "object" && Object.entries(wanted).every(([key, value]) => holds(found[key], value));
}

function refusalText({ status, code, retryAfter }) {
  const body = JSON.stringify({ error: { code, message: code, field: null, request_id: "0" } });
  return [`HTTP/1.1 ${status} Refused`, "Content-Type: application/json", `Content-Length: ${body.length}`, "Connection: close",
    ...(retryAfter === undefined ? [] : [`Retry-After: ${retryAfter}`]), "", body].join("\r\n");
}

// A player's session: one object that holds a slot of the account while something plays.
//
// Over 400 lines: one state machine, whose parts share all of its fields.
// Owns: the socket, its reconnects, heartbeats, and the events that an application listens to. What is said between player
// and gateway is PROTOCOL.md. Does not: play (video.js binds a media element) or fetch the bytes (adapters.js puts the ticket on requests).
import { abandon, askWhy, leave, plainUrl, watchUrl } from "./door.js";
import { listen } from "./page.js";
import { CLOSE_CODES, REFUSALS, TIMING, actionOf, keepsSlot, numberOf, pause } from "./rules.js";
import { Timers } from "./timers.js";
import { Tokens } from "./token.js";
import { attach } from "./video.js";

export { CLOSE_CODES, ERRORS, REFUSALS, TIMING } from "./rules.js";

const MODES = ["reject", "ask", "wait", "oldest"];
/** A message from a player has at most this many bytes. */
const MESSAGE_BYTES = 4096;
/** A heartbeat that is this many times late: the machine slept. */
const SLEPT = 3;
/** How late a timer may be, in milliseconds, before whatever comes in does its work. */
const LATE_MS = 1_000;
/** After a refusal that could not be read, the reason is asked for again at every such try. */
const ASK_AGAIN = 4;

export class UsherSession extends EventTarget {
  #options;
  #timing;
  #state = "idle";
  #socket = null;
  /** Counts tries: whatever an earlier one still does is ignored. */
  #attempt = 0;
  /** Tries since the last grant; set back only by a grant. */
  #failures = 0;
  #timers = new Timers();
  #unlisten = () => {};
  #tokens;
  #tokenRetried = false;
  #unread = 0;
  #grant = null;
  #secret;
  #ticket = null;
  #slots = null;
  #denied = null;
  #told = null;
  #holds = false;
  #skewMs = 0;
  #heardAt = 0;
  #report = { state: "playing", position_ms: undefined };
  #switches = new Map();
  #numbers = 0;
  #since;
  #stopped = null;

  constructor(options) {
    super();
    const { url, content, getToken, onLimit = "reject" } = options ?? {};
    if (!url) throw new TypeError("url is required, as in wss://gateway.example.com");
    if (!content) throw new TypeError("content is required");
    if (typeof getToken !== "function") throw new TypeError("getToken must be a function that gives an access token");
    if (!MODES.includes(onLimit)) throw new TypeError(`onLimit must be one of ${MODES.join(", ")}`);
    const Socket = options.WebSocket ?? globalThis.WebSocket;
    if (!Socket) throw new TypeError("there is no WebSocket here: give one as options.WebSocket");
    this.#options = { ...options, onLimit, WebSocket: Socket, random: options.random ?? Math.random };
    this.#timing = { ...TIMING, ...options.timing };
    this.#secret = options.resume ?? null;
    this.#since = options.since ?? null;
    this.#tokens = new Tokens((asked) => getToken(asked), this.#timing.refreshMs, () => this.#now());
    // A wrong URL is told here, not at the first try.
    this.#url();
  }

  /** "idle", "connecting", "waiting" (in the line, or the person chooses), "playing" or "ended". */
  get state() { return this.#state; }
  /** Id of the session, or null. */
  get id() { return this.#grant?.session ?? null; }
  get content() { return this.#options.content; }
  /** `{used, limit}` of the account as heard last, or null. */
  get slots() { return this.#slots; }
  /** The newest ticket, `{token, expires_at}`; null without a slot. */
  get ticket() { return this.#holds ? this.#ticket : null; }
  /** The refusal to choose upon, or null. */
  get denied() { return this.#denied; }
  /** Whether the slot is ours as far as we can know: also for a while without a connection. Play only then. */
  get holdsSlot() { return this.#holds; }
  /** The secret that moves this session to another player, such as a cast receiver. Keep it like a password. */
  get resume() { return this.#secret; }
  /** Where this gateway is, as an origin for requests: "https://host". */
  get origin() { return plainUrl(this.#url()).origin; }

  /** Asks for a slot. Nothing happens when one is held or asked for already. */
  start() {
    if (this.#state !== "idle" && this.#state !== "ended") return this;
    this.#failures = 0;
    this.#tokenRetried = false;
    this.#unread = 0;
    this.#denied = this.#told = null;
    this.#unlisten = listen({ back: () => this.#lookAround(), left: () => leave(this.#socket) });
    this.#set("connecting");
    this.#open();
    return this;
  }

  /** Gives the slot back. Resolves when the session has ended. */
  stop() {
    if (this.#state === "idle" || this.#state === "ended") return Promise.resolve();
    if (this.#stopped) return this.#stopped;
    const done = (this.#stopped = new Promise((resolve) => {
      this.addEventListener("ended", () => resolve(), { once: true });
    }));
    const end = () => this.#finish({ code: "stopped", number: 4000 });
    // Where nothing was granted there is nothing to give back: a close says as much.
    if (this.#state === "connecting" || !this.#write({ type: "stop" })) end();
    else this.#timers.after("stop", this.#timing.stopMs, end);
    return done;
  }

  /** Takes over the slot of one of the holders of `denied`. False when that is no choice now. */
  takeover(holder) {
    const session = typeof holder === "string" ? holder : holder?.session;
    return this.#denied !== null && this.#write({ type: "takeover", session });
  }

  /** Stands in the line after `denied`. False when that is no choice now. */
  wait() {
    return this.#denied !== null && this.#write({ type: "wait" });
  }

  /** Something else plays from now on, in the same slot. An `error` event tells when it may not: the old content stays. */
  switch(content) {
    const before = this.#options.content;
    this.#options.content = content;
    if (this.#state !== "playing") return;
    const id = `switch-${++this.#numbers}`;
    if (this.#write({ type: "switch", content, id })) {
      this.#switches.set(id, before);
      // What was refused is told at once; older ones succeeded.
      if (this.#switches.size > 8) this.#switches.delete(this.#switches.keys().next().value);
    }
  }

  /** Answers a `takeoverrequest`: whether the other player may have the slot. */
  answer(allow) {
    return this.#write({ type: "takeover_answer", allow: Boolean(allow) });
  }

  /** Sends a message, `{to, content, client_id}`. False when there is no connection to send it on. */
  send(message) {
    return this.#state === "playing" && this.#write({ ...message, type: "message" });
  }

  /** What plays how: "playing", "paused", "buffering" or "background", and the position. `attach` calls it. */
  report({ state = this.#report.state, positionMs = this.#report.position_ms, now = false } = {}) {
    const changed = state !== this.#report.state;
    this.#report = { state, position_ms: positionMs };
    if (this.#state === "playing" && (changed || now)) this.#beat();
  }

  /** Binds a media element to the slot: see video.js. The answer undoes it. */
  attach(video) {
    return attach(this, video);
  }

  // --- one try ---

  #url() { return watchUrl(this.#options, this.#secret, this.#since); }

  async #open(reason = "start") {
    const attempt = ++this.#attempt;
    const isCurrent = () => attempt === this.#attempt;
    this.#timers.clear("retry");
    this.#timers.after("connect", this.#timing.connectMs, () => this.#broken(1006, "no answer in time"));
    let token;
    try {
      token = await this.#tokens.usable(reason);
    } catch (error) {
      if (!isCurrent()) return;
      this.#timers.clear("connect");
      this.#emit("error", { code: "token_unavailable", detail: String(error?.message ?? error) });
      return this.#retry(1006);
    }
    if (!isCurrent()) return;
    const url = this.#url();
    let socket;
    try {
      socket = new this.#options.WebSocket(url.href, ["usher.v1", `bearer.${token}`]);
    } catch (error) {
      return this.#finish({ code: "bad_request", number: null, detail: String(error?.message ?? error) });
    }
    const before = this.#socket;
    this.#socket = socket;
    this.#told = null;
    let opened = false;
    socket.onopen = () => { opened = true; };
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#hear(data);
      // The node that left has moved the session: what it says is of no more interest.
      if (this.#state === "playing") abandon(before);
    };
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return;
      if (opened) this.#closed(code);
      else this.#refused(url, token);
    };
    socket.onerror = () => {};
  }

  /** The socket never opened. A browser hides why; the same URL, asked plainly, says it. */
  async #refused(url, token) {
    const attempt = ++this.#attempt;
    this.#socket = null;
    this.#timers.clear("connect");
    const asks = this.#unread % ASK_AGAIN === 0;
    const answer = asks ? await askWhy(url, token, this.#timing.aliveMs) : null;
    if (attempt !== this.#attempt) return;
    this.#unread = answer ? 0 : this.#unread + 1;
    const refusal = REFUSALS[answer?.status];
    if (!refusal) return this.#retry(1006);
    const end = { code: answer.code, number: null, status: answer.status, detail: answer.message };
    if (refusal.retry === "later") {
      this.#emit("error", end);
      return this.#retry(1006, answer.retryAfterMs);
    }
    if (refusal.retry === "token") return this.#withFreshToken(end);
    this.#finish(end);
  }

  /** A token was refused or ran out: one fresh one, then it is over. */
  #withFreshToken(end) {
    if (this.#tokenRetried) return this.#finish(end);
    this.#tokenRetried = true;
    this.#tokens.current = null;
    this.#lose();
    this.#retry(4200, 0, "rejected");
  }

  // --- ends and reconnects ---

  #closed(code) {
    // What was said counts, also when the close frame was lost.
    const number = numberOf(this.#told?.code) ?? code;
    const known = CLOSE_CODES[number]?.code;
    const { type: _, ...told } = this.#told ?? {};
    const end = { ...told, code: this.#told?.code ?? known ?? `closed_${number}`, number };
    if (this.#stopped) return this.#finish({ ...end, code: "stopped", number: 4000 });
    if (number === 4001 && this.#denied) {
      const { rule, slots, holders, may } = this.#denied;
      Object.assign(end, { rule, slots, holders, may });
      if (this.#denied.code !== end.code) end.reason = this.#denied.code;
    }
    if (number === 4103) return this.#withFreshToken(end);
    if (actionOf(number) === "reconnect") this.#retry(number);
    else this.#finish(end);
  }

  /** The connection is of no use any more; the slot may still be ours. */
  #broken(number, detail) {
    abandon(this.#socket);
    this.#socket = null;
    this.#emit("error", { code: "connection_lost", detail });
    this.#retry(number);
  }

  #retry(number, atLeastMs = 0, reason = "start") {
    const wasPlaying = this.#state === "playing";
    this.#attempt++;
    this.#socket = null;
    this.#denied = null;
    this.#timers.clear("connect", "beat", "alive", "refresh");
    if (this.#stopped) return this.#finish({ code: "stopped", number: 4000 });
    // The slot is kept for one lease after the last frame; then nothing may play, until it is granted again.
    if (!keepsSlot(number)) this.#lose();
    if (this.#holds && !this.#timers.has("lost")) this.#timers.after("lost", this.#grant.lease_ms, () => this.#lose());
    const isFirst = this.#failures === 0 && wasPlaying && !(number >= 4200 && number <= 4299);
    const random = this.#options.random;
    const wait = isFirst ? random() * this.#timing.firstMs : pause(this.#failures, this.#timing, random);
    this.#failures++;
    this.#set("connecting");
    this.#timers.after("retry", Math.max(wait, 0) + atLeastMs, () => this.#open(reason));
  }

  #lose() {
    this.#timers.clear("lost");
    if (!this.#holds) return;
    this.#holds = false;
    this.#emit("lost", {});
  }

  #finish(end) {
    const socket = this.#socket;
    this.#attempt++;
    this.#socket = null;
    this.#timers.clearAll();
    this.#unlisten();
    leave(socket);
    this.#secret = this.#grant = this.#ticket = this.#denied = this.#stopped = null;
    this.#holds = false;
    this.#switches.clear();
    this.#set("ended");
    this.#emit("ended", end);
  }

  // --- what the gateway says ---

  #hear(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    this.#heardAt = this.#now();
    this.#timers.clear("alive");
    // Timers of a background tab are late.
    if (this.#tokens.dueAt !== null && this.#now() - this.#tokens.dueAt > LATE_MS) this.#refresh();
    const hear = {
      granted: () => this.#granted(message),
      denied: () => {
        this.#timers.clear("connect");
        this.#lose();
        this.#denied = message;
        this.#slots = message.slots;
        if (this.#options.onLimit === "ask") this.#set("waiting");
        this.#emit("denied", message);
      },
      waiting: () => {
        this.#timers.clear("connect");
        this.#lose();
        this.#denied = null;
        this.#set("waiting");
        this.#emit("waiting", message);
      },
      slots: () => {
        this.#slots = { used: message.used, limit: message.limit };
        this.#emit("slots", this.#slots);
      },
      ticket: () => this.#newTicket(message),
      takeover_request: () => this.#emit("takeoverrequest", message),
      message: () => {
        if (Number.isSafeInteger(message.id) && message.id > (this.#since ?? 0)) this.#since = message.id;
        this.#emit("message", message);
      },
      draining: () => this.#timers.after("retry", this.#options.random() * message.reconnect_within_ms, () => this.#open()),
      ended: () => {
        this.#told = message;
        // Nothing may play from here on, even if the close frame is slow or lost.
        const number = numberOf(message.code);
        if (number !== null && actionOf(number) === "final") this.#closed(number);
      },
      error: () => this.#mistake(message),
    }[message?.type];
    hear?.();
  }

  #granted(message) {
    this.#timers.clear("connect", "lost", "retry");
    this.#failures = this.#unread = 0;
    this.#tokenRetried = false;
    this.#denied = null;
    this.#grant = message;
    this.#secret = message.resume;
    this.#slots = message.slots;
    this.#ticket = null;
    this.#holds = true;
    const said = Date.parse(message.server_time);
    if (Number.isFinite(said)) this.#skewMs = said - Date.now();
    this.#heardAt = this.#now();
    // At a random moment, so that a fleet that started together does not beat together.
    this.#timers.after("beat", this.#options.random() * message.heartbeat_ms, () => this.#tick(this.#now()));
    this.#planRefresh();
    this.#set("playing");
    this.#emit("granted", message);
    if (message.ticket) this.#newTicket(message.ticket);
  }

  #newTicket({ token, expires_at }) {
    this.#ticket = { token, expires_at };
    this.#emit("ticket", this.#ticket);
  }

  #mistake(message) {
    const id = String(message.id ?? "");
    if (id.startsWith("alive-")) return;
    if (this.#switches.has(id)) {
      this.#options.content = this.#switches.get(id);
      this.#switches.delete(id);
    }
    this.#emit("error", message);
  }

  // --- heartbeats, and whether the line lives ---

  #beat() {
    const { state, position_ms } = this.#report;
    this.#write({ type: "heartbeat", state, ...(Number.isFinite(position_ms) && { position_ms: Math.max(0, Math.round(position_ms)) }) });
  }

  #tick(dueAt) {
    const period = this.#grant.heartbeat_ms;
    this.#beat();
    const slept = this.#now() - dueAt > SLEPT * period;
    if (slept || this.#now() - this.#heardAt >= this.#grant.lease_ms) this.#checkLine();
    const next = this.#now() + period;
    this.#timers.after("beat", period, () => this.#tick(next));
  }

  /** A browser shows no pings: an unknown type is sure to be answered. The heartbeat before it keeps it harmless. */
  #checkLine() {
    if (this.#timers.has("alive")) return;
    if (this.#socket?.readyState !== 1) return this.#broken(1006, "the socket is gone");
    this.#write({ type: "alive", id: `alive-${++this.#numbers}` });
    this.#timers.after("alive", this.#timing.aliveMs, () => this.#broken(1006, "the line is dead"));
  }

  // --- the token ---

  #planRefresh() {
    const wait = this.#tokens.plan();
    if (wait !== null) this.#timers.after("refresh", wait, () => this.#refresh());
  }

  async #refresh() {
    const attempt = this.#attempt;
    this.#timers.clear("refresh");
    this.#tokens.dueAt = null;
    let token = null;
    try {
      token = await this.#tokens.fresh("refresh");
    } catch (error) {
      this.#emit("error", { code: "token_unavailable", detail: String(error?.message ?? error) });
    }
    if (attempt !== this.#attempt || this.#state !== "playing") return;
    if (token !== null && token !== this.#tokens.current) {
      this.#tokens.current = token;
      const message = { type: "token", token };
      // A token that fits no message is brought by a new socket.
      if (JSON.stringify(message).length > MESSAGE_BYTES) return this.#open();
      this.#write(message);
    }
    this.#planRefresh();
  }

  // --- the page and the network ---

  /** The network or the page is back: does the line live; and the next try comes soon, not after a long pause. */
  #lookAround() {
    if (this.#state === "playing" || this.#state === "waiting") this.#checkLine();
    else if (this.#timers.has("retry")) this.#timers.after("retry", this.#options.random() * this.#timing.firstMs, () => this.#open());
  }

  // --- small things ---

  #now() { return Date.now() + this.#skewMs; }

  #write(message) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #set(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#emit("state", { state });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

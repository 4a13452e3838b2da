// What needs no gateway, or one that is watched from inside: construction, video, adapters.
import assert from "node:assert/strict";
import { it } from "node:test";
import { hlsTickets, shakaTickets, ticketFetch } from "../adapters.js";
import { UsherSession } from "../usher.js";

/** A socket that the test speaks for. */
class FakeSocket {
  static last = null;
  readyState = 0;
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols });
    FakeSocket.last = this;
  }
  send(text) { this.sent.push(JSON.parse(text)); }
  close(code) { this.readyState = 3; this.closedWith = code; }
  open() { this.readyState = 1; this.onopen(); }
  say(message) { this.onmessage({ data: JSON.stringify(message) }); }
  grant(more = {}) {
    this.open();
    this.say({ type: "granted", session: "s1", slots: { used: 1, limit: 3 }, heartbeat_ms: 60_000, lease_ms: 120_000, resume: "secret",
      resumed: false, provisional: false, ticket: { token: "ticket-1", expires_at: "2026-03-01T20:16:00.000Z" }, server_time: new Date().toISOString(), ...more });
  }
}

/** A media element as far as the SDK touches it. Events come later, as in a browser. */
class FakeVideo extends EventTarget {
  paused = true;
  ended = false;
  seeking = false;
  readyState = 4;
  currentTime = 12.3456;
  play() { if (this.paused) { this.paused = false; this.fire("play"); } return Promise.resolve(); }
  pause() { if (!this.paused) { this.paused = true; this.fire("pause"); } }
  fire(type) { queueMicrotask(() => this.dispatchEvent(new Event(type))); }
}

const options = { url: "https://gateway.example.com", content: "film", getToken: async () => "opaque", WebSocket: FakeSocket };
const settled = () => new Promise((done) => setTimeout(done, 5));

async function playing(more = {}) {
  const session = new UsherSession({ ...options, ...more }).start();
  await settled();
  FakeSocket.last.grant();
  return session;
}

it("tells at once what is missing or wrong", () => {
  for (const wrong of [undefined, {}, { url: "" }, { content: "" }, { getToken: "token" }, { onLimit: "maybe" }, { url: "ftp://x" }, { url: "nowhere" }]) {
    assert.throws(() => new UsherSession(wrong && { ...options, ...wrong, ...(Object.keys(wrong).length === 0 && { url: undefined }) }), TypeError);
  }
  const { WebSocket: found } = globalThis;
  delete globalThis.WebSocket;
  assert.throws(() => new UsherSession({ ...options, WebSocket: undefined }), /options.WebSocket/);
  if (found) globalThis.WebSocket = found;
});

it("starts idle, and connects only when asked to", async () => {
  FakeSocket.last = null;
  const session = new UsherSession({ ...options, url: "wss://gateway.example.com/base/", device: "tv 1&2" });
  await settled();
  assert.deepEqual([session.state, session.ticket, FakeSocket.last], ["idle", null, null]);
  await session.stop();
  session.start().start();
  await settled();
  const { url, protocols } = FakeSocket.last;
  assert.equal(`${url.origin}${url.pathname}`, "wss://gateway.example.com/base/v1/watch");
  assert.deepEqual(Object.fromEntries(url.searchParams), { content: "film", device: "tv 1&2", on_limit: "reject" });
  assert.deepEqual(protocols, ["usher.v1", "bearer.opaque"]);
  assert.equal(session.origin, "https://gateway.example.com");
  await session.stop();
  assert.equal(FakeSocket.last.closedWith, 1000);
});

it("hands a session to another player by its secret", async () => {
  const phone = await playing({ device: "p1" });
  const receiver = new UsherSession({ ...options, device: "p1", resume: phone.resume }).start();
  await settled();
  assert.equal(FakeSocket.last.url.searchParams.get("resume"), "secret");
  receiver.stop();
  phone.stop();
});

it("plays no video before the slot, stops it with the slot, and goes on by itself", async () => {
  const session = new UsherSession({ ...options, timing: { minMs: 1, firstMs: 1, maxMs: 5 } });
  const video = new FakeVideo();
  const detach = session.attach(video);
  video.play();
  await settled();
  assert.deepEqual([session.state, video.paused], ["connecting", true]);
  const first = FakeSocket.last;
  first.grant({ lease_ms: 30 });
  await settled();
  assert.deepEqual([session.state, video.paused], ["playing", false]);
  // A broken line: the video goes on for as long as the slot is kept, and stops with it.
  first.onclose({ code: 1006 });
  assert.deepEqual([session.state, video.paused, session.holdsSlot], ["connecting", false, true]);
  await new Promise((done) => setTimeout(done, 60));
  assert.deepEqual([session.state, video.paused, session.holdsSlot, session.ticket], ["connecting", true, false, null]);
  FakeSocket.last.grant();
  await settled();
  assert.equal(video.paused, false);
  // The person pauses, seeks; both are told.
  const { sent } = FakeSocket.last;
  video.pause();
  await settled();
  assert.deepEqual(sent.at(-1), { type: "heartbeat", state: "paused", position_ms: 12_346 });
  video.currentTime = 60;
  video.dispatchEvent(new Event("seeked"));
  assert.deepEqual(sent.at(-1), { type: "heartbeat", state: "paused", position_ms: 60_000 });
  video.play();
  await settled();
  // Taken over: the video stops, and plays again only when the person asks.
  FakeSocket.last.say({ type: "ended", code: "displaced", by: { device: "p", device_name: "My phone" } });
  await settled();
  assert.deepEqual([session.state, video.paused], ["ended", true]);
  // A browser starts a muted video again by itself, when its tab is seen: nobody asked for that.
  const { navigator: own } = globalThis;
  const activate = (isActive) => Object.defineProperty(globalThis, "navigator", { value: { userActivation: { isActive } }, configurable: true });
  activate(false);
  video.play();
  await settled();
  assert.deepEqual([session.state, video.paused], ["ended", true]);
  activate(true);
  video.play();
  await settled();
  assert.deepEqual([session.state, video.paused], ["connecting", true]);
  FakeSocket.last.grant();
  await settled();
  assert.equal(video.paused, false);
  Object.defineProperty(globalThis, "navigator", { value: own, configurable: true });
  // The end of the film frees the slot.
  video.ended = true;
  video.dispatchEvent(new Event("ended"));
  assert.deepEqual(FakeSocket.last.sent.at(-1), { type: "stop" });
  FakeSocket.last.say({ type: "ended", code: "stopped" });
  detach();
  video.ended = false;
  video.paused = true;
  video.play();
  await settled();
  assert.deepEqual([session.state, video.paused], ["ended", false]);
});

it("says the tickets to the named origins only", async () => {
  const session = await playing();
  const headersOf = (request) => request.headers.get("authorization");
  const hls = hlsTickets(session);
  assert.equal(headersOf(hls.fetchSetup({ url: "https://gateway.example.com/v1/media/a.ts" }, {})), "Bearer ticket-1");
  assert.equal(headersOf(hls.fetchSetup({ url: "https://elsewhere.example/a.ts" }, {})), null);
  const asked = { readyState: 0, headers: {}, open(method, url) { this.url = url; this.readyState = 1; }, setRequestHeader(name, value) { this.headers[name] = value; } };
  hls.xhrSetup(asked, "https://gateway.example.com/v1/media/a.ts");
  assert.deepEqual([asked.url, asked.headers.Authorization], ["https://gateway.example.com/v1/media/a.ts", "Bearer ticket-1"]);
  const byQuery = hlsTickets(session, { origins: ["https://cdn.example.com"], query: true });
  assert.equal(byQuery.fetchSetup({ url: "https://cdn.example.com/a.ts?x=1" }).url, "https://cdn.example.com/a.ts?x=1&ticket=ticket-1");
  assert.equal(byQuery.fetchSetup({ url: "https://gateway.example.com/a.ts" }).url, "https://gateway.example.com/a.ts");

  const filters = new Set();
  const player = { getNetworkingEngine: () => ({ registerRequestFilter: (one) => filters.add(one), unregisterRequestFilter: (one) => filters.delete(one) }) };
  const undo = shakaTickets(session, player);
  const ask = (...uris) => { const request = { uris, headers: {} }; for (const filter of filters) filter(1, request); return request; };
  assert.equal(ask("https://gateway.example.com/a.mp4").headers.Authorization, "Bearer ticket-1");
  FakeSocket.last.say({ type: "ticket", token: "ticket-2", expires_at: "2026-03-01T20:17:00.000Z" });
  assert.equal(ask("https://gateway.example.com/a.mp4").headers.Authorization, "Bearer ticket-2");
  assert.equal(ask("https://gateway.example.com/a.mp4", "https://elsewhere.example/a.mp4").headers.Authorization, undefined);
  undo();
  assert.equal(filters.size, 0);

  let fetched = null;
  const { fetch: before } = globalThis;
  globalThis.fetch = async (input, init) => { fetched = { input, init }; };
  await ticketFetch(session)("https://gateway.example.com/key", { headers: { a: "1" } });
  globalThis.fetch = before;
  assert.equal(fetched.init.headers.get("authorization"), "Bearer ticket-2");
  FakeSocket.last.say({ type: "ended", code: "displaced" });
  assert.equal(headersOf(hls.fetchSetup({ url: "https://gateway.example.com/v1/media/a.ts" }, {})), null);
});

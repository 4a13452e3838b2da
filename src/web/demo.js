// The demo player: one screen of an account. All that it knows of the protocol is the SDK.
import { Chat } from "/chat.js";
import { CLOSE_CODES, UsherSession } from "/sdk/usher.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["Living room", "Kitchen", "Bedroom", "Phone", "Tablet", "Garden", "Study", "Attic"];
const TITLES = { demo: "the demo film" };
const ENDS = {
  stopped: "Stopped.",
  stream_limit_reached: "No stream was free.",
  ended_by_operator: "The operator ended this stream.",
  account_blocked: "This account is blocked.",
  content_unavailable: "This may not be played any more.",
  moved: "This screen plays in another window now.",
  unauthorized: "The sign-in is not valid any more.",
};
/** How often the screens are asked for while nothing tells of a change. */
const LOOK_MS = 3000;

const given = new URLSearchParams(location.hash.slice(1));
const video = $("video");
let account = null;
let session = null;
let detach = () => {};
let limit = null;
let screens = [];
let ended = null;
let lost = false;
const chat = new Chat({ whole: $("chat"), lines: $("lines"), form: $("say"), words: $("words"), send: $("send"), why: $("why") },
  () => account.ask({ reason: "start" }));

$("host").textContent = location.host;

// --- who watches ---

/** A token that the page was given. */
const fromToken = (token) => ({ name: "the account of your token", ask: async () => token });

/** The demo account, which only a development node has. */
async function fromDemo() {
  const ask = async () => {
    const response = await fetch("/demo/token");
    if (!response.ok) throw new Error("there is no demo account here");
    return (await response.json()).token;
  };
  const first = await ask().catch(() => null);
  return first && { name: "the demo account", isDemo: true, ask };
}

/** Somebody who signs in. Throws what the page should say. */
async function fromPassword(name, password) {
  const basic = btoa(String.fromCharCode(...new TextEncoder().encode(`${name}:${password}`)));
  let said = await signed("/v1/auth", { headers: { authorization: `Basic ${basic}` } });
  return {
    name: said.user.name ?? name,
    isSignedIn: true,
    ask: async ({ reason }) => {
      if (reason !== "start" || Date.parse(said.expires_at) < Date.now() + 60_000) {
        const body = JSON.stringify({ refresh_token: said.refresh_token });
        said = await signed("/v1/auth/refresh", { headers: { "content-type": "application/json" }, body });
      }
      return said.token;
    },
    leave: () => fetch("/v1/auth", { method: "DELETE", headers: { authorization: `Bearer ${said.token}` }, credentials: "omit" }),
  };
}

async function signed(path, options) {
  // "omit": a 401 must not open the browser's own window for passwords.
  const response = await fetch(path, { method: "POST", credentials: "omit", ...options });
  const body = await response.json();
  if (response.ok) return body;
  throw new Error(response.status === 401 ? "The name or the password is wrong." : body.error.message);
}

/** Whether people can sign in here: where the module is switched off there is no such route. */
async function hasAccounts() {
  return (await fetch("/v1/auth", { credentials: "omit" })).status !== 404;
}

function use(next) {
  account = next;
  $("signin").hidden = true;
  showAccount();
  look();
}

async function showAccount() {
  const canSignIn = await hasAccounts();
  const line = $("account");
  line.replaceChildren(account ? `Watching as ${account.name} ` : "Nobody has signed in ");
  if (account?.isSignedIn) line.append(button("Sign out", async () => { await session?.stop(); await account.leave(); location.reload(); }, "link"));
  else if (canSignIn && account) line.append(button("Sign in instead", () => askWho(canSignIn), "link"));
  return canSignIn;
}

function askWho(canSignIn) {
  $("signin").hidden = false;
  $("passwordform").hidden = !canSignIn;
  $("tokenform").hidden = canSignIn && account !== null;
  $(canSignIn ? "name" : "token").focus();
}

// --- one screen ---

/** A name that no other screen has: tabs that open at the same moment take turns. */
async function chooseName() {
  const pick = () => {
    const next = Number(localStorage.getItem("usher.screen") ?? 0);
    const inUse = new Set(screens.map((screen) => screen.device_name));
    for (let step = 0; step < NAMES.length; step++) {
      const name = NAMES[(next + step) % NAMES.length];
      if (inUse.has(name)) continue;
      localStorage.setItem("usher.screen", String((next + step + 1) % NAMES.length));
      return name;
    }
    return `Screen ${screens.length + 1}`;
  };
  return navigator.locks ? navigator.locks.request("usher.screen", pick) : pick();
}

function make() {
  detach();
  session?.stop();
  const name = $("device").value.trim();
  ended = null;
  lost = false;
  session = new UsherSession({
    url: location.origin,
    content: $("content").value.trim(),
    // A device of this tab alone: a tab that is duplicated must not end the first one.
    device: given.get("device") ?? `${name}-${crypto.randomUUID().slice(0, 8)}`,
    deviceName: name,
    deviceClass: "web",
    onLimit: $("on_limit").value,
    getToken: (asked) => account.ask(asked),
  });
  detach = session.attach(video);
  chat.follow(session);
  const mine = session;
  for (const type of ["state", "granted", "denied", "waiting", "slots", "ticket", "takeoverrequest", "lost", "ended", "message", "error"]) {
    mine.addEventListener(type, ({ detail }) => {
      note(type, detail);
      if (mine !== session) return;
      if (type === "granted") lost = false;
      if (type === "lost") lost = true;
      if (type === "ended") ended = detail;
      if (type === "state" && detail.state === "connecting") ended = null;
      if (type === "takeoverrequest") askPerson(detail);
      if (type === "granted" || type === "ended") $("request").hidden = true;
      if (detail.slots) limit = detail.slots.limit;
      render();
      if (["granted", "slots", "denied", "ended"].includes(type)) look();
    });
  }
}

function play() {
  if (!account) return;
  // The element plays when the slot is there.
  session.start();
  video.play().catch(() => {});
}

function restart() {
  video.pause();
  make();
  play();
}

// --- what the page shows ---

function render() {
  const { state, slots, denied, holdsSlot } = session ?? { state: "idle" };
  const used = slots?.used ?? screens.length;
  if (slots) limit = slots.limit;
  const inUse = state === "playing" || denied ? used : screens.length;
  $("used").textContent = limit === null ? `${inUse} ${inUse === 1 ? "stream" : "streams"} in use` : `${inUse} of ${limit} streams in use`;
  $("slots").replaceChildren(...Array.from({ length: Math.min(limit ?? 0, 20) }, (_, at) => {
    const slot = document.createElement("i");
    slot.className = at < inUse ? "used" : "";
    return slot;
  }));
  video.controls = state === "playing";
  const shown = { idle, connecting, waiting, playing: () => null, ended: over }[state]();
  $("panel").hidden = shown === null || (state === "connecting" && holdsSlot);
  if (shown !== null) panel(shown);
  $("state").textContent = status(state, holdsSlot);
  $("stop").hidden = state !== "playing";
}

function status(state, holdsSlot) {
  if (state === "playing") return `${session.slots.used} of ${session.slots.limit}: playing on ${$("device").value}.`;
  if (state === "connecting" && holdsSlot) return "The connection broke. Your stream is kept for a moment.";
  return "";
}

function idle() {
  if (!account) return { title: "Who is watching?", text: "Sign in below." };
  return { title: `Watch ${titleOf(contentNow())}`, text: `This screen is ${$("device").value}.`, acts: [["Play", play, "first"]] };
}

function connecting() {
  return lost
    ? { title: "The connection is lost", text: "It plays on as soon as there is a stream again.", acts: [["Stop", stop]] }
    : { title: "One moment", text: "" };
}

function waiting() {
  const { denied } = session;
  if (!denied) return { title: "Waiting for a free stream", text: "It starts by itself.", acts: [["Stop waiting", stop]] };
  const refused = denied.code === "takeover_refused";
  const { used, limit: most } = denied.slots;
  return {
    title: refused ? "They want to keep watching" : denied.rule === "account" ? `All ${most} streams are in use` : `No place: ${used} of ${most} (${denied.rule})`,
    text: "Stop one of them, or wait for a free place.",
    holders: denied.holders,
    can: denied.may.includes("takeover"),
    acts: [...(denied.may.includes("wait") ? [["Wait for a free place", () => session.wait(), "first"]] : []), ["Not now", stop]],
  };
}

function over() {
  const { code, by, holders, reason } = ended ?? {};
  if (code === "displaced") {
    return { title: `${by?.device_name ?? by?.device ?? "Another screen"} took over`, text: "Your account's stream plays there now.", acts: [["Watch here again", play, "first"]] };
  }
  if (code === "stopped") return { title: "Stopped", text: "The stream is free for another screen.", acts: [["Play", play, "first"]] };
  const text = reason === "takeover_refused" ? "They want to keep watching." : ENDS[code] ?? CLOSE_CODES[ended?.number]?.text ?? ended?.detail ?? code;
  if (code === "unauthorized") return { title: text, text: "", acts: [["Sign in", () => location.reload(), "first"]] };
  return { title: text, text: holders?.length ? "These screens play:" : "", holders, acts: [["Try again", play, "first"]] };
}

function panel({ title, text = "", holders = [], can = false, acts = [] }) {
  // Drawn anew only when it says something else: a button that is about to be pressed stays where it is.
  const key = JSON.stringify([title, text, holders.map((holder) => [holder.session, ago(holder.started_at)]), can, acts.map(([label]) => label)]);
  if ($("panel").dataset.key === key) return;
  const had = $("panel").contains(document.activeElement);
  $("panel").dataset.key = key;
  $("title").textContent = title;
  $("text").textContent = text;
  $("choices").replaceChildren(...holders.map((holder) => {
    const item = row(holder);
    if (can) item.append(button("Stop that one", () => session.takeover(holder), "", `Stop that one: ${nameOf(holder)}`));
    return item;
  }));
  $("acts").replaceChildren(...acts.map(([label, act, kind]) => button(label, act, kind)));
  if (had) $("panel").querySelector("button")?.focus();
}

function row(screen) {
  const item = document.createElement("li");
  const words = document.createElement("div");
  const name = document.createElement("strong");
  const more = document.createElement("span");
  name.textContent = nameOf(screen) + (screen.session === session?.id ? " (this screen)" : "");
  more.className = "soft";
  const how = { paused: ", paused", background: ", in the background" }[screen.state] ?? "";
  more.textContent = `watching ${titleOf(screen.content)} since ${clock(screen.started_at)} (${ago(screen.started_at)})${how}`;
  words.append(name, more);
  item.append(words);
  return item;
}

function askPerson({ by, answer_within_ms }) {
  $("asker").textContent = `${by.device_name ?? by.device} wants to watch. Without an answer they get this stream.`;
  $("request").hidden = false;
  setTimeout(() => { $("request").hidden = true; }, answer_within_ms);
}

async function look() {
  if (!account) return;
  try {
    const token = await account.ask({ reason: "start" });
    const response = await fetch("/v1/sessions?limit=100", { headers: { authorization: `Bearer ${token}` }, credentials: "omit" });
    if (response.ok) screens = (await response.json()).items;
  } catch {
    // Asked again soon.
  }
  const items = screens.map(row);
  if (items.length === 0) {
    const none = document.createElement("li");
    none.textContent = "No screen plays.";
    items.push(none);
  }
  $("screens").replaceChildren(...items);
  render();
}

// --- small things ---

const stop = () => session.stop();
const contentNow = () => $("content").value.trim();
const titleOf = (content) => TITLES[content] ?? content;
const nameOf = (screen) => screen.device_name ?? screen.device;
const clock = (time) => new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

function ago(time) {
  const minutes = Math.floor((Date.now() - Date.parse(time)) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function button(label, act, kind = "", aria = "") {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.className = kind;
  if (aria) made.setAttribute("aria-label", aria);
  made.addEventListener("click", act);
  return made;
}

/** Neither tokens, tickets nor the secret are shown. */
function note(type, detail) {
  const secret = ["token", "resume", "ticket"];
  const item = document.createElement("li");
  const text = JSON.stringify(detail, (key, value) => (secret.includes(key) ? "..." : value));
  item.textContent = `${new Date().toLocaleTimeString()} ${type} ${text}`;
  $("log").prepend(item);
  while ($("log").children.length > 100) $("log").lastChild.remove();
}

// --- begin ---

$("stop").addEventListener("click", () => stop());
$("allow").addEventListener("click", () => { session.answer(true); $("request").hidden = true; });
$("keep").addEventListener("click", () => { session.answer(false); $("request").hidden = true; });
$("settings").addEventListener("submit", (event) => { event.preventDefault(); restart(); });
$("tokenform").addEventListener("submit", (event) => { event.preventDefault(); use(fromToken($("token").value.trim())); restart(); });
$("passwordform").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("refused").textContent = "";
  try {
    use(await fromPassword($("name").value, $("password").value));
    $("password").value = "";
    restart();
  } catch (error) {
    $("refused").textContent = error.message;
  }
});

account = given.has("token") ? fromToken(given.get("token")) : await fromDemo();
// What a browser keeps of a page's address should not open anything.
if (given.has("token")) history.replaceState(null, "", location.pathname);
const canSignIn = await showAccount();
await look();
$("content").value = given.get("content") ?? "demo";
$("on_limit").value = given.get("on_limit") ?? "ask";
$("device").value = given.get("device") ?? await chooseName();
make();
render();
if (!account) askWho(canSignIn);
// The demo begins by itself; with an account of one's own a person presses play.
else if (account.isDemo || given.has("play")) play();
setInterval(look, LOOK_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });

// The chat beside the player: the room of what plays.
//
// What somebody says is shown as text and never as anything else. A room is for those who watch: with the slot the form goes.

/** Lines that are kept on the page. */
const LINES = 200;

/** What the gateway answers, for people; anything else is shown as it is. */
const WHY = {
  rate_limited: "Too fast: one line a second.",
  room_forbidden: "Only those who watch may talk here.",
  unavailable: "It could not be kept. Send it again.",
};

export class Chat {
  #box;
  #ask;
  #session = null;
  #shown = new Set();
  #account = null;
  /** Lines that are not answered yet, by the id of their message. */
  #sent = new Map();
  #numbers = 0;

  /** `box`: the elements by name; `ask`: gives an access token. */
  constructor(box, ask) {
    this.#box = box;
    this.#ask = ask;
    box.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#say();
    });
  }

  /** Talks on this session from now on. */
  follow(session) {
    this.#session = session;
    this.#sent.clear();
    this.#enable();
    const listen = (type, listener) => session.addEventListener(type, ({ detail }) => { if (session === this.#session) listener(detail); });
    listen("state", () => this.#enable());
    listen("granted", ({ resumed }) => { if (!resumed) this.#before(); });
    listen("message", (message) => this.#hear(message));
    listen("error", (error) => this.#refused(error));
  }

  get #room() { return `room:${this.#session.content}`; }

  #enable() {
    const plays = this.#session.state === "playing";
    for (const field of [this.#box.words, this.#box.send]) field.disabled = !plays;
    this.#box.words.placeholder = plays ? "Say something" : "Watch to talk";
  }

  /** What was said before one came; without messages here there is no chat either. */
  async #before() {
    const session = this.#session;
    const token = await this.#ask();
    const path = `/v1/messages?limit=100&with=${encodeURIComponent(this.#room)}`;
    const response = await fetch(path, { headers: { authorization: `Bearer ${token}` }, credentials: "omit" }).catch(() => null);
    if (session !== this.#session || response === null) return;
    this.#box.whole.hidden = !response.ok;
    if (!response.ok) return;
    this.#account = accountOf(token);
    for (const message of (await response.json()).items) this.#hear(message);
  }

  #hear({ id, from, to, content, sent_at }) {
    if (to !== this.#room || this.#shown.has(id)) return;
    this.#shown.add(id);
    if (this.#shown.size > 5 * LINES) this.#shown.delete(this.#shown.values().next().value);
    const line = document.createElement("p");
    const who = document.createElement("strong");
    const when = document.createElement("time");
    who.textContent = from === this.#account ? "This account" : from;
    when.dateTime = sent_at;
    when.textContent = new Date(sent_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    when.className = "soft";
    line.dataset.id = id;
    line.append(who, " ", when, document.createElement("br"), content.text ?? `(${content.type})`);
    const list = this.#box.lines;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    // Ids ascend, but what was said before may come after what is said now.
    const later = [...list.children].find((other) => Number(other.dataset.id) > id);
    list.insertBefore(line, later ?? null);
    while (list.children.length > LINES) list.firstChild.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  #say() {
    const text = this.#box.words.value.trim();
    if (text === "") return;
    const id = `say-${++this.#numbers}`;
    const message = { to: this.#room, content: { type: "text", text }, client_id: crypto.randomUUID(), id };
    if (!this.#session.send(message)) return this.#tell(WHY.unavailable);
    this.#tell("");
    this.#sent.set(id, text);
    if (this.#sent.size > 20) this.#sent.delete(this.#sent.keys().next().value);
    this.#box.words.value = "";
  }

  /** What was not kept goes back to whoever wrote it. */
  #refused({ id, code, detail }) {
    if (!this.#sent.has(id)) return;
    if (this.#box.words.value === "") this.#box.words.value = this.#sent.get(id);
    this.#sent.delete(id);
    this.#tell(WHY[code] ?? detail ?? code);
  }

  #tell(text) { this.#box.why.textContent = text; }
}

/** The account of a token, to know one's own words; null when it cannot be read. */
function accountOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)).sub;
  } catch {
    return null;
  }
}

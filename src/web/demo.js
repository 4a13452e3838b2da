// The demo player: a form, one socket, and what is said on it.
const $ = (id) => document.getElementById(id);
let socket = null;
let beat = 0;
let startedAt = 0;
let resume = null;

$("host").textContent = location.host;
const given = new URLSearchParams(location.hash.slice(1));
for (const name of ["token", "device", "content", "on_limit"]) if (given.has(name)) $(name).value = given.get(name);

$("start").addEventListener("submit", (event) => { event.preventDefault(); open(); });
$("stop").addEventListener("click", () => send({ type: "stop" }));
if (given.has("play")) open();

function open() {
  socket?.close(1000);
  const query = new URLSearchParams({ content: $("content").value, device: $("device").value,
    device_name: $("device").value, device_class: "web", on_limit: $("on_limit").value });
  if (resume) query.set("resume", resume);
  show("connecting");
  // A browser cannot set a header on a WebSocket; the token travels as an offered subprotocol.
  const opened = socket = new WebSocket(`wss://${location.host}/v1/watch?${query}`, ["usher.v1", `bearer.${$("token").value.trim()}`]);
  socket.onmessage = ({ data }) => { if (socket === opened) hear(JSON.parse(data)); note("in", data); };
  socket.onclose = ({ code, reason }) => {
    note("closed", `${code} ${reason}`);
    if (socket !== opened) return;
    clearInterval(beat);
    $("stop").disabled = true;
    socket = null;
    if (code < 4200 || code >= 4300) resume = null;
    show(code === 1006 ? "no connection: is the token valid? (see the network tab)" : `closed: ${reason || code}`);
  };
}

function hear(message) {
  if (message.type !== "slots" && message.type !== "error") $("holders").replaceChildren();
  if (message.type === "granted") {
    resume = message.resume;
    startedAt = Date.now();
    $("stop").disabled = false;
    clearInterval(beat);
    beat = setInterval(() => send({ type: "heartbeat", position_ms: Date.now() - startedAt, state: "playing" }),
      message.heartbeat_ms);
    show(`playing: ${message.slots.used} of ${message.slots.limit} streams in use`);
  } else if (message.type === "slots") {
    show(`playing: ${message.used} of ${message.limit} streams in use`);
  } else if (message.type === "waiting") {
    show(`waiting for a free stream: place ${message.position}`);
  } else if (message.type === "denied") {
    show(`refused: ${message.slots.used} of ${message.slots.limit} streams in use`);
    const choose = $("on_limit").value === "ask";
    for (const holder of message.holders) {
      const can = choose && message.may.includes("takeover");
      row(`${holder.device_name ?? holder.device} plays ${holder.content} since ${new Date(holder.started_at).toLocaleTimeString()}`,
        can && "Stop that one", () => send({ type: "takeover", session: holder.session }));
    }
    if (choose && message.may.includes("wait")) row("A stream may become free", "Wait", () => send({ type: "wait" }));
  } else if (message.type === "takeover_request") {
    const who = message.by.device_name ?? message.by.device;
    row(`${who} asks for this stream`, "Allow", () => send({ type: "takeover_answer", allow: true }));
    row("", "Keep it", () => send({ type: "takeover_answer", allow: false }));
  } else if (message.type === "ended") {
    show(`ended: ${message.code}${message.by ? ` by ${message.by.device_name ?? message.by.device}` : ""}`);
  }
}

function row(text, label, act) {
  const item = document.createElement("li");
  const words = document.createElement("span");
  words.textContent = text;
  item.append(words);
  if (label) {
    const button = document.createElement("button");
    button.textContent = label;
    button.addEventListener("click", act);
    item.append(button);
  }
  $("holders").append(item);
}

function send(message) {
  if (socket?.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify(message));
  note("out", JSON.stringify(message));
}

function show(text) { $("state").textContent = text; }

function note(kind, text) {
  const item = document.createElement("li");
  item.textContent = `${new Date().toLocaleTimeString()} ${kind}: ${text}`;
  $("log").prepend(item);
  while ($("log").children.length > 100) $("log").lastChild.remove();
}

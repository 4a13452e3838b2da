// One account: its sessions on all nodes, what operators decided about it, and what they did.
import { Refused, ask, target } from "./asking.js";
import { confirm } from "./confirm.js";
import { button, complain, el, moment, say, write } from "./elements.js";
import { plays } from "./ledger.js";
import { table } from "./table.js";
import { history } from "./trail.js";

/** After a change the account is looked at more often, for this long. */
const HURRY_MS = 5_000;

/** Rows of a list that are shown. */
const MOST = 100;

const plural = (many, noun) => `${many} ${noun}${many === 1 ? "" : "s"}`;

/** The device as people know it, and its id where that differs. */
export function device({ device: id, device_name: name, device_class: kind }) {
  const words = name && name !== id ? `${name} (${id})` : id;
  return kind ? `${words}, ${kind}` : words;
}

/** The columns of a list of sessions. */
export const SESSION = [
  { title: "Device", loose: true, text: device },
  { title: "Content", loose: true, text: ({ content }) => content },
  { title: "State", text: ({ state }) => state },
  { title: "Since", text: ({ started_at: at }) => moment(at) },
  { title: "Node", text: ({ node }) => node ?? "any (no socket)" },
];

/**
 * The view of an account. `trail`: whether the token may read it; `played`: whether there are plays to read; `guard`: does
 * what the node may refuse.
 */
export function account(tenant, name, { trail, played, guard }) {
  const base = `/v1/admin/accounts/${encodeURIComponent(name)}`;
  const at = (path) => target(`${base}${path}`, { tenant });
  let [sessions, standing, hurry] = [[], null, 0];

  const ending = (item) => button("End", () => change(async () => {
    const question = `${device(item)} plays ${item.content}. Its player is told that an operator ended it.`;
    if (!(await confirm("End this session?", question, "End it"))) return null;
    await ask("DELETE", at(`/sessions/${encodeURIComponent(item.session)}`));
    return "The session is ended.";
  }), { "aria-label": `End ${device(item)}` });
  const playing = table("Sessions", [...SESSION, { title: "Action", node: ending }], ({ session }) => session, "Nobody plays.");
  const state = el("p", { class: "standing" });

  const endAll = button("End all", () => change(async () => {
    const question = `${plural(sessions.length, "session")} of ${name} on all nodes. They may start again.`;
    if (!(await confirm("End all sessions?", question, "End all"))) return null;
    const { ended } = await ask("DELETE", at("/sessions"));
    return `${plural(ended, "session")} ended.`;
  }), { class: "danger" });
  const block = button("Block", () => change(async () => {
    const blocked = standing?.blocked;
    const question = `All sessions of ${name} end, and it cannot start until it is unblocked.`;
    if (!blocked && !(await confirm("Block this account?", question, "Block it"))) return null;
    const { ended } = await ask("POST", at(blocked ? "/unblock" : "/block"));
    return blocked ? `${name} may play again.` : `${name} is blocked; ${plural(ended, "session")} ended.`;
  }), { class: "danger" });

  const limit = el("input", { type: "number", id: "limit", min: 0, max: 1000, required: true, inputmode: "numeric" });
  const enforce = el("input", { type: "checkbox", id: "enforce" });
  const setting = el("form", { class: "row" },
    el("label", { for: "limit" }, "Limit"), limit,
    el("label", { class: "check", for: "enforce" }, enforce, " end the newest beyond it"),
    el("button", {}, "Set limit"),
    button("As tokens and plans say", () => change(() => setLimit(null))));
  setting.addEventListener("submit", (event) => {
    event.preventDefault();
    change(() => setLimit(limit.valueAsNumber));
  });

  async function setLimit(value) {
    const running = value !== null && enforce.checked;
    const { ended } = await ask("PUT", at("/limit"), { limit: value, enforce_running: running });
    const words = value === null ? "The limit is as tokens and plans say." : `The limit is ${value}.`;
    return ended ? `${words} ${plural(ended, "session")} ended.` : words;
  }

  /** Does it, tells what came of it, and looks again at once. */
  async function change(act) {
    try {
      const done = await act();
      if (done === null) return;
      say(done);
      complain("change", null);
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      complain("change", `Not done: ${refused.message}`);
      return;
    }
    hurry = performance.now() + HURRY_MS;
    await look();
  }

  const past = [played && plays(tenant, name), trail && history({ tenant, account: name })].filter(Boolean);
  const node = el("div", { class: "account" },
    el("h3", { tabindex: "-1" }, name), el("p", { class: "hint" }, `Tenant ${tenant}`), state,
    el("div", { class: "row" }, endAll, block), setting, playing.node, ...past.map((part) => part.node));

  async function refresh() {
    const [list, decided] = await Promise.all([
      ask("GET", target(`${base}/sessions`, { tenant, limit: MOST })), ask("GET", at(""))]);
    [sessions, standing] = [list.items, decided];
    playing.show(sessions);
    const limited = standing.limit === null ? "limit as tokens and plans say" : `limit ${standing.limit}, set by an operator`;
    const shown = list.total > sessions.length ? `, the first ${sessions.length} shown` : "";
    write(state, `${standing.blocked ? "Blocked" : "Not blocked"}; ${limited}; ${plural(list.total, "session")}${shown}.`);
    state.classList.toggle("is-blocked", standing.blocked);
    write(block, standing.blocked ? "Unblock" : "Block");
    endAll.disabled = sessions.length === 0;
  }

  const look = () => guard("account", async () => {
    await refresh();
    await Promise.all(past.map((part) => part.refresh()));
  });
  return { node, refresh, look, isHurried: () => performance.now() < hurry };
}

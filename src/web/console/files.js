// Who used which file, where this node has media.
import { ask, target } from "./asking.js";
import { button, el, moment, write } from "./elements.js";
import { table } from "./table.js";

const PAGE = 20;
const PERIOD_MS = 15_000;

/** The view; `guard`: does what the node may refuse. */
export function files(guard) {
  const summary = el("p", {});
  let [page, last] = [1, 1];
  const used = table("Most used", [
    { title: "File", loose: true, text: ({ title, file }) => title ?? file },
    { title: "Accesses", text: ({ accesses }) => accesses.toLocaleString() },
    { title: "Accounts", text: ({ unique }) => unique.toLocaleString() },
  ], ({ file }) => file, "No file was used.");
  const opened = table("Accesses", [
    { title: "Account", loose: true, text: ({ account }) => account },
    { title: "Role", text: ({ role }) => role || "\u2013" },
    { title: "File", loose: true, text: ({ file }) => file },
    { title: "Kind", text: ({ kind }) => kind },
    { title: "Provider", loose: true, text: ({ provider }) => provider || "\u2013" },
    { title: "Opened", text: ({ opened_at: at }) => moment(at) },
    { title: "Closed", text: ({ closed_at: at }) => (at ? moment(at) : "open") },
  ], ({ id }) => id, "No file was opened.");
  const where = el("span", {});
  const turn = (by) => {
    page = Math.min(last, Math.max(1, page + by));
    return guard("view", refresh);
  };
  const newer = button("Newer", () => turn(-1));
  const older = button("Older", () => turn(1));
  async function refresh() {
    const [stats, listed] = await Promise.all([
      ask("GET", "/v1/files/stats"), ask("GET", target("/v1/files/accesses", { page, limit: PAGE }))]);
    const { total, files: all, completion_rate: rate } = stats;
    const few = `fewer than ${stats.floor} accounts`;
    const closed = total ? `${total.accesses.toLocaleString()} accesses are closed` : `accesses are not counted for ${few}`;
    const whole = rate === null ? "" : `, ${(100 * rate).toFixed(0)} % of them complete`;
    write(summary, `${all.count.toLocaleString()} files with ${all.bytes.toLocaleString()} bytes; ${closed}${whole}; ${stats.open} open.`);
    used.show(stats.most_used);
    opened.show(listed.items);
    last = Math.max(1, Math.ceil(listed.total / PAGE));
    write(where, `Page ${page} of ${last}`);
    [newer.disabled, older.disabled] = [page <= 1, page >= last];
  }
  return { refresh, period: PERIOD_MS, node: el("div", {}, el("h2", { tabindex: "-1" }, "Files"),
    el("p", { class: "hint" }, "Of the tenant of the token."), summary, used.node, opened.node,
    el("div", { class: "row" }, newer, where, older)) };
}

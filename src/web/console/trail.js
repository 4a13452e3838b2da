// What operators did, from this node's audit trail.
import { ask, target } from "./asking.js";
import { button, el, moment, write } from "./elements.js";
import { table } from "./table.js";

const PAGE = 20;

/** How often the trail is read again: each time the node reads its file. */
const PERIOD_MS = 10_000;

/** What came of a call, in words. */
function outcome({ status, error, outcome: told }) {
  if (error) return `${status} ${error}`;
  const parts = Object.entries(told ?? {}).filter(([name, value]) => !["tenant", "account"].includes(name) && value !== null);
  return [status, ...parts.map(([name, value]) => `${name} ${value}`)].join(", ");
}

const about = ({ account, session, device }) => [account, session && `session ${session}`, device && `device ${device}`]
  .filter(Boolean).join(", ") || "\u2013";

const COLUMNS = [
  { title: "When", text: ({ at }) => moment(at) },
  { title: "Who", loose: true, text: ({ who, who_tenant: tenant, from }) => `${who} (${tenant}) from ${from ?? "?"}` },
  { title: "Did", text: ({ action }) => action },
  { title: "Tenant", text: ({ tenant }) => tenant },
  { title: "About", loose: true, text: about },
  { title: "Outcome", loose: true, text: outcome },
];

/** The changes about an account. */
export function history(whose) {
  const list = table("Done by operators on this node", COLUMNS, ({ request_id: id }) => id, "Nothing, as far as this node's trail goes.");
  return { node: list.node, async refresh() {
    list.show((await ask("GET", target("/v1/admin/trail", { ...whose, changes: true, limit: PAGE }))).items);
  } };
}

/** The whole trail, page by page; `guard`: does what the node may refuse. */
export function trail(guard) {
  let page = 1;
  const list = table("Calls of operators on this node", COLUMNS, ({ request_id: id }) => id, "Nothing was done.");
  const only = el("input", { type: "checkbox", id: "changes", checked: true });
  const where = el("span", {});
  const newer = button("Newer", () => turn(page - 1));
  const older = button("Older", () => turn(page + 1));
  const turn = (to) => {
    page = to;
    return guard("view", refresh);
  };
  only.addEventListener("change", () => turn(1));

  async function refresh() {
    const parameters = { page, limit: PAGE, changes: only.checked ? true : null };
    const { items, total } = await ask("GET", target("/v1/admin/trail", parameters));
    list.show(items);
    const last = Math.max(1, Math.ceil(total / PAGE));
    write(where, `Page ${page} of ${last}`);
    [newer.disabled, older.disabled] = [page <= 1, page >= last];
  }

  return { refresh, period: PERIOD_MS, node: el("div", {}, el("h2", { tabindex: "-1" }, "Audit trail"),
    el("p", { class: "hint" }, "Each node has a trail of its own. A look that somebody repeats within ten minutes is in it once."),
    el("div", { class: "row" }, el("label", { class: "check", for: "changes" }, only, " only changes")),
    list.node, el("div", { class: "row" }, newer, where, older)) };
}

// What was watched and who would be paid, where this node has the ledger.
import { ask, target } from "./asking.js";
import { el, moment, write } from "./elements.js";
import { table } from "./table.js";

const PAGE = 20;
const LIVE_MINUTES = 15;
const PERIOD_MS = 15_000;

/** Seconds as hours and minutes. */
export function lasting(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[Math.floor(whole / 3_600), "h"], [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = parts.findIndex(([many]) => many > 0);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).filter(([many], at) => at === 0 || many > 0).map((part) => part.join(" ")).join(" ");
}

const PLAY = [
  { title: "Content", loose: true, text: ({ content }) => content },
  { title: "Began", text: ({ started_at: at }) => moment(at) },
  { title: "Watched", text: ({ counted }) => lasting(counted) },
  { title: "Device", loose: true, text: ({ device_name: name, device }) => name ?? device ?? "\u2013" },
  { title: "Ended by", text: ({ code, kind }) => code ?? kind },
];

/** The last plays of an account; not shown where nodes share slots and no database. */
export function plays(tenant, user) {
  const list = table("Plays", PLAY, ({ id }) => id, "Nothing was played yet.");
  return { node: list.node, async refresh() {
    try {
      list.show((await ask("GET", target("/v1/plays", { tenant, user, limit: PAGE }))).items);
      list.node.hidden = false;
    } catch (refused) {
      if (refused.code !== "needs_database") throw refused;
      list.node.hidden = true;
    }
  } };
}

const day = (date) => date.toISOString().slice(0, 10);

/** The month before this one: the period that is paid next. */
export function lastMonth(now) {
  const [year, month] = [now.getUTCFullYear(), now.getUTCMonth()];
  return [day(new Date(Date.UTC(year, month - 1, 1))), day(new Date(Date.UTC(year, month, 1)))];
}

/** The lines of a royalty report, in the order in which they add up to the pool. */
export function lines({ rows, unlabelled, outside_region: outside, unallocated, pool }) {
  const parts = [["without a label", unlabelled], ["outside the region", outside]].filter(([, part]) => part);
  return [...rows.map(({ label, seconds, amount }) => ({ id: `l ${label}`, name: label, seconds, amount })),
    ...parts.map(([name, { seconds, amount }]) => ({ id: name, name, seconds, amount })),
    { id: "unallocated", name: `unallocated, ${unallocated.users} who watched nothing`, seconds: null, amount: unallocated.amount },
    { id: "pool", name: "Pool", seconds: null, amount: pool }];
}

function field(id, label, node) {
  node.id = id;
  return el("label", { for: id }, label, node);
}

/** The view; `who`: the answer about the operator; `guard`: does what the node may refuse. */
export function ledger(who, guard) {
  const tenant = el("input", { value: who.tenant, required: true, maxlength: 64, autocomplete: "off" });
  const [first, after] = lastMonth(new Date());
  const from = el("input", { type: "date", required: true, value: first });
  const to = el("input", { type: "date", required: true, value: after });
  const region = el("input", { maxlength: 64, autocomplete: "off" });
  const model = el("select", {}, el("option", { value: "pro_rata" }, "pro rata"), el("option", { value: "user_centric" }, "user centric"));
  const form = el("form", { class: "search" }, field("royalty-from", "From", from), field("royalty-to", "To, exclusive", to),
    field("royalty-model", "Model", model), field("royalty-region", "Region (all)", region), el("button", {}, "Preview"));
  const told = el("p", {});
  const royalties = table("Royalties", [
    { title: "Label", loose: true, text: ({ name }) => name },
    { title: "Watched", text: ({ seconds }) => (seconds === null ? "\u2013" : lasting(seconds)) },
    { title: "Amount", text: ({ amount }) => amount },
  ], ({ id }) => id, "No preview yet.");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    guard("report", async () => {
      const asked = { tenant: tenant.value, from: from.value, to: to.value, model: model.value, region: region.value };
      const report = await ask("GET", target("/v1/reports/royalties", asked));
      const lacking = report.incomplete ? " Incomplete: contents were watched whose label is not known yet." : "";
      write(told, `${report.from} to ${report.to}, in ${report.currency}.${lacking}`);
      royalties.show(lines(report));
    });
  });

  const since = el("p", {});
  const usage = table(`Watched in the last ${LIVE_MINUTES} minutes`, [
    { title: "Label", loose: true, text: ({ name }) => name || "without a label" },
    { title: "Watched", text: ({ seconds }) => lasting(seconds) },
  ], ({ name }) => name, "Nothing was watched.");
  async function refresh() {
    const begin = new Date(Date.now() - LIVE_MINUTES * 60_000).toISOString();
    const seen = await ask("GET", target("/v1/reports/usage", { tenant: tenant.value, from: begin }));
    const top = seen.top ? `; the most watched is ${seen.top.name} with ${lasting(seen.top.seconds)}` : "";
    write(since, `${lasting(seen.seconds)} watched${top}.`);
    usage.show(seen.labels);
  }
  return { refresh, period: PERIOD_MS, node: el("div", {}, el("h2", { tabindex: "-1" }, "Ledger"),
    el("div", { class: "search" }, field("royalty-tenant", "Tenant", tenant)),
    since, usage.node, el("h3", {}, "Royalty preview"),
    el("p", { class: "hint" }, "Nothing is frozen or paid by a preview."), form, told, royalties.node) };
}

// What another limit would have done, from the histogram of slots that each try asked for, and by plan from the ledger.
import { ask, target } from "./asking.js";
import { el, write } from "./elements.js";
import { buckets, total } from "./metrics.js";
import { table } from "./table.js";

/** Limits that are shown at least. */
const SHOWN = 6;

/**
 * For each limit: how many tries ask for more slots than that, of how many.
 */
export function whatIf(families) {
  const counts = buckets(families, "usher_attempt_level");
  const tries = counts.at(-1)?.count ?? 0;
  const finite = counts.filter(({ bound }) => bound >= 1 && bound !== Infinity);
  const enough = finite.findIndex(({ count }) => count === tries);
  const shown = Math.max(SHOWN, enough < 0 ? finite.length : enough + 1);
  return finite.slice(0, shown).map(({ bound, count }) => ({ limit: bound, refused: tries - count, tries }));
}

const percent = (part, all) => (all === 0 ? "\u2013" : `${((100 * part) / all).toFixed(1)} %`);

const DAYS = 30;
const AGAIN_MS = 15_000;

/** The same by plan, of the tenant's starts on all nodes; it asks the ledger now and then. */
export function byPlan(tenant) {
  const list = table(`Starts of the last ${DAYS} days, all nodes`, [
    { title: "Plan", loose: true, text: ({ plan }) => plan || "none" },
    { title: "Starts", text: ({ granted, refused }) => (granted + refused).toLocaleString() },
    { title: "Refused", text: ({ refused }) => refused.toLocaleString() },
    { title: "Refusals that a limit would have saved", text: ({ what_if: limits }) =>
      limits.map(({ limit, saved }) => `${limit}: ${saved.toLocaleString()}`).join(", ") || "none to save" },
  ], ({ plan }) => `plan ${plan}`, "No start yet.");
  let asked = -Infinity;
  return { node: el("div", {}, el("h3", {}, "By plan"), list.node), async refresh() {
    if (performance.now() - asked < AGAIN_MS) return;
    asked = performance.now();
    const from = new Date(Date.now() - DAYS * 86_400_000).toISOString().slice(0, 10);
    list.show((await ask("GET", target("/v1/reports/concurrency", { tenant, from }))).plans);
  } };
}

/** `plans`: what shows the same by plan; null where there is no ledger. */
export function levels(figures, plans) {
  const bar = ({ limit }) => {
    const inner = el("span", { class: "bar" });
    bars.set(limit, inner);
    return el("span", { class: "rail", "aria-hidden": "true" }, inner);
  };
  const bars = new Map();
  const list = table("What a limit would have refused", [
    { title: "Limit", text: ({ limit }) => String(limit) },
    { title: "Refused tries", text: ({ refused }) => refused.toLocaleString() },
    { title: "Of all tries", text: ({ refused, tries }) => percent(refused, tries) },
    { title: "Against now", text: ({ refused, denied }) => {
      const less = denied - refused;
      return less === 0 ? "the same" : less > 0 ? `${less.toLocaleString()} fewer` : `${(-less).toLocaleString()} more`;
    } },
    { title: "Share", node: bar },
  ], ({ limit }) => limit, "No try yet.");
  const now = el("p", {});
  return { follows: true, node: el("div", {}, el("h2", { tabindex: "-1" }, "What if the limit were another"),
    el("p", {}, "Each try to start counts with the slots that its account would use if nothing were refused. ",
      "A limit of n for everybody would have refused the tries above n."),
    now, list.node,
    el("p", { class: "hint" }, "This node, since its start. Whoever tries again counts again, so that a higher limit saves ",
      "at most this many. Tries that another rule refused are in it, those of blocked accounts are not."),
    plans && plans.node),
  async refresh() {
    await plans?.refresh();
    const families = figures.latest();
    if (!families) return;
    const denied = total(families, "usher_denials_total", { rule: "account" });
    const rows = whatIf(families).map((row) => ({ ...row, denied }));
    const tries = rows[0]?.tries ?? 0;
    write(now, `${tries.toLocaleString()} tries; the limits as they are refused ${denied.toLocaleString()} of them.`);
    list.show(rows);
    for (const { limit, refused } of rows) bars.get(limit).style.width = `${tries ? (100 * refused) / tries : 0}%`;
  } };
}

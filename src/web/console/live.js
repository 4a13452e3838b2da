// What happens on this node now, and which nodes there are.
import { ask } from "./asking.js";
import { chart } from "./chart.js";
import { el } from "./elements.js";
import { SPAN, counted } from "./figures.js";
import { total } from "./metrics.js";
import { table } from "./table.js";

const NODES_MS = 5_000;

const count = (value) => Math.round(value).toLocaleString();
const rate = (value) => `${value < 10 ? value.toFixed(1) : count(value)}/s`;
const millis = (value) => `${value < 10 ? value.toFixed(1) : count(value)} ms`;
const seconds = (value) => `${value.toFixed(1)} s`;

/** Title, names of the lines, the figures they show, and how a value is written. */
const CHARTS = [
  ["Sessions", ["sessions", "connections"], ["sessions", "connections"], count],
  ["Admissions", ["granted"], ["starts"], rate],
  ["Refusals", ["refused"], ["denied"], rate],
  ["Ends", ["all", "heartbeat missed"], ["ended", "missed"], rate],
  ["Players in line", ["waiting", "provisional sessions"], ["waiting", "provisional"], count],
  ["Heartbeats", ["frames"], ["heartbeats"], rate],
  ["Heartbeat lateness", ["99th percentile"], ["lateness"], millis],
  ["Time to admit", ["99th percentile"], ["admission"], millis],
  ["Redis round trip", ["median", "99th percentile"], ["redis", "redisMost"], millis],
  ["This node's lease", ["left"], ["lease"], seconds],
];

const REMARKS = {
  "Heartbeat lateness": () => "How late the slots of silent players were freed; promised are 250 ms.",
  "Redis round trip": (families) => (total(families, "usher_redis_commands_total") > 0
    ? (total(families, "usher_redis_up") > 0 ? "" : "Redis does not answer.")
    : "No Redis: the slots are in this process."),
};

const COUNTS = [
  ["Admissions", "usher_admissions_total", "outcome"],
  ["Refusals by rule", "usher_denials_total", "rule"],
  ["Ends by code", "usher_sessions_ended_total", "code"],
];

/** The view. */
export function live(figures) {
  const charts = CHARTS.map(([title, lines, , format]) => chart(title, lines, format, SPAN));
  const counts = COUNTS.map(([caption, , label]) => table(caption, [
    { title: label, text: ({ value }) => value },
    { title: "last minute", text: ({ lately }) => count(lately) },
    { title: "since its start", text: ({ all }) => count(all) },
  ], ({ value }) => value, "Nothing was counted."));
  const known = table("Nodes", [
    { title: "Node", text: ({ node, here }) => (here ? `${node} (this one)` : node) },
    { title: "Lease renewed", text: ({ lease_age_ms: age }) => `${seconds(age / 1_000)} ago` },
    { title: "Lease left", text: ({ lease_remaining_ms: left }) => (left > 0 ? seconds(left / 1_000) : "over") },
  ], ({ node }) => node, "No node has a lease.");
  const node = el("div", {},
    el("h2", { tabindex: "-1" }, "Live"),
    el("p", { class: "hint" }, `This node (${location.host}), at most the last ${SPAN}. Rates are of 10 s, percentiles of 60 s.`),
    el("div", { class: "charts" }, ...charts.map((one) => one.node)),
    known.node,
    el("div", { class: "tables" }, ...counts.map((one) => one.node)));
  let asked = -Infinity;

  return { node, follows: true, async refresh() {
    const families = figures.latest();
    if (families) {
      CHARTS.forEach(([title, , names], at) => charts[at].draw(
        names.map((name) => figures.points.map((point) => point && point[name])), REMARKS[title]?.(families)));
      COUNTS.forEach(([, name, label], at) => counts[at].show(counted(figures, name, label).filter(({ all }) => all > 0)));
    }
    if (performance.now() - asked >= NODES_MS) {
      asked = performance.now();
      known.show((await ask("GET", "/v1/admin/nodes")).items);
    }
  } };
}

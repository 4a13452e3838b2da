// A small chart over time: lines in a drawing, their names and present values beside it, a sentence for who cannot see it.
import { el, svg, write } from "./elements.js";

const HEIGHT = 96;
const TOP = 16;
const BOTTOM = 4;

/** Moments that the width stands for at least: a chart that has just begun is not squeezed. */
const FEWEST = 30;

/** A round number that is at least this one: 1, 2 or 5 times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value * (1 - 1e-9));
}

/** The points of a line over so many moments, broken where a value is missing: a path's `d`. */
export function path(values, width, top, slots) {
  const step = slots > 1 ? width / (slots - 1) : 0;
  const first = slots - values.length;
  let [text, drawn] = ["", false];
  values.forEach((value, at) => {
    if (value === null) {
      drawn = false;
      return;
    }
    const [x, y] = [(first + at) * step, HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM)];
    // A value alone between two gaps is a dot, which a line of no length with round ends is.
    const alone = !drawn && (values[at + 1] ?? null) === null;
    text += `${drawn ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}${alone ? "h0" : ""}`;
    drawn = true;
  });
  return text;
}

/**
 * A chart. `lines`: their names; `format` writes a value; `span`: the time that it shows at most, in words. `draw` takes a
 * list of values for each line, the newest last, null where nothing is known.
 */
export function chart(title, lines, format, span) {
  const now = el("output", {});
  const legend = el("p", { class: "legend" });
  const drawing = svg("svg", { role: "img", height: HEIGHT });
  const hint = el("p", { class: "hint" });
  const node = el("figure", { class: "chart" }, el("figcaption", {}, el("h3", {}, title), now), drawing, legend, hint);
  const keys = lines.map((name, at) => {
    const value = el("span", {});
    if (lines.length > 1) legend.append(el("span", { class: `key line-${at}` }, `${name} `, value));
    return value;
  });

  function draw(all, remark = "") {
    const known = all.flat().filter((value) => value !== null);
    const top = ceiling(Math.max(0, ...known));
    const width = Math.max(120, Math.round(node.clientWidth) - 24);
    const slots = Math.max(FEWEST, ...all.map((values) => values.length));
    const last = all.map((values) => values.at(-1) ?? null);
    const written = (value) => (value === null ? "\u2013" : format(value));
    write(now, written(last[0]));
    keys.forEach((key, at) => write(key, written(last[at])));
    write(hint, remark);
    drawing.setAttribute("width", width);
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const ends = lines.map((name, at) => `${name} ${written(last[at])}`).join(", ");
    const most = known.length ? `; the most in the last ${span} is ${format(Math.max(...known))}` : "";
    drawing.setAttribute("aria-label", `${title}: ${ends}${most}`);
    drawing.replaceChildren(
      ...[TOP, HEIGHT - BOTTOM].map((y) => svg("line", { class: "grid", x1: 0, x2: width, y1: y, y2: y })),
      svg("text", { x: 0, y: TOP - 4 }, format(top)),
      ...all.map((values, at) => svg("path", { class: `line line-${at}`, d: path(values, width, top, slots) })),
    );
  }
  return { node, draw };
}

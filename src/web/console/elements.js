// Elements of the page. Every text becomes a text node: much of what is shown was written by strangers.
const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An element with these attributes and children; null and false are left out, true is an attribute without a value. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in a drawing. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function button(label, act, attributes = {}) {
  const node = el("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", act);
  return node;
}

/** Changes a text only when it differs, so that whoever reads or selects it is not disturbed. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Tells what was done, to eyes and to screen readers. */
export function say(text) {
  $("said").textContent = text;
}

const problems = new Map();

/** Shows what went wrong with this; null: nothing any more. */
export function complain(what, text) {
  problems.delete(what);
  if (text) problems.set(what, text);
  $("problem").hidden = problems.size === 0;
  write($("problem"), [...new Set(problems.values())].join(" "));
}

/** Nothing is wrong and nothing was done. */
export function hush() {
  problems.clear();
  complain("all", null);
  say("");
}

const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });

/** An RFC 3339 time in the reader's own zone. */
export function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? String(text) : MOMENT.format(date);
}

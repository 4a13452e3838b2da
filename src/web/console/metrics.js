// The text that Prometheus reads, and what can be told from two of them.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { n: "\n", "\\": "\\", '"': '"' };
const NUMBERS = { "+Inf": Infinity, "-Inf": -Infinity };

/** Name -> [{labels, value}]. */
export function parse(text) {
  const families = new Map();
  for (const line of text.split("\n")) {
    const [, name, inner, number] = LINE.exec(line) ?? [];
    if (name === undefined || line.startsWith("#")) continue;
    const labels = {};
    for (const [, label, value] of (inner ?? "").matchAll(LABEL)) {
      labels[label] = value.replace(/\\(.)/g, (whole, escaped) => ESCAPES[escaped] ?? whole);
    }
    if (!families.has(name)) families.set(name, []);
    families.get(name).push({ labels, value: NUMBERS[number] ?? Number(number) });
  }
  return families;
}

/** The sum of the series whose labels are these; 0 when there is none. */
export function total(families, name, match = {}) {
  let sum = 0;
  for (const { labels, value } of families.get(name) ?? []) {
    if (Object.entries(match).every(([label, wanted]) => labels[label] === wanted)) sum += value;
  }
  return sum;
}

/** By how much a counter grew; one that is smaller than before began anew. */
export function grown(before, after, name, match) {
  const [then, now] = [total(before, name, match), total(after, name, match)];
  return now < then ? now : now - then;
}

/** Values of a label, in the order of the text. */
export function values(families, name, label) {
  return [...new Set((families.get(name) ?? []).map(({ labels }) => labels[label]))];
}

/** The bounds of a histogram's buckets with the number of observations up to each, `+Inf` last. */
export function buckets(families, name) {
  const sums = new Map();
  for (const { labels, value } of families.get(`${name}_bucket`) ?? []) {
    const bound = NUMBERS[labels.le] ?? Number(labels.le);
    sums.set(bound, (sums.get(bound) ?? 0) + value);
  }
  return [...sums].map(([bound, count]) => ({ bound, count })).sort((a, b) => a.bound - b.bound);
}

/**
 * The value below which this share of what was observed between both lies, linear inside its bucket as Prometheus has it;
 * null when nothing was observed.
 */
export function quantile(before, after, name, share) {
  const then = new Map(buckets(before, name).map(({ bound, count }) => [bound, count]));
  const fresh = buckets(after, name);
  const restarted = fresh.some(({ bound, count }) => count < (then.get(bound) ?? 0));
  const counts = fresh.map(({ bound, count }) => ({ bound, count: restarted ? count : count - (then.get(bound) ?? 0) }));
  const all = counts.at(-1)?.count ?? 0;
  if (all === 0) return null;
  const rank = share * all;
  let [low, below] = [0, 0];
  for (const { bound, count } of counts) {
    if (count >= rank && count > below) {
      return bound === Infinity ? low : low + ((bound - low) * (rank - below)) / (count - below);
    }
    [low, below] = [bound, count];
  }
  return low;
}

// A table that is shown again and again: what has not changed stays as it is, so that nobody loses the row under the
// finger or the focus. On a narrow screen each row is a card; the roles say that it is still a table.
import { el, write } from "./elements.js";

/**
 * `columns`: [{title, text: (item) => string}] or [{title, node: (item) => Node}], which is made once for each row.
 * `loose`: its text may be long and breaks anywhere. `key`: what tells one item from another.
 */
export function table(caption, columns, key, empty) {
  const head = columns.map(({ title }) => el("th", { scope: "col", role: "columnheader" }, title));
  const body = el("tbody", { role: "rowgroup" });
  const none = el("p", { class: "empty" }, el("strong", {}, `${caption}: `), empty);
  const grid = el("table", { role: "table" }, el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)), body);
  const node = el("div", { class: "table", role: "group", "aria-label": caption, tabindex: "-1" }, grid, none);
  let rows = new Map();

  function row(item) {
    const cells = columns.map((column) => {
      const cell = el("td", { role: "cell", "data-title": column.title, class: column.loose ? "loose" : null });
      if (column.node) cell.append(column.node(item));
      return cell;
    });
    return { node: el("tr", { role: "row" }, ...cells), cells };
  }

  function show(items) {
    const shown = new Map();
    items.forEach((item, at) => {
      const found = rows.get(key(item)) ?? row(item);
      columns.forEach((column, index) => column.text && write(found.cells[index], column.text(item)));
      if (body.children[at] !== found.node) body.insertBefore(found.node, body.children[at] ?? null);
      shown.set(key(item), found);
    });
    const gone = [...rows].filter(([id]) => !shown.has(id)).map(([, { node }]) => node);
    const held = gone.some((node) => node.contains(document.activeElement));
    gone.forEach((node) => node.remove());
    rows = shown;
    none.hidden = items.length > 0;
    grid.hidden = items.length === 0;
    if (held) node.focus();
  }
  show([]);
  return { node, show };
}

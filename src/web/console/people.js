// Looking for an account, and who plays now.
import { ask, target } from "./asking.js";
import { SESSION, account } from "./account.js";
import { button, el, write } from "./elements.js";
import { table } from "./table.js";

const PAGE = 30;

/** The view; `who`: the answer about the operator; `played`: whether there are plays; `guard`: does what the node may refuse. */
export function people(who, played, guard) {
  const everywhere = who.scopes.includes("operator");
  let [open, page, total] = [null, 1, 0];

  const name = el("input", { id: "account", autocomplete: "off", spellcheck: "false", required: true, maxlength: 256 });
  const tenant = el("input", { id: "tenant", autocomplete: "off", spellcheck: "false", required: true, maxlength: 64, value: who.tenant });
  const search = el("form", { class: "search", role: "search" },
    el("label", { for: "account" }, "Account", name), el("label", { for: "tenant" }, "Tenant", tenant), el("button", {}, "Show"));
  const place = el("div", {});
  search.addEventListener("submit", (event) => {
    event.preventDefault();
    show(tenant.value, name.value);
  });

  function show(ofTenant, wanted) {
    open = account(ofTenant, wanted, { trail: everywhere, played, guard });
    place.replaceChildren(open.node);
    open.node.querySelector("h3").focus();
    return open.look();
  }

  const all = everywhere && table("Who plays now", [
    { title: "Account", loose: true, node: (item) => button(item.account, () => show(item.tenant, item.account), { class: "link" }) },
    { title: "Tenant", text: (item) => item.tenant },
    ...SESSION,
  ], ({ session }) => session, "Nobody plays.");
  const where = el("span", {});
  const back = button("Back", () => turn(-1));
  const on = button("On", () => turn(1));
  const turn = (by) => {
    page += by;
    return guard("list", list);
  };

  async function list() {
    const answer = await ask("GET", target("/v1/admin/sessions", { page, limit: PAGE }));
    total = answer.total;
    all.show(answer.items);
    const last = Math.max(1, Math.ceil(total / PAGE));
    write(where, `Page ${page} of ${last}, ${total} in all`);
    [back.disabled, on.disabled] = [page <= 1, page >= last];
    paging.hidden = false;
  }
  // Not by itself: on a large installation this list asks the store for every account.
  const look = button("Look", () => {
    page = 1;
    return guard("list", list);
  });
  const paging = el("div", { class: "row", hidden: true }, back, where, on);

  return {
    node: el("div", {}, el("h2", { tabindex: "-1" }, "Accounts"), search, place,
      everywhere ? el("section", {}, el("div", { class: "row" }, el("h3", {}, "All sessions"), look), all.node, paging) : null),
    refresh: async () => open?.refresh(),
    isHurried: () => open?.isHurried() ?? false,
  };
}

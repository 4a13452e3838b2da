// The console: signing in and out, the views, and when they look again.
import { Refused, ask, isSignedIn, show } from "./asking.js";
import { $, complain, el, hush, moment, say, write } from "./elements.js";
import { Figures, PERIOD_MS } from "./figures.js";
import { files } from "./files.js";
import { ledger } from "./ledger.js";
import { byPlan, levels } from "./levels.js";
import { live } from "./live.js";
import { people } from "./people.js";
import { trail } from "./trail.js";

/** After a change, in milliseconds. */
const HURRIED_MS = 400;

/** Everything that is forgotten at the end. */
let shift = null;

/**
 * The views that these scopes open: what concerns the whole node is for operators, and there are only those of the rooms
 * that the node says it has.
 */
function viewsOf(who, paths) {
  const may = (...scopes) => scopes.some((scope) => who.scopes.includes(scope));
  const has = (path) => path in paths && may("operator", "admin");
  const figures = may("operator") ? new Figures() : null;
  const views = new Map();
  if (figures) views.set("live", ["Live", live(figures)]);
  views.set("accounts", ["Accounts", people(who, has("/v1/plays"), guard)]);
  const plans = has("/v1/reports/concurrency") ? byPlan(who.tenant) : null;
  if (figures) views.set("limit", ["Limits", levels(figures, plans)]);
  if (has("/v1/reports/royalties") && has("/v1/reports/usage")) views.set("ledger", ["Ledger", ledger(who, guard)]);
  if (has("/v1/files/stats") && has("/v1/files/accesses")) views.set("files", ["Files", files(guard)]);
  if (figures) views.set("trail", ["Audit trail", trail(guard)]);
  return { views, figures };
}

$("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("door", null);
  // One try at a time: the end of another one would take the token away.
  $("go").disabled = true;
  show($("token").value.trim());
  try {
    const who = await ask("GET", "/v1/admin/operator");
    const { paths } = await ask("GET", "/v1/openapi.json");
    $("token").value = "";
    begin(who, paths);
  } catch (refused) {
    show(null);
    if (!(refused instanceof Refused)) throw refused;
    complain("door", `Not signed in: ${refused.message}`);
    $("token").focus();
  } finally {
    $("go").disabled = false;
  }
});

function begin(who, paths) {
  hush();
  shift = { ...viewsOf(who, paths), timers: [], current: null };
  $("nav").replaceChildren(...[...shift.views].map(([name, [title]]) => el("a", { href: `#${name}` }, title)));
  write($("who"), `${who.account}, ${who.scopes.join(" ")}, until ${moment(who.expires_at)}`);
  for (const id of ["nav", "view", "leave"]) $(id).hidden = false;
  $("door").hidden = true;
  const { figures } = shift;
  turn();
  // Charts go on in a page that nobody sees; accounts are not looked at then.
  if (figures) every("node", () => PERIOD_MS, () => figures.refresh().finally(() => shift?.current.follows && look()));
  every("view", pause, () => (document.hidden || shift.current.follows ? null : shift.current.refresh()));
}

const pause = () => (shift.current.isHurried?.() ? HURRIED_MS : shift.current.period ?? PERIOD_MS);

function end(why) {
  show(null);
  shift?.timers.forEach(clearTimeout);
  shift = null;
  hush();
  $("view").replaceChildren();
  $("nav").replaceChildren();
  write($("who"), "");
  for (const id of ["nav", "view", "leave"]) $(id).hidden = true;
  $("door").hidden = false;
  if ($("confirm").open) $("confirm").close();
  complain("door", why);
  $("token").focus();
}

$("go").disabled = false;
$("leave").addEventListener("click", () => end(null));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
window.addEventListener("hashchange", turn);
window.addEventListener("resize", () => shift?.current.follows && look());

/** Shows the view that the address names. */
function turn() {
  if (!shift) return;
  const asked = location.hash.slice(1);
  const name = shift.views.has(asked) ? asked : shift.views.keys().next().value;
  const [title, view] = shift.views.get(name);
  shift.current = view;
  $("view").replaceChildren(view.node);
  for (const link of $("nav").children) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Usher: ${title.toLowerCase()}`;
  say("");
  view.node.querySelector("h2").focus();
  look();
}

const look = () => guard("view", () => shift.current.refresh());

/** Does it; what the node refuses is shown, and who is not believed any more is signed out. */
async function guard(what, act) {
  const mine = shift;
  try {
    await act();
    if (mine === shift) complain(what, null);
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    if (mine !== shift || mine === null) return;
    if (refused.status === 401) end(`Signed out: ${refused.message}`);
    else complain(what, refused.message);
  }
}

/** Again and again, one after the other, while somebody is signed in. */
function every(what, pause, act) {
  const mine = shift;
  const at = mine.timers.push(0) - 1;
  const round = async () => {
    await guard(what, act);
    if (mine === shift && isSignedIn()) mine.timers[at] = setTimeout(round, pause());
  };
  round();
}

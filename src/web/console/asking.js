// Asking this node, as the operator who signed in. The token lives in this module and nowhere else: no storage, no URL.

/** How long an answer may take, in milliseconds. */
const PATIENCE_MS = 10_000;

let token = null;

/** The node said no; `code` is that of its error. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** From now on this token is shown; null: none. */
export function show(text) {
  token = text;
}

export const isSignedIn = () => token !== null;

/** The text of an answer. */
async function send(method, path, body) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const options = { method, headers, cache: "no-store", credentials: "omit", redirect: "error",
    signal: AbortSignal.timeout(PATIENCE_MS), body: body === undefined ? undefined : JSON.stringify(body) };
  let [response, text] = [null, ""];
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch {
    throw new Refused(0, "unreachable", "This node does not answer.");
  }
  if (response.ok) return text;
  const error = understood(text)?.error;
  throw new Refused(response.status, error?.code ?? "unknown", error?.message ?? `It answered ${response.status}.`);
}

/** What a text says as JSON; null when it says nothing. */
function understood(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The JSON of an answer; null when it has none. */
export async function ask(method, path, body) {
  return understood(await send(method, path, body));
}

/** A text that anybody who reaches the listener may read. */
export const read = (path) => send("GET", path);

/** A path with parameters; those that are empty are left out. */
export function target(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return query ? `${path}?${query}` : path;
}

// The way in: the URL of a start, and the reason of a refusal that a browser hides.

/** URL of the watch socket. Throws TypeError for what is no web address. */
export function watchUrl({ url: base, content, device, deviceName, deviceClass, onLimit }, resume, since) {
  const url = new URL(base, globalThis.location?.href);
  url.protocol = { "https:": "wss:", "http:": "ws:" }[url.protocol] ?? url.protocol;
  if (!["ws:", "wss:"].includes(url.protocol)) throw new TypeError(`url: ${url.protocol} is no web address`);
  if (!url.pathname.endsWith("/v1/watch")) url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/watch`;
  const query = { content, device, device_name: deviceName, device_class: deviceClass, on_limit: onLimit, resume, since };
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** The same place for plain requests. */
export function plainUrl(url) {
  const plain = new URL(url);
  plain.protocol = plain.protocol === "wss:" ? "https:" : "http:";
  return plain;
}

/**
 * Asks the same URL plainly: refused for the same reason, or with 426 when only the upgrade was missing. Null when there
 * is no answer: the network is away, or the gateway is of another origin and does not allow this page's.
 */
export async function askWhy(url, token, withinMs) {
  if (!globalThis.fetch) return null;
  try {
    const signal = AbortSignal.timeout(withinMs);
    const headers = { authorization: `Bearer ${token}` };
    const response = await fetch(plainUrl(url), { headers, cache: "no-store", signal });
    const { error } = await response.json().catch(() => ({}));
    const seconds = Number(response.headers.get("retry-after"));
    return {
      status: response.status,
      code: error?.code ?? `http_${response.status}`,
      message: error?.message,
      retryAfterMs: Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 3600) * 1000 : 0,
    };
  } catch {
    return null;
  }
}

/** Gives a socket up. A close without a code keeps the slot for a resume. */
export function abandon(socket) {
  if (socket && socket.readyState < 2) close(socket);
}

/** Leaves for good: 1000 frees the slot at once. */
export function leave(socket) {
  if (socket && socket.readyState < 2) close(socket, 1000);
}

function close(socket, code) {
  try {
    socket.close(code);
  } catch {
    // It never opened.
  }
}

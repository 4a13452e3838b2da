// Put the newest ticket on every request of the bytes: for hls.js, Shaka Player and plain fetch.
//
// A ticket opens what the session plays: it goes only to the origins that are named, by default the gateway's.

/**
 * `{origins: [..], query: false}`: to whom the ticket goes, and whether as `?ticket=` instead of a header (a header
 * makes a browser ask another origin first, by a preflight request).
 */
function ticketFor(session, url, { origins = [session.origin] } = {}) {
  const { origin } = new URL(url, globalThis.location?.href);
  return origins.includes(origin) ? session.ticket?.token ?? null : null;
}

function withTicket(url, ticket) {
  const whole = new URL(url, globalThis.location?.href);
  whole.searchParams.set("ticket", ticket);
  return whole.href;
}

/** For hls.js: `new Hls({...hlsTickets(session)})`. */
export function hlsTickets(session, options = {}) {
  return {
    xhrSetup(request, url) {
      const ticket = ticketFor(session, url, options);
      if (ticket === null) return;
      if (options.query) return request.open("GET", withTicket(url, ticket), true);
      // hls.js calls this before it opens the request.
      if (request.readyState === 0) request.open("GET", url, true);
      request.setRequestHeader("Authorization", `Bearer ${ticket}`);
    },
    fetchSetup(context, init) {
      const ticket = ticketFor(session, context.url, options);
      if (ticket === null) return new Request(context.url, init);
      if (options.query) return new Request(withTicket(context.url, ticket), init);
      const headers = new Headers(init?.headers);
      headers.set("Authorization", `Bearer ${ticket}`);
      return new Request(context.url, { ...init, headers });
    },
  };
}

/** For Shaka Player: `shakaTickets(session, player)`. The answer undoes it. */
export function shakaTickets(session, player, options = {}) {
  const networking = player.getNetworkingEngine();
  const filter = (_type, request) => {
    const tickets = request.uris.map((uri) => ticketFor(session, uri, options));
    if (options.query) {
      request.uris = request.uris.map((uri, at) => (tickets[at] === null ? uri : withTicket(uri, tickets[at])));
    } else if (tickets.length > 0 && tickets.every((ticket) => ticket !== null)) {
      // Shaka tries the URIs in turn with the same headers: all of them must be meant.
      request.headers.Authorization = `Bearer ${tickets[0]}`;
    }
  };
  networking.registerRequestFilter(filter);
  return () => networking.unregisterRequestFilter(filter);
}

/** `fetch` with the ticket on it. */
export function ticketFetch(session, options = {}) {
  return (input, init = {}) => {
    const url = typeof input === "string" || input instanceof URL ? String(input) : input.url;
    const ticket = ticketFor(session, url, options);
    if (ticket === null) return fetch(input, init);
    if (options.query) return fetch(withTicket(url, ticket), init);
    const headers = new Headers(init.headers ?? input.headers);
    headers.set("Authorization", `Bearer ${ticket}`);
    return fetch(input, { ...init, headers });
  };
}

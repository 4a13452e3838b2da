// Runs this project's SDK against the scripted gateway: in Node and in a browser alike. The model for other languages.

const EVENTS = ["granted", "denied", "waiting", "ticket", "takeoverrequest", "slots", "lost", "ended", "message", "error"];

/** One case; the gateway's verdict `{case, passed, problems}`. */
export async function drive(base, chosen, timing, UsherSession, WebSocket) {
  const call = async (path, value) => {
    const response = await fetch(base + path, value && { method: "POST", body: JSON.stringify(value) });
    return response.json();
  };
  const { run, url } = await call("/runs", { case: chosen.name });
  let tokens = 0;
  const session = new UsherSession({
    url, content: "film", device: "tv-1", deviceName: "Living room", deviceClass: "tv", timing, WebSocket,
    // One that does not say when it ends, unless the case is about that.
    getToken: async () => `${chosen.token_life_s ? jwt(chosen.token_life_s) : "opaque"}.${++tokens}`,
    ...chosen.options,
  });
  const events = [];
  const todo = [...(chosen.player ?? [])];
  for (const type of EVENTS) {
    session.addEventListener(type, ({ detail }) => {
      events.push({ ...detail, type });
      const at = todo.findIndex((one) => one.on === type);
      if (at >= 0) act(session, todo.splice(at, 1)[0], detail);
    });
  }
  session.start();
  await call(`/runs/${run}/done`);
  const { state } = session;
  const verdict = await call(`/runs/${run}/verdict`, { events, state });
  await session.stop();
  return verdict;
}

function act(session, { call, with: value, after_ms: after = 0 }, detail) {
  const acts = {
    stop: () => session.stop(),
    start: () => session.start(),
    takeover: () => session.takeover(detail.holders[value ?? 0]),
    wait: () => session.wait(),
    switch: () => session.switch(value),
    answer: () => session.answer(value),
    send: () => session.send(value),
    report: () => session.report(value),
  };
  setTimeout(acts[call], after);
}

/** Looks like a JWT that ends so many seconds from now. */
function jwt(seconds) {
  const claims = btoa(JSON.stringify({ exp: Date.now() / 1000 + seconds, n: Math.random() }));
  return `e30.${claims.replaceAll("=", "").replaceAll("+", "-").replaceAll("/", "_")}`;
}

// What a page and its network tell: nothing outside of browsers.

/**
 * Listens until the answer is called. `back`: the network or the page is there again. `left`: the page goes away.
 */
export function listen({ back, left }) {
  const { document, navigator } = globalThis;
  const listeners = [
    [globalThis, "online", back],
    [globalThis, "pageshow", ({ persisted }) => { if (persisted) back(); }],
    [globalThis, "pagehide", left],
    [document, "visibilitychange", () => { if (!document.hidden) back(); }],
    [navigator?.connection, "change", back],
  ].filter(([target]) => typeof target?.addEventListener === "function");
  for (const [target, type, listener] of listeners) target.addEventListener(type, listener);
  return () => {
    for (const [target, type, listener] of listeners) target.removeEventListener(type, listener);
  };
}

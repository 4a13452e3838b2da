// What every close code, error and refusal means, and how long to wait before the next try. Pure: no socket, no clock.

/**
 * The close codes of PROTOCOL.md. `action` follows from the range alone; the texts are for people who read logs.
 * A code that is not here is judged by its range too: see `actionOf`.
 */
export const CLOSE_CODES = Object.freeze({
  4000: { code: "stopped", text: "The player stopped." },
  4001: { code: "stream_limit_reached", text: "No slot was free, or the limit was lowered. Tell the person." },
  4002: { code: "displaced", text: "Another player of the account took the slot. Tell the person by whom." },
  4003: { code: "ended_by_operator", text: "An operator ended it. Tell the person." },
  4004: { code: "account_blocked", text: "The account is blocked. Tell the person." },
  4005: { code: "content_unavailable", text: "The content may not be played any more. Tell the person." },
  4006: { code: "moved", text: "The session, or its device, plays on another socket. Nothing to do here." },
  4100: { code: "bad_message", text: "The gateway could not use what this client sends. Fix the client." },
  4101: { code: "message_too_large", text: "A message above 4096 bytes. Fix the client." },
  4102: { code: "rate_limited", text: "Too many messages. Fix the client." },
  4103: { code: "token_expired", text: "The token ran out. The SDK asks for a fresh one, once." },
  4200: { code: "draining", text: "The node leaves. The SDK reconnects." },
  4201: { code: "heartbeat_missed", text: "The gateway heard nothing for a whole lease. The SDK reconnects." },
  4203: { code: "lease_lost", text: "The node could not hold the slot. The SDK reconnects." },
  4204: { code: "unavailable", text: "The slots cannot be judged just now. The SDK reconnects." },
  4205: { code: "slow_consumer", text: "This player did not read. The SDK reconnects." },
});

/** `error.code` on an open socket: the message had no effect, the session goes on. */
export const ERRORS = Object.freeze({
  bad_message: "A message could not be read.",
  unknown_type: "The gateway does not know this type of message.",
  bad_state: "Not possible now.",
  content_unknown: "The catalogue does not have this content. Tell the person; the old one plays on.",
  bad_token: "The fresh token was refused; the old one stays in force.",
  content_forbidden: "The token does not allow this content.",
  stream_limit_reached: "A rule has no place for this content.",
  unavailable: "The gateway could not do it just now. Try again.",
  rate_limited: "Messages come too fast. Wait a moment.",
  not_found: "There is no such account or conversation.",
  blocked: "The recipient wants no messages of this account.",
  room_forbidden: "Only those who watch a content are in its room.",
});

/**
 * Answers before the socket opens, by HTTP status. `retry`: `never`; `token`, with a fresh token, once; `later`, after
 * `Retry-After` and a pause.
 */
export const REFUSALS = Object.freeze({
  400: { retry: "never", text: "A parameter is wrong: fix the client." },
  401: { retry: "token", text: "No token, a bad one or an expired one." },
  403: { retry: "never", text: "Not allowed: the code says whether origin, content, device, scope or account." },
  404: { retry: "never", text: "The catalogue does not know this content, or the URL is not a gateway's." },
  429: { retry: "later", text: "Too many tries." },
  431: { retry: "never", text: "The token or the URL is too long." },
  503: { retry: "later", text: "The node leaves, or cannot judge just now." },
});

/** Defaults of every time that the SDK waits, in milliseconds. */
export const TIMING = Object.freeze({
  /** Least pause before a reconnect. */
  minMs: 500,
  /** Longest pause before a reconnect. */
  maxMs: 20_000,
  /** The first try after a broken connection comes at a random moment within this. */
  firstMs: 1_000,
  /** From a try to its first frame: a black-holed handshake raises no event. */
  connectMs: 12_000,
  /** How long an answer to "is the line alive" may take. */
  aliveMs: 4_000,
  /** How long before its end a token is replaced. */
  refreshMs: 60_000,
  /** How long the gateway may take to answer `stop`. */
  stopMs: 2_000,
});

/** "final": never reconnect by itself. "fix": something must change first. "reconnect": with `resume`, after a pause. */
export function actionOf(number) {
  if (number >= 4000 && number <= 4099) return "final";
  // 1009 is what an intermediary, or the RFC, calls 4101.
  if ((number >= 4100 && number <= 4199) || number === 1009) return "fix";
  return "reconnect";
}

/** Whether the gateway keeps the slot for a resume after this end: not where it ended the session itself. */
export function keepsSlot(number) {
  return actionOf(number) === "reconnect" && number !== 4201 && number !== 4203;
}

/** The close code of an `ended.code`, or null for one that is not in the table. */
export function numberOf(code) {
  const found = Object.entries(CLOSE_CODES).find(([, entry]) => entry.code === code);
  return found ? Number(found[0]) : null;
}

/**
 * The pause before try `n` (0 is the first after a grant), in milliseconds: full jitter on top of the least pause, never
 * above the longest. `random` gives numbers from 0 to below 1.
 */
export function pause(n, timing = TIMING, random = Math.random) {
  const spread = Math.min(timing.maxMs, timing.minMs * 2 ** Math.min(n, 30));
  return Math.min(timing.maxMs, timing.minMs + random() * spread);
}

/** When a JWT ends, in milliseconds of Unix time; null when it does not say, or is no JWT. */
export function expiryOf(token) {
  try {
    const body = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    const { exp } = JSON.parse(atob(body));
    return Number.isFinite(exp) ? exp * 1000 : null;
  } catch {
    return null;
  }
}

// The access token: the one in use, and when to ask for the next one.
import { expiryOf } from "./rules.js";

/** setTimeout fires at once beyond this. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export class Tokens {
  #ask;
  #refreshMs;
  #now;
  /** The token in use, or null. */
  current = null;
  /** When the next one is to be asked for, in milliseconds of Unix time, or null. */
  dueAt = null;

  constructor(getToken, refreshMs, now) {
    this.#ask = getToken;
    this.#refreshMs = refreshMs;
    this.#now = now;
  }

  /** A token for a start: the one in use while it lasts, else a fresh one. */
  async usable(reason) {
    const expiry = this.current && expiryOf(this.current);
    const isGood = expiry !== null && expiry - this.#now() > this.#refreshMs / 2;
    if (!(isGood && reason === "start")) this.current = await this.fresh(reason);
    return this.current;
  }

  /** Asks the application. Throws what it throws, and TypeError when it gives none. */
  async fresh(reason) {
    const token = await this.#ask({ reason });
    if (typeof token !== "string" || token === "") throw new TypeError("getToken gave no token");
    return token;
  }

  /** Milliseconds until the next one is to be asked for; null when the token does not say when it ends, or has ended. */
  plan() {
    const expiry = this.current && expiryOf(this.current);
    const left = expiry === null ? 0 : expiry - this.#now();
    if (left <= 0) {
      this.dueAt = null;
      return null;
    }
    // A short life is halved, and a callback that gives the old token again is not asked without a pause.
    const wait = left > 2 * this.#refreshMs ? left - this.#refreshMs : Math.max(left / 2, this.#refreshMs / 12);
    this.dueAt = this.#now() + wait;
    return Math.min(wait, LONGEST_TIMER_MS);
  }
}

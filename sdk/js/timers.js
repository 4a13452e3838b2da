// Named timers: one of each name at a time, all gone at once.
export class Timers {
  #timers = new Map();

  /** Runs `act` in so many milliseconds, in place of what was planned under this name. */
  after(name, ms, act) {
    this.clear(name);
    this.#timers.set(name, setTimeout(() => { this.#timers.delete(name); act(); }, ms));
  }

  has(name) { return this.#timers.has(name); }

  clear(...names) {
    for (const name of names) {
      clearTimeout(this.#timers.get(name));
      this.#timers.delete(name);
    }
  }

  clearAll() { this.clear(...this.#timers.keys()); }
}

// What this node counts, over the last ten minutes: read every two seconds, in this page's memory only.
import { read } from "./asking.js";
import { grown, parse, quantile, total, values } from "./metrics.js";

export const PERIOD_MS = 2_000;
/** Moments that are kept. */
const SLOTS = 300;
/** What a chart shows, in words. */
export const SPAN = "10 minutes";
/** Rates are of this time; times are of a longer one, because few things happen. */
const RATE_MS = 10_000;
const TIMES_MS = 60_000;

/** What is counted so far, and in the last minute. */
export function counted(figures, name, label) {
  const [then, now] = [figures.ago(TIMES_MS), figures.latest()];
  if (!now) return [];
  return values(now, name, label).map((value) => ({
    value, all: total(now, name, { [label]: value }), lately: grown(then, now, name, { [label]: value }),
  }));
}

export class Figures {
  #samples = [];
  /** The newest last; null: the node did not answer. */
  points = [];

  latest() {
    return this.#samples.at(-1)?.families ?? null;
  }

  /** The sample of so long ago, or the oldest after that. */
  ago(ms) {
    const since = (this.#samples.at(-1)?.at ?? 0) - ms;
    return this.#samples.find(({ at }) => at >= since)?.families ?? null;
  }

  async refresh() {
    try {
      this.#add(performance.now(), parse(await read("/metrics")));
    } catch (refused) {
      this.#push(null);
      throw refused;
    }
  }

  #push(point) {
    this.points.push(point);
    if (this.points.length > SLOTS) this.points.shift();
  }

  #add(at, families) {
    this.#samples.push({ at, families });
    while (at - this.#samples[0].at > TIMES_MS + PERIOD_MS) this.#samples.shift();
    const before = this.#samples.find((sample) => sample.at >= at - RATE_MS - PERIOD_MS / 2);
    const seconds = (at - before.at) / 1_000;
    const rate = (name, match) => (seconds > 0 ? grown(before.families, families, name, match) / seconds : null);
    const ms = (name, share) => {
      const value = quantile(this.ago(TIMES_MS), families, name, share);
      return value === null ? null : value * 1_000;
    };
    const starts = ["granted", "resumed", "replaced", "provisional"].map((outcome) => rate("usher_admissions_total", { outcome }));
    this.#push({
      sessions: total(families, "usher_sessions_active"),
      connections: total(families, "usher_connections_open"),
      waiting: total(families, "usher_waiters"),
      provisional: total(families, "usher_provisional_sessions"),
      starts: seconds > 0 ? starts.reduce((sum, one) => sum + one, 0) : null,
      denied: rate("usher_admissions_total", { outcome: "denied" }),
      ended: rate("usher_sessions_ended_total"),
      missed: rate("usher_sessions_ended_total", { code: "heartbeat_missed" }),
      heartbeats: rate("usher_heartbeats_total"),
      admission: ms("usher_admission_duration_seconds", 0.99),
      lateness: ms("usher_release_lateness_seconds", 0.99),
      redis: ms("usher_redis_duration_seconds", 0.5),
      redisMost: ms("usher_redis_duration_seconds", 0.99),
      lease: total(families, "usher_node_lease_remaining_seconds"),
    });
  }
}

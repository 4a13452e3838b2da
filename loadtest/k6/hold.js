// Holds sessions: each virtual user opens SESSIONS of them and keeps them for FOR seconds, then stops them.
//
//   k6 run -e SECRET=.. -e SESSIONS=100 -e FOR=60 --vus 10 loadtest/k6/hold.js
//
// See player.js for where and as whom.
import { Counter, Trend } from 'k6/metrics';
import exec from 'k6/execution';
import { insecure, play, stop } from './player.js';

const SESSIONS = Number(__ENV.SESSIONS || 10);
const FOR_MS = Number(__ENV.FOR || 30) * 1000;
// Starts per second of one virtual user.
const RATE = Number(__ENV.RATE || 20);

export const options = {
  scenarios: {
    hold: { executor: 'per-vu-iterations', vus: Number(__ENV.VUS || 1), iterations: 1, maxDuration: '24h' },
  },
  insecureSkipTLSVerify: insecure,
  thresholds: { usher_failed: ['count==0'] },
};

const start = new Trend('usher_start', true);
const held = new Counter('usher_held');
const failed = new Counter('usher_failed');

export default function () {
  const user = exec.vu.idInTest;
  for (let number = 0; number < SESSIONS; number += 1) {
    setTimeout(() => open(user, number), (number * 1000) / RATE);
  }
}

function open(user, number) {
  const begun = Date.now();
  let stopping = false;
  const socket = play(`k6-${user}-${number}`, 'tv-1', {
    granted() {
      start.add(Date.now() - begun);
      held.add(1);
      setTimeout(() => {
        stopping = true;
        stop(socket);
      }, FOR_MS);
    },
    closed() {
      if (!stopping) failed.add(1);
    },
  });
}

// More players than slots: whether the limit ever broke. Each virtual user is one account, whose PLAYERS players all
// run in it, so that it can count them; a broken limit fails the run (exit code 99).
//
//   k6 run -e SECRET=.. -e LIMIT=3 -e PLAYERS=6 -e FOR=30 -e VUS=10 loadtest/k6/contend.js
//
// A slot counts from the moment its player has read `granted` until the player sends `stop`: never longer than the
// gateway counts it. See player.js for where and as whom.
import { Counter, Trend } from 'k6/metrics';
import exec from 'k6/execution';
import { insecure, play, stop } from './player.js';

const LIMIT = Number(__ENV.LIMIT || 3);
const PLAYERS = Number(__ENV.PLAYERS || 6);
const FOR_MS = Number(__ENV.FOR || 20) * 1000;
const PLAY_MS = Number(__ENV.PLAY_MS || 400);
const PAUSE_MS = 100;

export const options = {
  scenarios: {
    contend: { executor: 'per-vu-iterations', vus: Number(__ENV.VUS || 5), iterations: 1, maxDuration: '24h' },
  },
  insecureSkipTLSVerify: insecure,
  thresholds: { usher_limit_broken: ['count==0'], usher_grants: ['count>0'], usher_full: ['count>0'] },
};

const grants = new Counter('usher_grants');
const denials = new Counter('usher_denials');
const full = new Counter('usher_full');
const broken = new Counter('usher_limit_broken');
const start = new Trend('usher_start', true);

export default function () {
  const account = `k6-contend-${exec.vu.idInTest}`;
  const end = Date.now() + FOR_MS;
  let playing = 0;

  function attempt(device) {
    if (Date.now() >= end) return;
    const begun = Date.now();
    let counted = false;
    const leave = () => {
      if (counted) playing -= 1;
      counted = false;
    };
    const socket = play(account, device, {
      granted() {
        playing += 1;
        counted = true;
        grants.add(1);
        start.add(Date.now() - begun);
        if (playing === LIMIT) full.add(1);
        if (playing > LIMIT) broken.add(1);
        setTimeout(() => {
          leave();
          stop(socket);
        }, PLAY_MS * (0.5 + Math.random()));
      },
      denied() {
        denials.add(1);
      },
      closed() {
        leave();
        setTimeout(() => attempt(device), PAUSE_MS * (0.5 + Math.random()));
      },
    });
  }

  for (let player = 0; player < PLAYERS; player += 1) attempt(`tv-${player}`);
}

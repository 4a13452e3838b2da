// What both scripts share: where the gateway is, tokens, and one player on one socket.
//
//   URL       wss://host:port of the gateway; default wss://127.0.0.1:8443
//   SECRET    auth.hmac_secret of its nodes: a token is made for each account
//   TOKEN     or one access token for all
//   INSECURE  1: the certificate is not verified. A CA of your own: SSL_CERT_FILE=ca.pem k6 run ..
import crypto from 'k6/crypto';
import encoding from 'k6/encoding';
import { WebSocket } from 'k6/experimental/websockets';

const URL = __ENV.URL || 'wss://127.0.0.1:8443';

export const insecure = __ENV.INSECURE === '1';

function token(account) {
  if (__ENV.TOKEN) return __ENV.TOKEN;
  if (!__ENV.SECRET) throw new Error('say as whom: -e SECRET=.. or -e TOKEN=..');
  const part = (value) => encoding.b64encode(JSON.stringify(value), 'rawurl');
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({
    sub: account,
    exp: Math.floor(Date.now() / 1000) + 24 * 3600,
  })}`;
  return `${body}.${crypto.hmac('sha256', __ENV.SECRET, body, 'base64rawurl')}`;
}

// Opens a watch socket and beats as the gateway asks. `on` may have granted(message), denied(message) and
// closed(wasGranted, code). Returns the socket; send stop(socket) to give the slot back.
export function play(account, device, on) {
  const url = `${URL}/v1/watch?content=k6&device=${device}`;
  const socket = new WebSocket(url, ['usher.v1'], { headers: { Authorization: `Bearer ${token(account)}` } });
  let beat = null;
  let granted = false;
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    if (message.type === 'granted') {
      granted = true;
      beat = setInterval(() => socket.send('{"type":"heartbeat","state":"playing"}'), message.heartbeat_ms);
      if (on.granted) on.granted(message);
    } else if (message.type === 'denied' && on.denied) {
      on.denied(message);
    }
  };
  socket.onerror = () => {};
  socket.onclose = (event) => {
    if (beat !== null) clearInterval(beat);
    if (on.closed) on.closed(granted, event.code);
  };
  return socket;
}

export function stop(socket) {
  if (socket.readyState === 1) socket.send('{"type":"stop"}');
}

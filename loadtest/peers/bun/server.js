// Holds TLS WebSockets and pings the silent ones; nothing else.
const { PEER_CERT, PEER_KEY, PEER_PORT } = process.env;

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(PEER_PORT),
  tls: { cert: Bun.file(PEER_CERT), key: Bun.file(PEER_KEY) },
  fetch(request, server) {
    if (server.upgrade(request)) return;
    return new Response('upgrade required', { status: 426 });
  },
  websocket: {
    idleTimeout: 10,
    sendPings: true,
    maxPayloadLength: 4096,
    perMessageDeflate: false,
    message() {},
  },
});
console.log(
  JSON.stringify({ url: `wss://127.0.0.1:${server.port}/`, pid: process.pid, version: `bun ${Bun.version}` }),
);

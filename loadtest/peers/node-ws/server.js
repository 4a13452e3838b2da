// Three streams an account, on Node.js: a TLS WebSocket is the lease, redis-semaphore counts the slots.
//
// Written as a competent team would: no compression, one sweep for all silences, one Redis connection with
// pipelining, slots that are kept when a connection breaks and freed when a player says so. It speaks the part of
// the gateway's protocol that the load tool uses: granted, denied, heartbeat, stop, the close codes.
'use strict';

const cluster = require('node:cluster');
const crypto = require('node:crypto');
const fs = require('node:fs');
const https = require('node:https');
const Redis = require('ioredis');
const jwt = require('jsonwebtoken');
const { Semaphore } = require('redis-semaphore');
const { WebSocketServer } = require('ws');

const LIMIT = 3;
const LEASE_MS = 10_000;
const SWEEP_MS = 500;
const MAX_MESSAGE = 4096;

const { PEER_CERT, PEER_KEY, PEER_SECRET, PEER_REDIS, PEER_PORT, PEER_CLUSTER = '1' } = process.env;
const workers = Number(PEER_CLUSTER);

if (workers > 1 && cluster.isPrimary) {
  let ready = 0;
  cluster.on('listening', () => {
    ready += 1;
    if (ready === workers) announce();
  });
  cluster.on('exit', () => process.exit(1));
  for (let worker = 0; worker < workers; worker += 1) cluster.fork();
} else {
  serve();
}

function announce() {
  const versions = `ws ${require('ws/package.json').version}, node ${process.versions.node}`;
  console.log(JSON.stringify({ url: `wss://127.0.0.1:${PEER_PORT}/v1/watch`, pid: process.pid, version: versions }));
}

function serve() {
  const redis = new Redis(PEER_REDIS, { enableAutoPipelining: true });
  const sockets = new Set();
  const server = https.createServer({ cert: fs.readFileSync(PEER_CERT), key: fs.readFileSync(PEER_KEY) });
  const ws = new WebSocketServer({ noServer: true, perMessageDeflate: false, maxPayload: MAX_MESSAGE });

  server.on('upgrade', (request, socket, head) => {
    socket.setNoDelay(true);
    const refuse = (status) => socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\n\r\n`);
    const url = new URL(request.url, 'https://localhost');
    if (url.pathname !== '/v1/watch' || !url.searchParams.get('content')) return refuse('400 Bad Request');
    const token = /^Bearer (.+)$/.exec(request.headers.authorization || '');
    let claims;
    try {
      claims = jwt.verify(token ? token[1] : '', PEER_SECRET, { algorithms: ['HS256'], clockTolerance: 30 });
    } catch {
      return refuse('401 Unauthorized');
    }
    ws.handleUpgrade(request, socket, head, (player) => admit(player, claims));
  });

  async function admit(player, claims) {
    const session = crypto.randomBytes(16).toString('base64url');
    player.heard = Date.now();
    player.asked = false;
    player.on('pong', heard);
    player.on('message', (data) => message(player, data));
    player.on('error', () => player.terminate());
    const semaphore = new Semaphore(redis, `account:${claims.sub}`, LIMIT, {
      identifier: session,
      lockTimeout: LEASE_MS,
      refreshInterval: LEASE_MS * 0.8,
      acquireAttemptsLimit: 1,
      onLockLost: () => end(player, 4203, 'lease_lost'),
    });
    let closed = false;
    player.on('close', (code) => {
      closed = true;
      sockets.delete(player);
      if (!player.granted) return;
      // Said goodbye, or was told to go: the slot is free. Broken: it lapses by itself.
      if (code === 1000 || code === 1001 || (code >= 4000 && code < 4200)) semaphore.release().catch(() => {});
      else semaphore.stopRefresh();
    });
    let granted;
    try {
      granted = await semaphore.tryAcquire();
    } catch {
      return end(player, 4204, 'unavailable');
    }
    if (closed) return granted && semaphore.release().catch(() => {});
    if (!granted) {
      say(player, { type: 'denied', code: 'stream_limit_reached', rule: 'account', holders: [], may: [] });
      return player.close(4001, 'stream_limit_reached');
    }
    player.granted = true;
    sockets.add(player);
    say(player, {
      type: 'granted',
      session,
      heartbeat_ms: LEASE_MS / 2,
      lease_ms: LEASE_MS,
      resume: '',
      resumed: false,
      provisional: false,
      server_time: new Date().toISOString(),
    });
  }

  function heard() {
    this.heard = Date.now();
    this.asked = false;
  }

  function message(player, data) {
    heard.call(player);
    let said;
    try {
      said = JSON.parse(data);
    } catch {
      return end(player, 4100, 'bad_message');
    }
    if (said.type === 'stop') end(player, 4000, 'stopped');
  }

  function end(player, code, reason) {
    say(player, { type: 'ended', code: reason });
    player.close(code, reason);
  }

  function say(player, value) {
    if (player.readyState === player.OPEN) player.send(JSON.stringify(value));
  }

  // One timer for all: a player that is silent for half the lease is pinged, for the whole lease let go.
  setInterval(() => {
    const now = Date.now();
    for (const player of sockets) {
      const silence = now - player.heard;
      if (silence >= LEASE_MS) player.terminate();
      else if (silence >= LEASE_MS / 2 && !player.asked) {
        player.asked = true;
        player.ping();
      }
    }
  }, SWEEP_MS);

  server.listen({ port: Number(PEER_PORT), host: '127.0.0.1', backlog: 4096 }, () => {
    if (!cluster.isWorker) announce();
  });
}

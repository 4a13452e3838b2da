// The scripted gateway. `node gateway.js [--port 9700] [--slack MS]`; README.md tells how an SDK is run against it.
import { readFileSync } from "node:fs";
import http from "node:http";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { Run } from "./run.js";

const KINDS = { ".js": "text/javascript", ".html": "text/html", ".json": "application/json" };
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
/** What a browser may fetch from here: the SDK, the driver and its page. */
const FILE = /^\/(?:js\/[a-z]+\.js|conformance\/(?:driver\.js|page\.html))$/;

/** The list of cases, as cases.json has it. */
export const CASES = JSON.parse(readFileSync(here("cases.json"), "utf8"));

/** Starts one on this port of the machine (0: a free one). `slackMs`: how late a player may be on a busy machine. */
export async function serve({ port = 0, slackMs } = {}) {
  const defaults = { ...CASES.defaults, ...(slackMs !== undefined && { slack_ms: slackMs }) };
  const runs = new Map();
  const server = http.createServer((request, response) => {
    answer(request, response).catch((error) => reply(response, 400, { error: error.message }));
  });

  async function answer(request, response) {
    const { pathname } = new URL(request.url, "http://localhost");
    const [, first, id, last] = pathname.split("/");
    if (pathname === "/cases") return reply(response, 200, CASES);
    if (FILE.test(pathname)) return file(response, pathname);
    if (pathname === "/runs" && request.method === "POST") {
      const { case: name } = await body(request);
      const chosen = CASES.cases.find((one) => one.name === name);
      if (!chosen) return reply(response, 404, { error: `no case ${name}` });
      const run = new Run(String(runs.size + 1), chosen, defaults);
      runs.set(run.id, run);
      return reply(response, 201, { run: run.id, url: `ws://${request.headers.host}/runs/${run.id}` });
    }
    const run = first === "runs" && runs.get(id);
    if (!run) return reply(response, 404, { error: "no such run" });
    if (last === "done") {
      await run.done();
      return reply(response, 200, {});
    }
    if (last === "verdict") return reply(response, 200, run.verdict(await body(request)));
    const { status, code, retryAfter } = run.plain();
    if (retryAfter !== undefined) response.setHeader("retry-after", retryAfter);
    return reply(response, status, { error: { code, message: code, field: null, request_id: "0" } });
  }

  server.on("upgrade", (request, socket) => {
    const url = new URL(request.url, "http://localhost");
    const run = runs.get(url.pathname.split("/")[2]);
    if (run && url.pathname.endsWith("/v1/watch")) run.connect(request, socket, url);
    else socket.destroy();
  });
  await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
  const url = `http://127.0.0.1:${server.address().port}`;
  return { url, close: () => { server.closeAllConnections(); server.close(); } };
}

async function body(request) {
  let text = "";
  for await (const chunk of request) text += chunk;
  return JSON.parse(text || "{}");
}

function reply(response, status, value) {
  response.writeHead(status, { "content-type": "application/json", "cache-control": "no-store" });
  response.end(JSON.stringify(value));
}

function file(response, pathname) {
  response.writeHead(200, { "content-type": KINDS[extname(pathname)] });
  response.end(readFileSync(here(`..${pathname}`)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const value = (name) => { const at = process.argv.indexOf(name); return at < 0 ? undefined : Number(process.argv[at + 1]); };
  const { url } = await serve({ port: value("--port") ?? 9700, slackMs: value("--slack") });
  console.log(url);
}

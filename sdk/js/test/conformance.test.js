// The SDK against the scripted gateway, every case of sdk/conformance.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { drive } from "../../conformance/driver.js";
import { CASES, serve } from "../../conformance/gateway.js";
import { NodeSocket } from "../../conformance/socket.js";
import { UsherSession } from "../usher.js";

// A few at a time: on a busy machine a crowd would be late for reasons of its own.
describe("conformance", { concurrency: 12 }, () => {
  let gateway;
  before(async () => { gateway = await serve({ slackMs: Number(process.env.USHER_SLACK_MS ?? 1500) }); });
  after(() => gateway.close());
  for (const one of CASES.cases) {
    it(one.name, { timeout: 60_000 }, async () => {
      const { problems } = await drive(gateway.url, one, CASES.timing, UsherSession, NodeSocket);
      assert.deepEqual(problems, []);
    });
  }
});

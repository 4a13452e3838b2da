// The tables and the pause, without a socket.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { CLOSE_CODES, ERRORS, TIMING, actionOf, expiryOf, keepsSlot, numberOf, pause } from "../rules.js";

const protocol = readFileSync(new URL("../../../src/protocol/PROTOCOL.md", import.meta.url), "utf8");
const section = (title) => protocol.split(`\n## ${title}\n`)[1].split("\n## ")[0];

it("has every close code of PROTOCOL.md, with the slot's fate, and no other", () => {
  const rows = [...section("Ends").matchAll(/^\| (\d{4}) \| `(\w+)` \| (\w+) \|/gm)];
  assert.ok(rows.length >= 16);
  assert.deepEqual(Object.fromEntries(rows.map(([, number, code]) => [number, code])),
    Object.fromEntries(Object.entries(CLOSE_CODES).map(([number, { code }]) => [number, code])));
  for (const [, number, code, slot] of rows) {
    assert.equal(keepsSlot(Number(number)), slot === "kept", number);
    assert.equal(numberOf(code), Number(number));
  }
});

it("has every error of PROTOCOL.md, and no other", () => {
  const rows = [...section("Errors").matchAll(/^\| `(\w+)` \|/gm)].map(([, code]) => code);
  assert.deepEqual(rows.sort(), Object.keys(ERRORS).sort());
});

it("judges by the range", () => {
  for (const number of [4000, 4006, 4050, 4099]) assert.equal(actionOf(number), "final");
  for (const number of [4100, 4103, 4199, 1009]) assert.equal(actionOf(number), "fix");
  for (const number of [4200, 4205, 4299, 4300, 1000, 1001, 1005, 1006, 1011, 3000]) assert.equal(actionOf(number), "reconnect");
});

it("pauses from 500 ms to 20 s with full jitter", () => {
  for (let n = 0; n < 40; n++) {
    const most = Math.min(20_000, 500 + Math.min(20_000, 500 * 2 ** n));
    assert.equal(pause(n, TIMING, () => 0), 500);
    assert.ok(pause(n, TIMING, () => 0.999_999) <= most);
    assert.ok(pause(n, TIMING, () => 0.999_999) > most * 0.99);
    // Evenly over the whole span: each tenth is hit.
    const tenths = new Set();
    for (let draw = 0; draw < 1000; draw++) {
      const wait = pause(n);
      assert.ok(wait >= 500 && wait <= most, `${n}: ${wait}`);
      tenths.add(Math.min(9, Math.floor((wait - 500) / (most - 500) * 10)));
    }
    assert.equal(tenths.size, 10);
  }
});

it("reads when a token ends, and takes any string", () => {
  const jwt = (claims) => `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;
  assert.equal(expiryOf(jwt({ exp: 1.5, name: "Zoë ÿÿÿ???" })), 1500);
  for (const token of ["", "opaque", "a.b.c", "..", jwt({ exp: "soon" }), jwt({}), jwt(null)]) assert.equal(expiryOf(token), null);
});

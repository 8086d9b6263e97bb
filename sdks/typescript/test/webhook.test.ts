import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { InvalidWebhook, verifyWebhook } from "../src/index.js";

interface Case {
  name: string;
  valid: boolean;
  secret: string;
  now: number;
  headers: Record<string, string>;
  body: string;
}

const vectors = new URL("../../../webhook-vectors.json", import.meta.url);
const { cases } = JSON.parse(readFileSync(vectors, "utf8")) as { cases: Case[] };

for (const { name, valid, secret, now, headers, body } of cases) {
  test(`webhook: ${name}`, () => {
    const verify = () => verifyWebhook(secret, headers, body, now);
    if (valid) verify();
    else assert.throws(verify, InvalidWebhook);
    const verifyAsFetched = () => verifyWebhook(secret, new Headers(headers), Buffer.from(body), now);
    if (valid) verifyAsFetched();
    else assert.throws(verifyAsFetched, InvalidWebhook);
  });
}

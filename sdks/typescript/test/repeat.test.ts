import assert from "node:assert/strict";
import test from "node:test";

import { Skald, SkaldError, repeating } from "../src/index.js";

/** Answers in turn, and the requests that got them. */
function server(...answers: (() => Response)[]): { asked: Request[]; fetch: (request: Request) => Promise<Response> } {
  const asked: Request[] = [];
  const fetch = async (request: Request) => {
    asked.push(request);
    await request.text();
    const answer = answers.shift();
    if (!answer) throw new Error("one request too many");
    return answer();
  };
  return { asked, fetch };
}

const refused = (status: number, wait_s: string) => () =>
  Response.json({ code: "overloaded", detail: "later" }, { status, headers: { "Retry-After": wait_s } });
const ok = () => Response.json({ id: "1", status: "completed", ended_at: "2026-01-01T00:00:00Z" }, { status: 201 });
const post = (path: string) => new Request(`http://skald${path}`, { method: "POST", body: "{}" });

test("a start is repeated under one key that was made for it", async () => {
  const { asked, fetch } = server(refused(503, "0"), refused(429, "0"), ok);
  const saga = await new Skald("http://skald", { fetch, apiKey: "k" }).start("checkout", {});
  assert.equal(saga.id, "1");
  const keys = asked.map((request) => request.headers.get("Idempotency-Key"));
  assert.equal(keys.length, 3);
  assert.equal(new Set(keys).size, 1);
  assert.match(keys[0] ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(asked[0]?.headers.get("Authorization"), "Bearer k");
});

test("a key that is there stays", async () => {
  const { asked, fetch } = server(ok);
  await new Skald("http://skald", { fetch }).start("checkout", {}, { idempotencyKey: "mine" });
  assert.equal(asked[0]?.headers.get("Idempotency-Key"), "mine");
});

test("what may have been done is not repeated without a key", async () => {
  const { asked, fetch } = server(refused(503, "0"));
  const answer = await repeating(fetch)(post("/events"));
  assert.equal(answer.status, 503);
  assert.equal(asked[0]?.headers.has("Idempotency-Key"), false);
  const limited = server(refused(429, "0"), ok);
  assert.equal((await repeating(limited.fetch)(post("/events"))).status, 201);
});

test("repeating ends", async () => {
  const { asked, fetch } = server(refused(503, "0"), refused(503, "0"));
  const skald = new Skald("http://skald", { fetch, attempts_max: 2 });
  await assert.rejects(skald.start("checkout", {}), (error) => error instanceof SkaldError && error.status === 503);
  assert.equal(asked.length, 2);
});

test("a wait that is asked for is kept, and one that is too long is not begun", async () => {
  const { fetch } = server(refused(503, "1"), ok);
  const begun = Date.now();
  await repeating(fetch)(post("/sagas/checkout"));
  assert.ok(Date.now() - begun >= 990);
  const answer = await repeating(server(refused(503, "61")).fetch)(post("/sagas/checkout"));
  assert.equal(answer.status, 503);
});

test("a connection that breaks is tried again", async () => {
  let asked = 0;
  const fetch = async () => {
    asked += 1;
    if (asked === 1) throw new TypeError("fetch failed");
    return ok();
  };
  assert.equal((await repeating(fetch)(post("/sagas"))).status, 201);
  asked = 0;
  await assert.rejects(repeating(fetch)(post("/groups/g/poll")), TypeError);
});

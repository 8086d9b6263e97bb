// What the scenarios share: goods and customers that do not run out, a checkout as a user sees it, and what is counted.

import { check } from "k6";
import { Counter, Rate, Trend } from "k6/metrics";
import http from "k6/http";

const SKALD = __ENV.SKALD_URL || "http://127.0.0.1:8080";
const CATALOG = __ENV.CATALOG_URL || "http://127.0.0.1:8081";
const SALES = __ENV.SALES_URL || "http://127.0.0.1:8082";
// Of a hundred orders, how many have a payment that is declined.
const DECLINED_PERCENT = Number(__ENV.DECLINED_PERCENT || 10);

const PRODUCT = "load-1";
const CUSTOMERS = 100;
const ENOUGH = 1_000_000_000;
const WAIT_S = 30;
// So often the end is waited for, then the checkout counts as wrong.
const WAITS_MAX = 4;

// From the request to the end of the saga; of those that were accepted.
export const duration = new Trend("checkout_duration", true);
export const ended = new Counter("checkouts_ended");
// Refused for now, before anything was accepted: 503, or 429 of a rate limit.
export const shed = new Rate("checkouts_shed");
// Answered otherwise than the contract says, or ended otherwise than the order must.
export const wrong = new Rate("checkouts_wrong");

http.setResponseCallback(http.expectedStatuses({ min: 200, max: 299 }, 429, 503));

function headers(more) {
  const key = __ENV.SKALD_API_KEY ? { Authorization: `Bearer ${__ENV.SKALD_API_KEY}` } : {};
  return { "Content-Type": "application/json", ...key, ...more };
}

function expect(answer, statuses, what) {
  if (!statuses.includes(answer.status)) throw new Error(`${what}: ${answer.status} ${answer.body}`);
}

/** Before a scenario: its orders must not end for want of goods or credit. */
export function stockUp() {
  const json = { headers: { "Content-Type": "application/json" }, responseCallback: null };
  const product = JSON.stringify({ id: PRODUCT, name: "For load tests", price: 100 });
  expect(http.post(`${CATALOG}/products`, product, json), [200, 201, 409], "the product cannot be made");
  const delivery = JSON.stringify({ product_id: PRODUCT, delta: ENOUGH });
  expect(http.post(`${CATALOG}/stock/adjust`, delivery, json), [200, 201, 204], "it cannot be delivered");
  for (let number = 0; number < CUSTOMERS; number++) {
    const credit = JSON.stringify({ credit: ENOUGH * 100 });
    const answer = http.put(`${SALES}/customers/load-${number}`, credit, json);
    expect(answer, [200, 201, 204], "a customer cannot be made");
  }
}

/** One checkout, waited for to its end. Whoever is told to come back later does not. */
export function checkout(mode) {
  const declined = Math.random() * 100 < DECLINED_PERCENT;
  const order = {
    customer_id: `load-${Math.floor(Math.random() * CUSTOMERS)}`,
    items: [{ product_id: PRODUCT, quantity: 1 }],
    payment: { method: "card", token: declined ? "tok_declined" : "tok_ok" },
  };
  const begun = Date.now();
  const key = `load-${__VU}-${__ITER}-${begun}`;
  let answer = http.post(`${SKALD}/sagas/checkout?mode=${mode}`, JSON.stringify(order), {
    headers: headers({ "Idempotency-Key": key, Prefer: `wait=${WAIT_S}` }),
    tags: { name: "start" },
    timeout: "60s",
  });
  const isShed = answer.status === 503 || answer.status === 429;
  shed.add(isShed);
  if (isShed) {
    wrong.add(!check(answer, { "a refusal says when to come back": ({ headers }) => "Retry-After" in headers }));
    return;
  }
  let saga = accepted(answer);
  for (let waits = 1; saga && !saga.ended_at && waits < WAITS_MAX; waits++) {
    answer = http.get(`${SKALD}/sagas/${saga.id}`, {
      headers: headers({ Prefer: `wait=${WAIT_S}` }),
      tags: { name: "wait" },
      timeout: "60s",
    });
    saga = accepted(answer);
  }
  const took = Date.now() - begun;
  const status = declined ? "compensated" : "completed";
  const isRight = check(saga, { [`it ended ${status}`]: (saga) => saga !== undefined && saga.status === status });
  wrong.add(!isRight);
  if (!isRight) return;
  duration.add(took);
  ended.add(1);
  const look = http.get(`${SKALD}/sagas/${saga.id}`, { headers: headers({}), tags: { name: "look" } });
  check(look, { "it can be looked at": ({ status }) => status === 200 });
}

function accepted(answer) {
  return [200, 201, 202].includes(answer.status) ? answer.json() : undefined;
}

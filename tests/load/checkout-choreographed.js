// Users who check out, choreographed: each again and again, with a pause between.

import { sleep } from "k6";

import { checkout, stockUp } from "./shop.js";

export const options = {
  vus: Number(__ENV.USERS || 50),
  duration: __ENV.DURATION || "1m",
  thresholds: {
    checkouts_wrong: ["rate==0"],
    checkouts_shed: ["rate==0"],
    checkout_duration: ["p(95)<500"],
    // 100 a minute.
    checkouts_ended: ["rate>1.66"],
    "http_req_duration{name:look}": ["p(95)<200"],
  },
};

export const setup = stockUp;

export default function () {
  checkout("choreographed");
  sleep(Number(__ENV.THINK_S || 1));
}

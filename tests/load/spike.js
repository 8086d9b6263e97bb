// A crowd that comes at once: what is accepted ends as it must, the rest is refused at once, and when the crowd has gone
// all is as before.

import { checkout, stockUp } from "./shop.js";

// Checkouts a second, before and after.
const RATE = Number(__ENV.RATE || 20);
// How many times as many come at once.
const FACTOR = Number(__ENV.FACTOR || 20);
const CALM_S = Number(__ENV.CALM_S || 20);
const SPIKE_S = Number(__ENV.SPIKE_S || 20);
// For what was accepted at the end of the crowd to end.
const PAUSE_S = Number(__ENV.PAUSE_S || 10);

function arrivals(rate, startTime_s, lasts_s) {
  return {
    executor: "constant-arrival-rate",
    rate,
    timeUnit: "1s",
    startTime: `${startTime_s}s`,
    duration: `${lasts_s}s`,
    preAllocatedVUs: Math.min(rate * 2, 500),
    maxVUs: Number(__ENV.USERS_MAX || 2000),
    gracefulStop: "60s",
  };
}

export const options = {
  scenarios: {
    before: arrivals(RATE, 0, CALM_S),
    spike: arrivals(RATE * FACTOR, CALM_S, SPIKE_S),
    after: arrivals(RATE, CALM_S + SPIKE_S + PAUSE_S, CALM_S),
  },
  thresholds: {
    checkouts_wrong: ["rate==0"],
    "checkout_duration{scenario:before}": ["p(95)<2000"],
    "checkouts_shed{scenario:before}": ["rate==0"],
    // Not even a crowd may make users wait for long.
    "checkout_duration{scenario:spike}": ["p(95)<10000"],
    "checkout_duration{scenario:after}": ["p(95)<2000"],
    "checkouts_shed{scenario:after}": ["rate<0.01"],
  },
};

export const setup = stockUp;

export default function () {
  checkout("orchestrated");
}

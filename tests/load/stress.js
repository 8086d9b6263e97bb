// More and more, to beyond what can be carried out: nothing may end wrong, and what is accepted must end.

import { checkout, stockUp } from "./shop.js";

// Checkouts a second in the end.
const RATE_MAX = Number(__ENV.RATE_MAX || 1000);
const STEPS = 5;
const STEP_S = Number(__ENV.STEP_S || 15);

export const options = {
  scenarios: {
    stress: {
      executor: "ramping-arrival-rate",
      startRate: Math.ceil(RATE_MAX / STEPS / 2),
      timeUnit: "1s",
      stages: Array.from({ length: STEPS }, (_, step) => ({
        target: Math.ceil((RATE_MAX * (step + 1)) / STEPS),
        duration: `${STEP_S}s`,
      })),
      preAllocatedVUs: 200,
      maxVUs: Number(__ENV.USERS_MAX || 2000),
      gracefulStop: "60s",
    },
  },
  thresholds: {
    checkouts_wrong: ["rate==0"],
    checkout_duration: ["p(99)<15000"],
    http_req_failed: ["rate==0"],
  },
};

export const setup = stockUp;

export default function () {
  checkout("orchestrated");
}

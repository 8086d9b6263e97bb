/** The client: the typed calls over a `fetch` that repeats, and the two things that take several of them. */

import createClient, { type Client } from "openapi-fetch";

import { type Fetch, type Retries, repeating } from "./repeat.js";
import type { components, paths } from "./generated/schema.js";

export type Saga = components["schemas"]["Saga"];
export type Problem = components["schemas"]["Problem"];

export interface SkaldOptions extends Retries {
  /** Sent as bearer token with every request. */
  apiKey?: string;
  /** What makes the requests; the global `fetch` if left out. */
  fetch?: Fetch;
}

export interface StartOptions {
  /** The same key gives the same saga; one is made if left out. */
  idempotencyKey?: string;
  version?: number;
  mode?: components["schemas"]["SagaMode"];
  /** How long the answer may wait for the end, in seconds; the server's default if left out. */
  wait_s?: number;
}

/** The longest that one request may wait. */
const WAIT_S_MAX = 60;
/** Between looks at a saga whose waits end at once, as a parked one's do. */
const PAUSE_MS = 500;

/** An answer that is an error; `problem` is its body, if it is one of Skald's. */
export class SkaldError extends Error {
  constructor(
    readonly status: number,
    readonly problem: Problem | undefined,
  ) {
    super(problem ? `${problem.code}: ${problem.detail}` : `the server answered ${status}`);
    this.name = "SkaldError";
  }
}

/** The saga had not ended in time; `saga` is how it was last seen. */
export class StillRunning extends Error {
  constructor(readonly saga: Saga) {
    super(`saga ${saga.id} is still ${saga.status}`);
    this.name = "StillRunning";
  }
}

export class Skald {
  /** Every call of the API. Starts get an idempotency key, and refusals for now are repeated, here as well. */
  readonly api: Client<paths>;

  constructor(baseUrl: string, options: SkaldOptions = {}) {
    const headers = options.apiKey === undefined ? {} : { Authorization: `Bearer ${options.apiKey}` };
    this.api = createClient<paths>({
      baseUrl,
      headers,
      fetch: repeating(options.fetch ?? fetch, options),
      // Lists in queries are `a,b`, which the types do not tell.
      querySerializer: { array: { style: "form", explode: false } },
    });
  }

  /** Starts a saga; the answer waits for its end for a while, so look at `status`. */
  async start(definition: string, input: unknown, options: StartOptions = {}): Promise<Saga> {
    const { idempotencyKey, version, mode, wait_s } = options;
    const header = {
      ...(idempotencyKey !== undefined && { "Idempotency-Key": idempotencyKey }),
      ...(wait_s !== undefined && { Prefer: `wait=${wait_s}` }),
    };
    const body = { definition, input, ...(version !== undefined && { version }), ...(mode && { mode }) };
    return found(await this.api.POST("/sagas", { params: { header }, body }));
  }

  /** Waits until the saga has ended: completed, compensated or abandoned. Throws `StillRunning` when that takes too long. */
  async waitUntilEnded(id: string, timeout_s = 300): Promise<Saga> {
    const until = Date.now() + timeout_s * 1000;
    for (;;) {
      const left_s = Math.max(0, Math.ceil((until - Date.now()) / 1000));
      const header = { Prefer: `wait=${Math.min(left_s, WAIT_S_MAX)}` };
      const saga = found(await this.api.GET("/sagas/{id}", { params: { path: { id }, header } }));
      if (saga.ended_at !== undefined) return saga;
      if (Date.now() >= until) throw new StillRunning(saga);
      await new Promise((wake) => setTimeout(wake, PAUSE_MS));
    }
  }
}

function found<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data !== undefined && answer.response.ok) return answer.data;
  const problem = answer.error as Problem | undefined;
  throw new SkaldError(answer.response.status, typeof problem?.code === "string" ? problem : undefined);
}

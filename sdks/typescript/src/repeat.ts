/**
 * A `fetch` that repeats what was refused for now, and gives starts and operators' commands a key that makes
 * repeating them harmless.
 *
 * | answer | repeated |
 * | --- | --- |
 * | 429 | always: nothing was done |
 * | 503 | unless it is a POST without `Idempotency-Key`: it may have been done |
 * | no answer | like 503 |
 */

export type Fetch = (request: Request) => Promise<Response>;

export interface Retries {
  /** Requests made at most for one call; 1 repeats nothing. */
  attempts_max?: number;
  /** The longest wait before a repetition; a longer `Retry-After` ends the repeating. */
  wait_ms_max?: number;
}

const ATTEMPTS_MAX = 5;
const WAIT_MS_MAX = 60_000;
const WAIT_MS_FIRST = 200;

/** Starts, and operators' commands to sagas: the calls that take a key. */
const TAKES_KEY = /\/sagas(\/[^/]+)?$|\/admin\/sagas\/.+$/;

export function repeating(fetch: Fetch, retries: Retries = {}): Fetch {
  const attempts_max = retries.attempts_max ?? ATTEMPTS_MAX;
  const wait_ms_max = retries.wait_ms_max ?? WAIT_MS_MAX;
  return async (request) => {
    const takesKey = request.method === "POST" && TAKES_KEY.test(new URL(request.url).pathname);
    if (takesKey && !request.headers.has("Idempotency-Key")) {
      request.headers.set("Idempotency-Key", crypto.randomUUID());
    }
    const harmless = request.method !== "POST" || request.headers.has("Idempotency-Key");
    for (let attempt = 1; ; attempt++) {
      const isLast = attempt >= attempts_max;
      const answer = await fetch(isLast ? request : request.clone()).catch((error: unknown) => {
        if (isLast || !harmless || request.signal.aborted) throw error;
        return undefined;
      });
      const refused = answer === undefined || answer.status === 429 || (answer.status === 503 && harmless);
      const wait_ms = retryAfter_ms(answer) ?? backoff_ms(attempt);
      if (answer && (isLast || !refused || wait_ms > wait_ms_max)) return answer;
      await answer?.body?.cancel();
      await new Promise((wake) => setTimeout(wake, wait_ms));
    }
  };
}

/** What the answer asks for, in seconds or as a date. */
function retryAfter_ms(answer: Response | undefined): number | undefined {
  const text = answer?.headers.get("Retry-After");
  if (!text) return undefined;
  const wait_ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(wait_ms) ? undefined : Math.max(0, wait_ms);
}

/** Twice as long each time, between the half of it and all, so that clients do not come back together. */
function backoff_ms(attempt: number): number {
  return WAIT_MS_FIRST * 2 ** (attempt - 1) * (0.5 + Math.random() / 2);
}

/** Client of Skald: every call, typed (`Skald.api`), and what calls need besides. */

export { type Saga, Skald, SkaldError, type SkaldOptions, type StartOptions, StillRunning } from "./client.js";
export { type Retries, repeating } from "./repeat.js";
export type { components, operations, paths } from "./generated/schema.js";
export { InvalidWebhook, verifyWebhook } from "./webhook.js";

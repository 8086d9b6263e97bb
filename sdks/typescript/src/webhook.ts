/** Verifies webhooks that are signed as in Standard Webhooks. */

import { createHmac, timingSafeEqual } from "node:crypto";

/** How far a webhook's time and ours may lie apart: an old one may be somebody's recording. */
const TOLERANCE_S = 300;

export class InvalidWebhook extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "InvalidWebhook";
  }
}

/**
 * Throws `InvalidWebhook` unless the body was signed with the secret (`whsec_..`) within the last five minutes.
 *
 * `body` must be the bytes as received: parsing and writing it again changes them.
 */
export function verifyWebhook(
  secret: string,
  headers: Headers | Record<string, string | string[] | undefined>,
  body: string | Uint8Array,
  now_s: number = Date.now() / 1000,
): void {
  const get = (name: string): string => {
    const value = headers instanceof Headers ? headers.get(name) : headers[name];
    if (typeof value !== "string") throw new InvalidWebhook(`the header ${name} is missing`);
    return value;
  };
  const id = get("webhook-id");
  const timestamp = get("webhook-timestamp");
  const signatures = get("webhook-signature");
  if (!/^\d{1,15}$/.test(timestamp)) throw new InvalidWebhook("the timestamp is not a number");
  if (Math.abs(now_s - Number(timestamp)) > TOLERANCE_S) throw new InvalidWebhook("the timestamp is too far from now");

  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  const matches = (signature: string): boolean => {
    if (!signature.startsWith("v1,")) return false;
    const given = Buffer.from(signature.slice(3), "base64");
    return given.length === expected.length && timingSafeEqual(given, expected);
  };
  if (!signatures.split(" ").some(matches)) throw new InvalidWebhook("no signature is by this secret");
}

/** Runs a checkout and shows how it ended. `SKALD_URL` says where Skald is, `SKALD_API_KEY` is optional. */

import { Skald } from "../src/index.js";

const apiKey = process.env["SKALD_API_KEY"];
const skald = new Skald(process.env["SKALD_URL"] ?? "http://127.0.0.1:8080", apiKey === undefined ? {} : { apiKey });

const { data: begun, error } = await skald.api.POST("/sagas/checkout", {
  params: { header: { Prefer: "respond-async" } },
  body: {
    customer_id: "c-typescript",
    items: [{ product_id: "p-1", quantity: 1 }],
    payment: { method: "card", token: "tok_ok" },
  },
});
if (!begun) throw new Error(JSON.stringify(error));
const saga = await skald.waitUntilEnded(begun.id, 60);
console.log(`checkout ${saga.id}: ${saga.status}`);

const { data: ended } = await skald.api.GET("/sagas", {
  params: { query: { status: ["completed", "compensated"], definition: "checkout", limit: 5 } },
});
console.log(`the last that ended: ${ended?.items.map((saga) => saga.state).join(", ")}`);
if (!ended?.items.some(({ id }) => id === saga.id)) throw new Error("it is not among them");
if (saga.status !== "completed") process.exitCode = 1;

"""Runs a checkout and shows how it ended. `SKALD_URL` says where Skald is, `SKALD_API_KEY` is optional."""

import os
import sys

from skald_client import Skald, models

skald = Skald(os.environ.get("SKALD_URL", "http://127.0.0.1:8080"), api_key=os.environ.get("SKALD_API_KEY"))
begun = skald.sagas.start_checkout(
    models.CheckoutInput(
        customer_id="c-python",
        items=[models.CheckoutInputItemsInner(product_id="p-1", quantity=1)],
        payment=models.CheckoutInputPayment(method="card", token="tok_ok"),
    ),
    prefer="respond-async",
)
saga = skald.wait_until_ended(begun.id, timeout_s=60)
print(f"checkout {saga.id}: {saga.status.value}")

statuses = [models.SagaStatus.COMPLETED, models.SagaStatus.COMPENSATED]
ended = skald.sagas.list_sagas(status=statuses, definition="checkout", limit=5).items
print(f"the last that ended: {', '.join(saga.state for saga in ended)}")
assert saga.id in [other.id for other in ended], "it is not among them"
sys.exit(saga.status != models.SagaStatus.COMPLETED)

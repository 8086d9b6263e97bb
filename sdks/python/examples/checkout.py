"""Runs a checkout and shows how it ended. `SKALD_URL` says where Skald is, `SKALD_API_KEY` is optional."""

import os
import sys

from skald_client import Skald
from skald_client.models import CheckoutInput, CheckoutInputItemsInner, CheckoutInputPayment, SagaStatus

skald = Skald(os.environ.get("SKALD_URL", "http://127.0.0.1:8080"), api_key=os.environ.get("SKALD_API_KEY"))
begun = skald.sagas.start_checkout(
    CheckoutInput(
        customer_id="c-python",
        items=[CheckoutInputItemsInner(product_id="p-1", quantity=1)],
        payment=CheckoutInputPayment(method="card", token="tok_ok"),
    ),
    prefer="respond-async",
)
saga = skald.wait_until_ended(begun.id, timeout_s=60)
print(f"checkout {saga.id}: {saga.status.value}")
sys.exit(saga.status != SagaStatus.COMPLETED)

"""The client: the generated calls over connections that repeat, and the two things that take several of them."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from skald_client.generated import (
    AdminApi,
    ApiClient,
    CallbacksApi,
    Configuration,
    DefinitionsApi,
    EventsApi,
    GroupsApi,
    OperationsApi,
    Saga,
    SagaMode,
    SagasApi,
    StartSagaRequest,
    WebhooksApi,
)
from skald_client.repeat import RepeatingPool, Retries

# The longest that one request may wait.
WAIT_S_MAX = 60
# Between looks at a saga whose waits end at once, as a parked one's do.
PAUSE_S = 0.5


class StillRunning(TimeoutError):
    """The saga had not ended in time; `saga` is how it was last seen."""

    def __init__(self, saga: Saga) -> None:
        super().__init__(f"saga {saga.id} is still {saga.status.value}")
        self.saga = saga


class Skald:
    """Every call of the API, by topic.

    Starts get an idempotency key, and refusals for now are repeated. Errors are `ApiException`; their `data` is the
    problem that the server answered with.
    """

    def __init__(self, base_url: str, *, api_key: str | None = None, retries: Retries = Retries()) -> None:
        client = ApiClient(Configuration(host=base_url.rstrip("/")))
        client.rest_client.pool_manager = RepeatingPool(retries)
        if api_key is not None:
            client.set_default_header("Authorization", f"Bearer {api_key}")
        self.sagas = SagasApi(client)
        self.admin = AdminApi(client)
        self.callbacks = CallbacksApi(client)
        self.definitions = DefinitionsApi(client)
        self.events = EventsApi(client)
        self.groups = GroupsApi(client)
        self.operations = OperationsApi(client)
        self.webhooks = WebhooksApi(client)

    def start(
        self,
        definition: str,
        input: Any,
        *,
        idempotency_key: str | None = None,
        version: int | None = None,
        mode: SagaMode | None = None,
        wait_s: int | None = None,
    ) -> Saga:
        """Starts a saga; the answer waits for its end for a while, so look at `status`."""
        request = StartSagaRequest(definition=definition, input=input, version=version, mode=mode)
        prefer = None if wait_s is None else f"wait={wait_s}"
        return self.sagas.start_any_saga(request, idempotency_key=idempotency_key, prefer=prefer)

    def wait_until_ended(self, id: UUID | str, *, timeout_s: float = 300) -> Saga:
        """Waits until the saga has ended: completed, compensated or abandoned. Raises `StillRunning` if it has not."""
        until = time.monotonic() + timeout_s
        while True:
            left_s = max(0, int(until - time.monotonic()) + 1)
            saga = self.sagas.get_saga(str(id), prefer=f"wait={min(left_s, WAIT_S_MAX)}")
            if saga.ended_at is not None:
                return saga
            if time.monotonic() >= until:
                raise StillRunning(saga)
            time.sleep(PAUSE_S)

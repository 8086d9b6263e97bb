"""Connections that repeat what was refused for now, and give starts and operators' commands a key that makes repeating
them harmless.

| answer | repeated |
| --- | --- |
| 429 | always: nothing was done |
| 503 | unless it is a POST without `Idempotency-Key`: it may have been done |
| no answer | like 503 |
"""

from __future__ import annotations

import re
import sys
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

WAIT_S_FIRST = 0.2

# Starts, and operators' commands to sagas: the calls that take a key.
_TAKES_KEY = re.compile(r"/sagas(/[^/]+)?$|/admin/sagas/.+$")


@dataclass(frozen=True)
class Retries:
    """How much is repeated."""

    #: Requests made at most for one call; 1 repeats nothing.
    attempts_max: int = 5
    #: The longest wait before a repetition; a longer `Retry-After` ends the repeating.
    wait_s_max: int = 60


class _Patience(Retry):
    """urllib3's rules, but for `Retry-After`."""

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:
        # urllib3 repeats some statuses just because they have the header.
        return super().is_retry(method, status_code, has_retry_after=False)

    def increment(self, *arguments: Any, **options: Any) -> Retry:
        # urllib3 would come back before the time that it was asked to wait.
        response: urllib3.BaseHTTPResponse | None = options.get("response")
        if response is not None and (self.get_retry_after(response) or 0) > self.backoff_max:
            raise MaxRetryError(None, None, None)  # type: ignore[arg-type]
        return super().increment(*arguments, **options)


class RepeatingPool(urllib3.PoolManager):
    """Makes the requests of the generated calls."""

    def __init__(self, retries: Retries) -> None:
        super().__init__()
        self._retries = retries

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> urllib3.BaseHTTPResponse:
        headers = dict(options.pop("headers", None) or {})
        has_key = any(name.lower() == "idempotency-key" for name in headers)
        if not has_key and method == "POST" and _TAKES_KEY.search(urlsplit(url).path):
            headers["Idempotency-Key"] = str(uuid.uuid4())
            has_key = True
        options["retries"] = self._policy(harmless=method != "POST" or has_key)
        return super().urlopen(method, url, redirect, headers=headers, **options)

    def _policy(self, *, harmless: bool) -> Retry:
        repetitions = self._retries.attempts_max - 1
        return _Patience(
            total=repetitions,
            # Nothing was sent on a connection that was not made.
            connect=repetitions,
            read=repetitions if harmless else 0,
            other=0,
            redirect=0,
            allowed_methods=None,
            status_forcelist={429, 503} if harmless else {429},
            backoff_factor=WAIT_S_FIRST,
            backoff_max=self._retries.wait_s_max,
            backoff_jitter=WAIT_S_FIRST,
            retry_after_max=sys.maxsize,
            raise_on_status=False,
            raise_on_redirect=False,
        )

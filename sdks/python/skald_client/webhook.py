"""Verifies webhooks that are signed as in Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Mapping

# How far a webhook's time and ours may lie apart: an old one may be somebody's recording.
TOLERANCE_S = 300


class InvalidWebhook(Exception):
    """Do not believe it."""


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes | str, *, now_s: float | None = None) -> None:
    """Raises `InvalidWebhook` unless the body was signed with the secret (`whsec_..`) within the last five minutes.

    `body` must be the bytes as received: parsing and writing it again changes them. The headers' names may be written
    in any case.
    """
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise InvalidWebhook(f"the header {missing} is missing") from None
    if not re.fullmatch(r"[0-9]{1,15}", timestamp):
        raise InvalidWebhook("the timestamp is not a number")
    if abs((time.time() if now_s is None else now_s) - int(timestamp)) > TOLERANCE_S:
        raise InvalidWebhook("the timestamp is too far from now")

    content = body.encode() if isinstance(body, str) else body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = hmac.new(key, f"{id}.{timestamp}.".encode() + content, hashlib.sha256).digest()
    if not any(hmac.compare_digest(expected, _digest(signature)) for signature in signatures.split(" ")):
        raise InvalidWebhook("no signature is by this secret")


def _digest(signature: str) -> bytes:
    """Empty unless the signature is of the version that we know."""
    version, _, digest = signature.partition(",")
    try:
        return base64.b64decode(digest, validate=True) if version == "v1" else b""
    except binascii.Error:
        return b""

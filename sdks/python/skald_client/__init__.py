"""Client of Skald: every call, typed, and what calls need besides."""

from skald_client.client import Skald, StillRunning
from skald_client.generated import models
from skald_client.generated.exceptions import ApiException
from skald_client.repeat import Retries
from skald_client.webhook import InvalidWebhook, verify_webhook

__all__ = [
    "ApiException",
    "InvalidWebhook",
    "Retries",
    "Skald",
    "StillRunning",
    "models",
    "verify_webhook",
]

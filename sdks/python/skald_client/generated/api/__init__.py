# flake8: noqa

# import apis into api package
from skald_client.generated.api.admin_api import AdminApi
from skald_client.generated.api.callbacks_api import CallbacksApi
from skald_client.generated.api.definitions_api import DefinitionsApi
from skald_client.generated.api.events_api import EventsApi
from skald_client.generated.api.groups_api import GroupsApi
from skald_client.generated.api.operations_api import OperationsApi
from skald_client.generated.api.sagas_api import SagasApi
from skald_client.generated.api.webhooks_api import WebhooksApi


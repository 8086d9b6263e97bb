"""What Schemathesis checks of Skald beside its own checks; named by the variable SCHEMATHESIS_HOOKS."""

import re

import schemathesis

# Answers of the 5xx family that are meant: someone asked for a definition that is paused (which the run itself does). Any
# other, with any other code or none, is a failure of the service.
MEANT = {(503, "definition_paused")}


@schemathesis.check
def no_server_error_but_those_that_are_meant(ctx, response, case):
    if response.status_code < 500:
        return
    try:
        code = response.json()["code"]
    except (ValueError, KeyError, TypeError):
        code = None
    if (response.status_code, code) not in MEANT:
        raise AssertionError(f"HTTP {response.status_code} with the code {code}")


# Who waits for events that do not come waits for as long as it said.
DURATION = re.compile(r"^[0-9]+(ms|s|m|h|d)$")


@schemathesis.hook
def before_call(ctx, case, kwargs):
    for part in (case.query, case.body):
        if isinstance(part, dict) and isinstance(part.get("wait"), str) and DURATION.match(part["wait"]):
            part["wait"] = "0ms"

"""Calls that failed for a reason of the provider's, as events of Sentry, by its official SDK. Runs in the child.

What a person did (Ctrl-C, a request that cannot be, a budget that is spent) is no event, and neither is a drill. An
event holds the class, our own words, and labels: never a prompt, an answer, a provider's message or a key.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import sentry_sdk
import sentry_sdk.transport

from llmctl.core.errors import MATRIX
from llmctl.run.observe import CallEnded
from llmctl.run.telling import RELEASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.run.telling import Told

_ONES_OWN = ("request", "caller")
_TROUBLE = ("DeadlineExceeded", "ModelNotFound")
_CLOSE_S = 8.0


class _Heard(sentry_sdk.transport.HttpTransport):
    """Says what could not be sent, which the SDK's own logger keeps to itself."""

    def on_dropped_event(self, reason: str) -> None:
        """Take why an event was given up, in a word such as `network_error`."""
        logging.getLogger("sentry_sdk").warning("an event could not be sent: %s", reason)


class Errors:
    """Sends one event for each call that failed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Where to is `SENTRY_DSN`; `SENTRY_ENVIRONMENT` and `SENTRY_RELEASE` hold too. Raises LookupError."""
        if not environ.get("SENTRY_DSN"):
            raise LookupError("SENTRY_DSN is not set: nothing is sent")
        # Without integrations: they would look into this process, which has nothing to do with the call.
        sentry_sdk.init(
            environ["SENTRY_DSN"],
            release=environ.get("SENTRY_RELEASE") or RELEASE,
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            send_default_pii=False,
            send_client_reports=False,
            include_local_variables=False,
            max_breadcrumbs=0,
            transport=_Heard,
        )

    def __call__(self, event: Told) -> None:
        """Send the failure of a call that has ended, if it is one to be told."""
        if not isinstance(event, CallEnded) or not is_trouble(event):
            return
        record, error = event.record, event.error
        last = event.attempts[-1] if event.attempts else None
        labels = {
            "provider": last and last.provider,
            "model": last and last.model,
            "deployment": last and last.deployment,
            "status": last and last.status,
            "group": record.model,
            "command": record.command,
            "call": record.id,
            "attempts": record.attempt_count,
            "exit_code": record.exit_code,
        }
        sentry_sdk.capture_event(
            {
                "level": "error",
                "logger": "llmctl",
                "timestamp": record.finished_at or record.started_at,  # type: ignore[typeddict-item]
                "exception": {"values": [{"type": record.error, "value": getattr(error, "message", "")}]},
                "tags": {name: str(value) for name, value in labels.items() if value is not None},
            }
        )

    def close(self) -> None:
        """Send what is left."""
        sentry_sdk.get_client().close(timeout=_CLOSE_S)


def is_trouble(event: CallEnded) -> bool:
    """Whether the call failed for another reason than what its caller did."""
    record = event.record
    if record.drill or record.state not in ("failed", "incomplete") or record.error not in MATRIX:
        return False
    return record.error in _TROUBLE or MATRIX[record.error].blame not in _ONES_OWN

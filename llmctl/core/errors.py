"""Everything that can go wrong, as one tree and one table.

The tree says what happened. The table (`MATRIX`) says what is done about it: whether the same target is asked again,
whether the next one is, how long the deployment rests, whose fault it was, and the exit code. The call machine and
`route explain` read the same table, so they cannot disagree. Retry counts and backoff live in `routing/call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmctl.core.record import Attempt

Again = Literal["no", "once", "backoff", "patience"]
Onward = Literal["yes", "other_credential", "fitting_window", "if_configured", "no"]
Blame = Literal["provider", "network", "credential", "request", "caller", "llmctl"]


class Rule(NamedTuple):
    """What is done about one class of error.

    `again`: the same target - never, once, after jittered backoff, or when Retry-After fits the patience.
    `onward`: the next target. `cooldown`: how the deployment rests, in words; the numbers are in
    `routing/health`. `may_succeed_later`: whether a failed chain should exit 6.
    """

    again: Again
    onward: Onward
    cooldown: str
    blame: Blame
    exit: int
    may_succeed_later: bool = False

    @property
    def ejects(self) -> bool:
        """Whether it is a failure of the deployment, which several of eject."""
        return self.cooldown == _EJECT


_EJECT = (
    "after 3 failures in a row, or half of the last 20 within 60 s: "
    "10 s x 2^k, at most 300 s, or 20 s if it failed within 1 s; +-20 %"
)

MATRIX: dict[str, Rule] = {
    "RateLimited": Rule("patience", "yes", "for Retry-After or the reset headers", "provider", 6, True),
    "QuotaExhausted": Rule("no", "other_credential", "until the stated reset, else 10 min", "credential", 6, True),
    "Unavailable": Rule("backoff", "yes", _EJECT, "provider", 6, True),
    "ConnectionFailed": Rule("once", "yes", _EJECT, "network", 6, True),
    "TimedOut": Rule("no", "yes", _EJECT, "provider", 7, True),
    "BadResponse": Rule("no", "yes", _EJECT, "provider", 6, True),
    "StreamTruncated": Rule("backoff", "yes", _EJECT, "provider", 8, True),
    "Unauthorized": Rule("no", "other_credential", "5 min for that credential", "credential", 4),
    "ModelNotFound": Rule("no", "yes", "10 min", "request", 5),
    "ContextExceeded": Rule("no", "fitting_window", "none", "request", 5),
    "ContentFiltered": Rule("no", "if_configured", "none", "request", 5),
    "InvalidRequest": Rule("no", "no", "none", "request", 5),
    "BudgetExceeded": Rule("no", "no", "none", "caller", 9),
    "DeadlineExceeded": Rule("no", "no", "none", "caller", 7, True),
    "Cancelled": Rule("no", "no", "none", "caller", 130),
    "MissingCredential": Rule("no", "yes", "none", "credential", 4),
    "ConfigInvalid": Rule("no", "no", "none", "caller", 3),
    "LedgerUnusable": Rule("no", "no", "none", "caller", 3),
    "StateUnusable": Rule("no", "no", "none", "caller", 3),
    "NoCapacity": Rule("no", "no", "none", "provider", 6, True),
    "AnswerRejected": Rule("no", "no", "none", "provider", 10),
    "AnswerIncomplete": Rule("no", "no", "none", "provider", 8),
    "OutputFailed": Rule("no", "no", "none", "caller", 1),
    "UsageError": Rule("no", "yes", "none", "request", 2),
}

HINTS: dict[str, str] = {
    "RateLimited": "try again later, or name another target with --fallback",
    "QuotaExhausted": "check the account's plan and billing, or ask another provider with --fallback",
    "Unavailable": "try again later, or name another target with --fallback",
    "ConnectionFailed": "check the address and the network",
    "TimedOut": "allow more under [timeout], or name another target with --fallback",
    "BadResponse": "check the address; if it is right, name another target with --fallback",
    "StreamTruncated": "ask again; --on-break restart does so by itself where text was already shown",
    "InvalidRequest": "change what the provider's message names",
    "Unauthorized": "check the key; `llmctl models show MODEL` says which variable holds it",
    "ModelNotFound": "check the model's name, and the address if you set one",
    "ContextExceeded": "shorten the prompt, or ask a model with a larger window",
    "ContentFiltered": "rephrase the prompt",
    "AnswerIncomplete": "ask again, or ask another model",
}
"""What to do next, where the place that raises the error knows nothing better."""

WIRE_CLASSES: dict[str, str] = {
    "bad_request": "InvalidRequest",
    "context_length": "ContextExceeded",
    "content_filter": "ContentFiltered",
    "auth": "Unauthorized",
    "permission": "Unauthorized",
    "not_found": "ModelNotFound",
    "timeout": "Unavailable",
    "conflict": "InvalidRequest",
    "too_large": "ContextExceeded",
    "rate_limit": "RateLimited",
    "quota": "QuotaExhausted",
    "server_error": "Unavailable",
    "unavailable": "Unavailable",
    "overloaded": "Unavailable",
    "connection": "ConnectionFailed",
    "bad_response": "BadResponse",
    "incomplete": "StreamTruncated",
}
"""The neutral class names of the wire fixtures, and the class of this tree that each becomes."""


class LlmctlError(Exception):
    """The root: `message` says what happened and where, `hint` what to do next. Neither ever holds a secret."""

    provider: str = ""
    model: str = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
        should_retry: bool | None = None,
    ) -> None:
        """`status` is the HTTP status, `retry_after_s` the wait that the provider, or our limits, ask for.

        `should_retry` is the provider's own word (`x-should-retry`), None when it said nothing.
        """
        super().__init__(message)
        self.message = message
        self.hint = hint or HINTS.get(self.kind, "")
        self.status = status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.should_retry = should_retry
        self.partial_text = ""
        self.chain_exit: int | None = None
        self.attempts: tuple[Attempt, ...] = ()

    @property
    def kind(self) -> str:
        """The class name: the word used in the ledger, in JSON and in the matrix."""
        return type(self).__name__

    @property
    def rule(self) -> Rule:
        """This class's row of the matrix."""
        return MATRIX[self.kind]

    @property
    def exit_code(self) -> int:
        """The exit code of a call that ends in this error; `chain_exit` when a whole chain's failures decide it."""
        return self.rule.exit if self.chain_exit is None else self.chain_exit


class ProviderError(LlmctlError):
    """Something a provider, or the way to it, did."""


class RateLimited(ProviderError):
    """429 for throughput: a wait helps, and the provider may have said how long."""


class QuotaExhausted(ProviderError):
    """429 for an empty account, a spend cap, or 402: waiting a minute will not help."""


class Unavailable(ProviderError):
    """The provider is down or overloaded: 5xx, 529, 408, or an overload reported inside a stream."""


class ConnectionFailed(ProviderError):
    """No usable connection: DNS, refused, reset, TLS."""


class TimedOut(ProviderError):
    """One of the clocks ran out: connect, first token, or between tokens."""


class BadResponse(ProviderError):
    """An answer that is not one: not JSON, no choices, an error object under 200, over a size cap, a redirect."""


class StreamTruncated(ProviderError):
    """The stream ended with neither finish reason nor terminator."""


class Unauthorized(ProviderError):
    """401 or 403: the credential was refused."""


class ModelNotFound(ProviderError):
    """The provider does not know the model, or the address."""


class ContextExceeded(ProviderError):
    """The prompt does not fit the model's window."""


class ContentFiltered(ProviderError):
    """The provider's content filter refused the prompt or the answer."""


class InvalidRequest(ProviderError):
    """The provider refuses the request as malformed; asking again changes nothing."""


class BudgetExceeded(LlmctlError):
    """A spending limit forbids the call."""


class DeadlineExceeded(LlmctlError):
    """The total time allowed for the call has passed."""


class Cancelled(LlmctlError):
    """The caller stopped the call."""


class MissingCredential(LlmctlError):
    """No key was found for a provider that needs one."""


class ConfigInvalid(LlmctlError):
    """The configuration cannot be used."""


class LedgerUnusable(LlmctlError):
    """The ledger cannot be read, or cannot be written where it must be."""


class StateUnusable(LlmctlError):
    """The shared state cannot be read or written in time; a call goes on without it."""


class NoCapacity(LlmctlError):
    """No target can start within the wait that was allowed; the message names the earliest instant."""


class AnswerRejected(LlmctlError):
    """The answer does not meet the schema or the check that was asked for."""


class AnswerIncomplete(LlmctlError):
    """The answer began and then ended in neither a stop nor tool calls."""


class OutputFailed(LlmctlError):
    """What was asked for cannot be written to stdout or to a file."""


class UsageError(LlmctlError):
    """What was asked cannot be meant, or cannot be told to one target: another may take it."""


def from_wire(wire_class: str) -> type[ProviderError]:
    """The class for a neutral wire class name; an unknown name is a bug and raises KeyError."""
    return CLASSES[WIRE_CLASSES[wire_class]]


CLASSES: dict[str, type[ProviderError]] = {each.__name__: each for each in ProviderError.__subclasses__()}


def exit_of_chain(primary: LlmctlError, others: Sequence[LlmctlError]) -> int:
    """The exit code when a whole chain failed.

    6 if it failed in several ways of which one may pass later, else the primary's own code.
    """
    kinds = {error.kind for error in (primary, *others)}
    if len(kinds) > 1 and any(error.rule.may_succeed_later for error in (primary, *others)):
        return 6
    return primary.exit_code

"""Faults: what a drill can make a target do, as one table, and the words in which they are written.

`429*1,500*2,ok` is a sequence: its items are played in turn, each `*N` times; one without a number is played once, and
for ever where it is the last. After a last item with a number all is well again. `NAME@X` gives the fault its number:
seconds, events or a probability. How a fault is really made to happen is `run/faults`; here is only what it means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

Number = Literal["", "seconds", "events", "probability"]


class Kind(NamedTuple):
    """One row of the table.

    `becomes`: the class of errors that it must be mapped to, by every wire; "" where an answer survives it. `status`:
    the HTTP status that is answered, None where no answer comes or it has status 200. `number`: what stands after `@`.
    `usual`: how the matrix writes it where its number must be said, else "".
    """

    becomes: str
    words: str
    status: int | None = None
    number: Number = ""
    usual: str = ""


FASTEST = 1000.0
"""The most that a drill's time may hurry: above, a millisecond that a machine is late is a second of the drill."""
OK = "ok"
SMALL_WINDOW = "small-window"
FAULTS: dict[str, Kind] = {
    "429": Kind("RateLimited", "refused for throughput; @SECONDS says when to come back", 429, "seconds"),
    "quota": Kind("QuotaExhausted", "the account is empty", 429),
    "400": Kind("InvalidRequest", "the request is refused", 400),
    "401": Kind("Unauthorized", "the key is refused", 401),
    "403": Kind("Unauthorized", "the key may not do this", 403),
    "404": Kind("ModelNotFound", "the model is unknown", 404),
    "408": Kind("Unavailable", "the provider's own timeout", 408),
    "413": Kind("ContextExceeded", "the request is too large", 413),
    "500": Kind("Unavailable", "the provider fails", 500),
    "502": Kind("Unavailable", "a gateway before the provider fails", 502),
    "503": Kind("Unavailable", "the provider is down; @SECONDS says when to come back", 503, "seconds"),
    "529": Kind("Unavailable", "the provider is overloaded", 529),
    "timeout": Kind("TimedOut", "the request is taken, and nothing ever comes"),
    "slow": Kind("", "nothing comes for so long, then the answer", number="seconds", usual="slow@5"),
    "refused": Kind("ConnectionFailed", "nobody listens at the address"),
    "reset": Kind("ConnectionFailed", "the connection is reset before an answer"),
    "dns": Kind("ConnectionFailed", "the host name has no address"),
    "tls": Kind("ConnectionFailed", "the TLS handshake fails"),
    "cut": Kind("StreamTruncated", "the stream ends after so many events", number="events", usual="cut@5"),
    "stall": Kind("TimedOut", "the stream stops after so many events", number="events", usual="stall@5"),
    "garbage": Kind("BadResponse", "an answer that is not of the protocol"),
    "empty": Kind("BadResponse", "an answer with nothing in it"),
    "badjson": Kind("", "one event of the stream is broken"),
    "nodone": Kind("", "the stream says why it ended, and never that it has"),
    "context": Kind("ContextExceeded", "the prompt does not fit the window", 400),
    "filter": Kind("ContentFiltered", "a content filter refuses", 400),
    "down": Kind("Unavailable", "503 for so long, from its first request on", 503, "seconds", usual="down@30"),
    "flaky": Kind("Unavailable", "503 with this probability", 503, "probability", usual="flaky@0.5"),
    SMALL_WINDOW: Kind("", "its window is declared smaller than any prompt, so that nobody asks it"),
    OK: Kind("", "no fault"),
}
"""Everything that can be injected, by name (the contract's section 12)."""

_PASSING = (OK, "flaky", "down")
_ITEM = re.compile(r"(?P<name>[a-z0-9-]+)(?:@(?P<number>[0-9.]+)(?P<unit>s?))?(?:\*(?P<times>[0-9]+))?")
_MOST = 10_000
_DIGITS = 6


class Fault(NamedTuple):
    """One item of a schedule; `times` None is for ever."""

    name: str
    number: float | None = None
    times: int | None = None

    @property
    def kind(self) -> Kind:
        """Its row of the table."""
        return FAULTS[self.name]

    def __str__(self) -> str:
        number = "" if self.number is None else "@" + f"{self.number:.{_DIGITS}f}".rstrip("0").rstrip(".")
        number += "s" * (self.number is not None and self.kind.number == "seconds")
        return f"{self.name}{number}{'' if self.times is None else f'*{self.times}'}"


class Schedule(NamedTuple):
    """What a target does, request after request."""

    faults: tuple[Fault, ...]

    def at(self, n: int, dice: Callable[[], float], since_s: float = 0.0) -> Fault | None:
        """The fault of request number `n` (from 0), None where it is answered well.

        `since_s` is how long the first request is over, in seconds. Only what is flaky throws the dice.
        """
        for fault in self.faults:
            if fault.times is None or n < fault.times:
                number, name = fault.number or 0.0, fault.name
                is_well = name == OK or (name == "flaky" and dice() >= number) or (name == "down" and since_s >= number)
                return None if is_well else fault
            n -= fault.times
        return None

    @property
    def last(self) -> Fault | None:
        """What it does for ever in the end, None where it comes to answer well."""
        last = self.faults[-1]
        return None if last.times is not None or last.name in _PASSING else last

    @property
    def shrinks_window(self) -> bool:
        """Whether it is no fault of an answer, but a declared window."""
        return self.faults[0].name == SMALL_WINDOW

    def __str__(self) -> str:
        return ",".join(map(str, self.faults))


DOWN = Schedule((Fault("503"),))
"""How a link that is only in the way fails, so that the next one is asked."""


def schedule(text: str) -> Schedule:
    """The schedule that `text` writes. Raises UsageError that says which part is not understood."""
    items = [_fault(item.strip(), text) for item in text.split(",")]
    if len(items) > 1 and any(item.name == SMALL_WINDOW for item in items):
        raise UsageError(f"fault {text!r}: a window does not change from request to request", hint="write it alone")
    timed = [item._replace(times=1) if item.times is None else item for item in items[:-1]]
    return Schedule((*timed, items[-1]))


def injection(text: str) -> tuple[str, Schedule]:
    """Target and schedule of `TARGET=FAULT`. Raises UsageError."""
    target, equals, fault = text.rpartition("=")
    if not equals or not target.strip():
        raise UsageError(f"--inject {text!r} is not TARGET=FAULT", hint="for instance primary=503 or 2=429@2s*1")
    return target.strip(), schedule(fault)


def _fault(item: str, text: str) -> Fault:
    found = _ITEM.fullmatch(item)
    name = found["name"] if found else item.partition("@")[0].partition("*")[0]
    if name not in FAULTS:
        raise UsageError(f"no fault {name!r} in {text!r}", hint=_suggest(name))
    if found is None:
        raise UsageError(f"fault {item!r} is not NAME, NAME@NUMBER or NAME*TIMES", hint="for instance 429@2s*1")
    kind = FAULTS[name]
    if found["number"] is not None and not kind.number:
        raise UsageError(f"fault {item!r}: {name} takes no number", hint=f"write {name}")
    if found["number"] is None and kind.usual:
        raise UsageError(f"fault {item!r}: {name} needs its {kind.number}", hint=f"for instance {kind.usual}")
    times = None if found["times"] is None else int(found["times"])
    if times == 0 or (times or 0) > _MOST or (times is not None and name == SMALL_WINDOW):
        raise UsageError(f"fault {item!r}: it cannot happen {times} times", hint=f"1 to {_MOST}, or without a number")
    return Fault(name, _number(found["number"], found["unit"], kind, item), times)


def _number(digits: str | None, unit: str, kind: Kind, item: str) -> float | None:
    if digits is None:
        return None
    try:
        number = round(float(digits), _DIGITS)
    except ValueError:
        number = float("nan")
    good = {
        "seconds": 0 <= number <= 86_400,
        "events": 0 <= number <= _MOST and number == int(number),
        "probability": 0 < number <= 1,
    }
    if not good[kind.number] or (unit and kind.number != "seconds"):
        raise UsageError(
            f"fault {item!r}: that is no number of {kind.number}", hint=f"for instance {kind.usual or item}"
        )
    return number


def _suggest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, FAULTS, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(FAULTS)}"

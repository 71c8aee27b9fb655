"""Documents of another shape: never a failure of a step, and never one of those that this version writes."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from llmctl.core.errors import RateLimited, Unauthorized, Unavailable
from llmctl.routing.book import Book, Size
from llmctl.routing.call import Call, Send
from llmctl.routing.health import clear
from llmctl.routing.policy import Policy
from llmctl.routing.settle import Outcome
from llmctl.routing.shape import is_whole
from tests.routing.town import T0, Metered, Town, deployment, keys_of, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = deployment("a", rpm=50, tpm=900, shape="window"), deployment("b", rpm=50, max_parallel=2)
PLAN, KEYS = plan_of(A, B), keys_of(A, B)
JUNK = (None, "x", "1", True, -1, 0, 1.5, 1e17, 1e18, 1e300, float("inf"), 10**400, [], {}, [1], [[1]], {"a": [1]})


def lived(seed: int = 1) -> dict[str, Any]:
    """The documents that a few calls of every end leave, some of them still under way."""
    town = Town(PLAN, {"a": Metered("window", rpm=50, tpm=900), "b": Metered("bucket", rpm=5, tpm=900)}, seed)
    town.fate = lambda rng: rng.choice(["ends", "ends", "is cancelled", "dies"])
    for n in range(30):
        town.ask(T0 + n / 3, 20, 40, output=10)
    town.run(until=T0 + 30)
    for n, error in enumerate(
        [Unavailable("no"), Unavailable("no"), Unavailable("no"), RateLimited("no"), Unauthorized("no")]
    ):
        book = Book(town.documents, KEYS, "group", f"bad {n}", T0 + 31 + n, Size(5))
        book.settle(B, Outcome(T0 + 30 + n, T0 + 31 + n, error=error), town.rng.random)
    documents: dict[str, Any] = json.loads(json.dumps(town.documents))
    return documents


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in rows:
        yield from places(each, (*at, key))


def damaged(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The document with something else, or nothing, in one place, whatever its depth."""
    document = deepcopy(document)
    *way, last = rng.choice(list(places(document)))
    parent: Any = document
    for key in way:
        parent = parent[key]
    if rng.random() < 0.3:
        del parent[last]
    else:
        parent[last] = rng.choice(JUNK)
    return document


def use(documents: dict[str, Any], now: float, rng: random.Random) -> None:
    """All that is ever done with documents."""
    call = Call(PLAN, Policy(strategy=rng.choice(["adaptive", "round-robin"])), started=now, dice=rng.random)
    book = Book(documents, KEYS, "group", "me", now, Size(5))
    book.count(PLAN)
    decision = call.next(book.snapshot(PLAN), now)
    if isinstance(decision, Send):
        book.reserve(decision.deployment)
        book.retried(decision.deployment)
        book.renew(decision.deployment)
    for target, error in ((A, None), (B, RateLimited("no", status=429)), (A, Unavailable("no"))):
        book.hold(target, now + 5, now)
        book.settle(
            target, Outcome(now, now + 1, heard=now, error=error, first_token_s=0.5, output_tokens=3), rng.random
        )
    json.dumps(documents, allow_nan=False)
    for document in documents.values():
        clear(document, now)


@pytest.mark.parametrize("seed", range(5))
def test_every_document_that_is_written_is_whole(seed: int) -> None:
    documents = lived(seed)
    assert all(is_whole(document) for document in documents.values())
    assert {name for document in documents.values() for name in document} > {"uses", "open", "said", "phase", "demand"}


@pytest.mark.parametrize("part", range(4))
def test_a_step_on_documents_that_are_whole_never_fails(part: int) -> None:
    documents, rng, whole = lived(), random.Random(part), 0
    for _ in range(300):
        name = rng.choice(list(documents))
        document = damaged(documents[name], rng)
        whole += is_whole(document)
        found = deepcopy(documents) | {name: document}
        if not is_whole(document):
            del found[name]
        use(found, T0 + rng.choice([-5000, 36, 40, 500]), rng)
    assert 20 < whole < 200


@pytest.mark.parametrize(
    "document",
    [
        {"uses": [[1.0, 1.0, 1, 5, 5]]},
        {"uses": {}},
        {"open": {"x": [1.0] * 8}},
        {"said": {"rpm": [None, 1, 1, 1]}},
        {"said": {"rpm": [1.0, [], 1, 1]}},
        {"speed": [0.0, 0.02, 1.0, 1.0]},
        {"demand": [1.0, {"x": 1.0}]},
        {"turn": 1.5},
        {"fails": True},
        {"at": float("inf")},
        {"cool": "soon"},
        {"why": 1},
    ],
    ids=str,
)
def test_a_document_of_another_shape_is_not_whole(document: dict[str, Any]) -> None:
    assert not is_whole(document)


def test_what_is_not_known_does_not_matter() -> None:
    assert is_whole({"at": 1.0, "said": {"rpm": [1.0, None, None, None]}, "of a later version": [None]})

"""Hooks are told in order, and can neither fail a call nor each other."""

from __future__ import annotations

from llmctl.run.observe import Hooks, Notice, Waiting

NOTICE = Waiting(1.0, "why")


def test_every_hook_is_told_even_after_one_that_raised() -> None:
    heard: list[tuple[str, Notice]] = []

    def broken(_notice: Notice) -> None:
        raise RuntimeError("mine")

    hooks = Hooks([lambda n: heard.append(("a", n)), broken, lambda n: heard.append(("b", n))])
    hooks.tell(NOTICE)
    hooks.tell(NOTICE)
    assert heard == [("a", NOTICE), ("b", NOTICE)] * 2
    assert hooks.failures == 2


def test_no_hook_is_no_trouble() -> None:
    hooks = Hooks()
    hooks.tell(NOTICE)
    assert hooks.failures == 0

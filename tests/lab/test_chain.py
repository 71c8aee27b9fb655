"""A chain as it is configured: whom a target means, where each class of errors leads, and what makes it weak."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.build import build
from llmctl.core.errors import CLASSES, MATRIX, MissingCredential, UsageError
from llmctl.core.snapshot import Snapshot
from llmctl.lab.chain import Chain, End, read_chain, weak_points, with_chain
from llmctl.routing.call import Call, Done, Ended, Fail, Failed, Send, Wait
from llmctl.routing.plan import credential_key, make_plan
from llmctl.routing.policy import Policy

if TYPE_CHECKING:
    from llmctl.core.catalog import Catalog, Deployment
    from llmctl.core.errors import LlmctlError

PROVIDERS: dict[str, dict[str, Any]] = {"p": {"api_base": "https://p.example/v1", "key": ["P_KEY"], "infer": ["gpt-"]}}


def catalog(*links: str, **groups: Any) -> Catalog:
    """A chain `g0`, `g1`, ...: "a b:k c#9 d!" is a link of four; b with the key k, c with a window of 9, d unable.

    A key is else one's own. `groups` are changes of a group's row.
    """
    models: dict[str, Any] = {}
    for n, link in enumerate(links):
        models[f"g{n}"] = {"deployments": [_row(word) for word in link.split()]} | groups.get(f"g{n}", {})
    models["g0"].setdefault("fallbacks", [f"g{n}" for n in range(1, len(links))])
    return build(PROVIDERS, {}, {"models": models})


def _row(word: str) -> dict[str, Any]:
    rest, _, window = word.rstrip("!").partition("#")
    name, _, key = rest.partition(":")
    row = {"id": name, "model": f"p/{name}{'!' * word.endswith('!')}", "api_key": f"env:{key or name}"}
    return row | ({"context_window": int(window)} if window else {})


def unable(deployment: Deployment) -> LlmctlError | None:
    return MissingCredential(f"no key for {deployment.id}") if deployment.model.endswith("!") else None


def chain(*links: str, **groups: Any) -> Chain:
    return read_chain(catalog(*links, **groups), "g0", unable)


def led(found: Chain, kind: str) -> list[int | str]:
    """Where each link leads with that class: a link's number, or the exit code."""
    ways = [found.next_link(n, kind) for n in range(1, found.length + 1) if found.is_able(n)]
    return [way if isinstance(way, int) else f"exit {way.exit}" for way in ways]


# ---------------------------------------------------------------- who is in it


def test_the_members_keep_their_links_also_where_nobody_of_one_can_be_asked():
    found = chain("a!", "b c!", "d")
    assert [(m.link, m.deployment.id, m.obstacle is None) for m in found.members] == [
        (1, "a", False), (2, "b", True), (2, "c", False), (3, "d", True),
    ]  # fmt: skip
    assert [group.name for group in found.groups] == ["g0", "g1", "g2"]
    assert [[each.id for each in link.deployments] for link in found.plan.links] == [[], ["b"], ["d"]]
    assert (found.length, [m.deployment.id for m in found.able()]) == (3, ["b", "d"])
    assert [found.is_able(n) for n in (1, 2, 3)] == [False, True, True]
    assert found.served(2) == End(frozenset({"b"}))


def test_bare_models_are_links_and_given_fallbacks_replace_the_chain():
    found = read_chain(catalog("a", "b"), "g0", unable, ["gpt-x", "p/y"])
    assert [(m.group.name, m.deployment.served_by) for m in found.members] == [
        ("g0", "p/a"), ("p/gpt-x", "p/gpt-x"), ("p/y", "p/y"),
    ]  # fmt: skip
    assert read_chain(catalog("a", "b"), "g0", unable, []).length == 1
    for name, fallbacks, said in (("nope", None, "unknown model"), ("g0", ["g0"], "twice")):
        with pytest.raises(UsageError, match=said):
            read_chain(catalog("a", "b"), name, unable, fallbacks)


@pytest.mark.parametrize(
    ("word", "ids"),
    [("primary", "ab"), ("1", "ab"), ("2", "cd"), ("3", "5"), ("b", "b"), ("5", "5"), ("*", "abcd5")],
)
def test_a_target_is_primary_a_links_number_an_id_or_everybody(word, ids):
    assert "".join(m.deployment.id for m in chain("a b", "c d!", "5").targets(word)) == ids


@pytest.mark.parametrize("word", ["0", "4", "-1", "²", "٣", "g1", "p/c", "A", "x" * 99, ""])
def test_any_other_target_is_refused_with_those_there_are(word):
    with pytest.raises(UsageError) as caught:
        chain("a b", "c d", "e").targets(word)
    assert len(caught.value.message) < 130
    assert caught.value.hint == "one of primary, 1, 2, 3, a, b, c, d, e, or *"


def test_an_assertion_may_also_name_a_model_or_a_group():
    found = chain("a b", "c d", "e")
    named = {word: "".join(m.deployment.id for m in found.named(word)) for word in ("p/c", "g1", "2", "e", "primary")}
    assert named == {"p/c": "c", "g1": "cd", "2": "cd", "e": "e", "primary": "ab"}
    with pytest.raises(UsageError, match="no target 'p/x'"):
        found.named("p/x")


# ---------------------------------------------------------------- where an error leads


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_leads_where_its_row_of_the_table_says(kind):
    rule = MATRIX[kind]
    going = rule.onward in ("yes", "other_credential", "fitting_window")
    assert led(chain("a", "b", "c"), kind) == ([2, 3] if going else [f"exit {rule.exit}", "exit 6"]) + ["exit 6"]
    assert led(chain("a"), kind) == [f"exit {rule.exit}"]


@pytest.mark.parametrize("kind", ["Unauthorized", "QuotaExhausted"])
def test_a_refused_credential_leads_to_the_next_other_one(kind):
    assert led(chain("a:k b:l", "c:k d:l", "e:k f"), kind) == [3, 3, "exit 6"]
    assert led(chain("a:k", "b:k"), kind) == [f"exit {MATRIX[kind].exit}", "exit 6"]
    assert chain("a:k", "b:k c").end_after(_of(chain("a:k"), "a"), kind) == End(frozenset({"c"}))
    # one of the link that is never asked rules nobody out
    assert led(chain("a b:k!", "c:k"), kind) == [2, "exit 6"]


def test_a_prompt_that_is_too_long_leads_to_a_larger_or_unknown_window():
    assert led(chain("a#100", "b#50", "c#100", "d#200"), "ContextExceeded") == [4, 3, 4, "exit 6"]
    assert led(chain("a#100", "b"), "ContextExceeded") == [2, "exit 6"]
    assert led(chain("a#100", "b#100"), "ContextExceeded") == ["exit 5", "exit 6"]


def test_a_content_filter_leads_on_where_the_group_says_so():
    found = chain("a", "b", "c", g0={"on_content_filter": "fallback"})
    assert led(found, "ContentFiltered") == [2, "exit 6", "exit 6"]


def test_who_cannot_be_asked_is_passed_over_and_changes_no_exit_code():
    found = chain("a!", "b", "c!", "d")
    assert led(found, "TimedOut") == [4, "exit 6"]
    assert led(chain("a!", "b"), "TimedOut") == ["exit 7"]


def test_a_peer_that_has_not_failed_answers_for_its_link():
    found = chain("a b c!", "d")
    assert found.end_after(_of(found, "a"), "Unavailable") == End(frozenset({"b"}))
    assert found.end_after(_of(found, "ab"), "Unavailable") == End(frozenset({"d"}))


def test_where_the_tries_may_run_out_before_a_peer_is_asked_both_ends_are_expected():
    found = chain("a", "b:k c:l", "d:l")
    assert found.end_after(_of(found, "bc"), "Unauthorized") == End(frozenset({"d"}), "Unauthorized", 6)
    assert led(found, "Unauthorized") == [2, "exit 6", "exit 6"]


def _of(found: Chain, ids: str) -> list[Deployment]:
    return [m.deployment for m in found.members if m.deployment.id in ids]


LINKS = st.lists(
    st.lists(
        st.tuples(st.sampled_from("klm"), st.sampled_from(["", "#5", "#9"]), st.booleans()), min_size=1, max_size=2
    ),
    min_size=1,
    max_size=4,
)


@given(
    links=LINKS,
    n=st.integers(1, 4),
    kind=st.sampled_from(list(CLASSES)),
    filtered=st.sampled_from(["fail", "fallback"]),
    strategy=st.sampled_from(["ordered", "simple-shuffle"]),
    dice=st.floats(0, 1, exclude_max=True),
    retries=st.integers(0, 2),
)
def test_the_call_machine_ends_where_it_is_expected_to(links, n, kind, filtered, strategy, dice, retries):
    names = iter("abcdefgh")
    words = [" ".join(f"{next(names)}:{k}{w}{'!' * out}" for k, w, out in link) for link in links]
    how = {f"g{i}": {"on_content_filter": filtered, "strategy": strategy} for i in range(len(words))}
    found = chain(*words, **how)
    n = min(n, found.length)
    if not found.is_able(n):
        return
    failed = [m.deployment for m in found.of_link(n)]
    failing = {m.deployment.id: "Unavailable" for m in found.members if m.link < n} | {d.id: kind for d in failed}
    plan = make_plan(catalog(*words, **how), "g0", fallbacks=None, obstacle=unable)
    # with as many tries as it takes, exactly; with the usual ones at least among what is expected
    end, exact = found.end_after(failed, kind), found.next_link(n, kind)
    for tries in (100, 6):
        last = _lived(Call(plan, Policy(retries=retries, tries=tries), started=0.0, dice=lambda: dice), failing)
        if isinstance(last, Done):
            assert last.deployment.id in end.served
            assert tries == 6 or found.link_of(last.deployment) == exact
        else:
            assert (end.error, end.exit) == (kind, last.exit)
            assert tries == 6 or not isinstance(exact, int)


def _lived(call: Call, failing: dict[str, str]) -> Done | Fail:
    """The end of a call in which those fail for ever, and all others answer."""
    now = 0.0
    for _ in range(200):
        match call.next(Snapshot(), now):
            case Send(target):
                kind = failing.get(target.id)
                call.heard(Failed(CLASSES[kind](""), now) if kind else Ended())
            case Wait(until=until):
                now = until
            case end:
                return end
    raise AssertionError("the call does not end")


# ---------------------------------------------------------------- the configuration of a drill


def test_a_chain_in_a_changed_catalog_resolves_to_the_changed_groups():
    before = catalog("a b", "c", g0={"fallbacks": ["gpt-x", "g1"], "temperature": 0.5})
    found = read_chain(before, "g0", unable)
    after = with_chain(before, found, lambda group: _renamed(group, "+"))
    again = read_chain(after, "g0", unable)
    assert [m.deployment.id for m in again.members] == ["a+", "b+", "p/gpt-x+", "c+"]
    assert again.members[2].deployment.params.temperature == 0.5
    assert [m.deployment.id for m in read_chain(before, "g0", unable).members] == ["a", "b", "p/gpt-x", "c"]


def test_a_bare_model_with_fallbacks_of_the_command_line_becomes_a_group_with_that_chain():
    before = catalog("a", "b")
    found = read_chain(before, "gpt-x", unable, ["g1", "p/y"])
    after = read_chain(with_chain(before, found, lambda group: group), "gpt-x", unable)
    assert [m.deployment.id for m in after.members] == ["p/gpt-x", "b", "p/y"]


def _renamed(group: Any, mark: str) -> Any:
    return replace(group, deployments=tuple(replace(each, id=each.id + mark) for each in group.deployments))


# ---------------------------------------------------------------- what makes it weak


NOTHING = ": there is nothing to fall back to"
TAKEN = " share one credential: a refused key or an empty account takes"
WINDOW = " of a: a prompt that fits the first may not fit it"


@pytest.mark.parametrize(
    ("links", "said"),
    [
        (["a", "b"], []),
        (["a b"], []),
        (["a"], [f"only a can be asked{NOTHING}"]),
        (["a!", "b", "c!"], [f"only b can be asked{NOTHING}"]),
        (["a!", "b!"], [f"nobody of this chain can be asked{NOTHING}"]),
        (["a:k", "b", "c:k"], [f"a (link 1) and c (link 3){TAKEN} both down"]),
        (["a:k b:k", "c"], []),
        (["a:k", "b:k", "c:k"], [f"a (link 1) and b (link 2) and c (link 3){TAKEN} all of them down"]),
        (["a:k", "b", "c:k!"], []),
        (
            ["a#9000", "b#800 c#8000", "d#9000"],
            [f"c (link 2) has a window of 8,000 tokens, smaller than the 9,000{WINDOW}"],
        ),
        (["a#9000!", "b#800", "c#801"], []),
        (["a#9000", "b#800 c"], []),
        (["a", "b#800"], []),
        (["a:k#9", "b:k#8"], ["a (link 1) and b (link 2) share", "b (link 2) has a window of 8 "]),
    ],
    ids=lambda value: " | ".join(value)[:40],
)
def test_what_keeps_fallbacks_from_helping_is_said(links, said):
    found = weak_points(chain(*links), credential_key)
    assert [line[: len(start)] for line, start in zip(found, said, strict=True)] == said


def test_where_no_credential_is_sent_none_is_shared():
    assert weak_points(chain("a:k", "b:k"), lambda _: "") == []

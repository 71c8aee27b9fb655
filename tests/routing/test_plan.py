"""What one call may use, and what is left out of it."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.core.build import build
from llmctl.core.catalog import MAX_LINKS, Catalog, Deployment
from llmctl.core.errors import ContextExceeded, LlmctlError, MissingCredential, UsageError
from llmctl.core.support import too_long
from llmctl.routing.plan import make_plan

PROVIDERS: dict[str, dict[str, Any]] = {
    "groq": {"api_base": "https://api.groq.com/openai/v1", "key": ["GROQ_API_KEY"]},
    "openai": {"api_base": "https://api.openai.com/v1", "key": ["OPENAI_API_KEY"], "infer": ["gpt-"]},
}
MODELS: dict[str, Any] = {
    "a": {"model": "groq/a", "fallbacks": ["b", "gpt-4o"]},
    "b": {"deployments": [{"id": "b1", "model": "groq/b"}, {"id": "b2", "model": "gpt-b"}], "fallbacks": ["c"]},
    "c": {"model": "groq/c"},
    "twin": {"id": "b1", "model": "gpt-t"},
    **{f"l{n}": {"model": f"groq/{n}"} for n in range(MAX_LINKS + 1)},
}


def catalog() -> Catalog:
    return build(PROVIDERS, {}, {"models": MODELS})


def nothing(_: Deployment) -> None:
    return None


def no_groq(deployment: Deployment) -> LlmctlError | None:
    return MissingCredential(f"no key for {deployment.id}") if deployment.provider.name == "groq" else None


def ids(name: str, **how: Any) -> list[list[str]]:
    plan = make_plan(catalog(), name, **{"fallbacks": None, "obstacle": nothing} | how)
    return [[deployment.id for deployment in link.deployments] for link in plan.links]


def test_a_plan_is_the_group_and_its_chain_in_order_and_a_fallbacks_own_chain_is_not_followed():
    assert ids("a") == [["a-1"], ["b1", "b2"], ["openai/gpt-4o"]]


def test_given_fallbacks_replace_the_chain_and_an_empty_list_removes_it():
    assert ids("a", fallbacks=["c"]) == [["a-1"], ["c-1"]]
    assert ids("a", fallbacks=[]) == [["a-1"]]


def test_what_cannot_be_asked_is_left_out_with_its_reason():
    plan = make_plan(catalog(), "a", fallbacks=None, obstacle=no_groq)
    assert [[d.id for d in link.deployments] for link in plan.links] == [["b2"], ["openai/gpt-4o"]]
    assert [(out.deployment.id, out.reason.message) for out in plan.left_out] == [
        ("a-1", "no key for a-1"),
        ("b1", "no key for b1"),
    ]
    assert plan.name == "a"


def test_when_nothing_can_be_asked_the_primarys_obstacle_is_raised():
    with pytest.raises(MissingCredential, match="a-1"):
        make_plan(catalog(), "a", fallbacks=["c"], obstacle=no_groq)


def test_a_link_knows_its_place():
    plan = make_plan(catalog(), "a", fallbacks=None, obstacle=nothing)
    assert [plan.link_of(d) for link in plan.links for d in link.deployments] == [0, 1, 1, 2]


@pytest.mark.parametrize("fallbacks", [["a"], ["b", "b"], ["gpt-4o", "openai/gpt-4o"]])
def test_a_chain_that_names_a_link_twice_is_refused(fallbacks: list[str]):
    with pytest.raises(UsageError, match="twice"):
        ids("a", fallbacks=fallbacks)


def test_a_chain_in_which_two_deployments_share_an_id_is_refused():
    with pytest.raises(UsageError, match="'b1'"):
        ids("b", fallbacks=["twin"])


def test_a_chain_has_at_most_six_links():
    longest = [f"l{n}" for n in range(MAX_LINKS - 1)]
    assert len(ids("a", fallbacks=longest)) == MAX_LINKS
    with pytest.raises(UsageError, match="7 links"):
        ids("a", fallbacks=[*longest, "c"])


def test_an_unknown_name_is_a_usage_error_wherever_it_stands():
    with pytest.raises(UsageError, match="nope"):
        ids("nope")
    with pytest.raises(UsageError, match="nope"):
        ids("a", fallbacks=["nope"])


def test_a_bare_model_in_the_chain_is_asked_with_the_groups_parameters_and_a_group_with_its_own():
    models = {"a": {"model": "groq/a", "temperature": 0.7, "fallbacks": ["gpt-4o", "b"]}, "b": {"model": "groq/b"}}
    plan = make_plan(build(PROVIDERS, {}, {"models": models}), "a", fallbacks=None, obstacle=nothing)
    assert [link.deployments[0].params.temperature for link in plan.links] == [0.7, 0.7, None]


def test_the_embedded_model_is_no_fallback_unless_its_group_says_so():
    providers = {**PROVIDERS, "local": {"api_base": "local:", "key": []}}
    toy = {"model": "local/m", "allow_toy": True}
    built = build(providers, {}, {"models": {**MODELS, "toy": toy, "small": {"model": "local/m"}}})
    with pytest.raises(UsageError, match="embedded"):
        make_plan(built, "a", fallbacks=["small"], obstacle=nothing)
    assert len(make_plan(built, "a", fallbacks=["toy"], obstacle=nothing).links) == 2
    assert len(make_plan(built, "small", fallbacks=["a"], obstacle=nothing).links) == 2


def test_a_prompt_too_long_for_every_window_is_refused_with_the_largest_of_them():
    windows = {"a-1": 10, "b1": 30, "b2": 20}
    models = {
        "a": {"model": "groq/a", "context_window": 10, "fallbacks": ["b"]},
        "b": {"deployments": [{"id": n, "model": f"groq/{n}", "context_window": windows[n]} for n in ("b1", "b2")]},
    }
    made = build(PROVIDERS, {}, {"models": models})
    with pytest.raises(ContextExceeded) as raised:
        make_plan(made, "a", fallbacks=None, obstacle=lambda deployment: too_long(40, deployment))
    assert raised.value.message == "groq/b1: its window of 30 tokens is too small for about 40"
    assert raised.value.hint.startswith("it is the largest of the chain: ")


def test_a_window_is_believed_to_be_too_small_only_when_the_estimate_is_well_above_it():
    (deployment,) = (
        build(PROVIDERS, {}, {"models": {"a": {"model": "groq/a", "context_window": 100}}}).groups["a"].deployments
    )
    assert too_long(109, deployment) is None
    assert too_long(111, deployment) is not None

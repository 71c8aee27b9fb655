"""What each provider supports: the protocol's own, then what its row says; what nobody wrote down is not known."""

from __future__ import annotations

from typing import Any

import pytest

from llmctl.config.load import packaged
from llmctl.core.build import provider
from llmctl.core.catalog import Deployment, Provider
from llmctl.core.support import FEATURES, lacking, supports
from llmctl.core.types import Document, Image, Message, Request, Text, Tool

TABLE = {name: provider(name, row) for name, row in packaged()["providers"].items()}


@pytest.mark.parametrize("name", TABLE)
def test_every_provider_has_every_feature_in_words_that_are_known(name: str):
    found = supports(TABLE[name])
    assert tuple(found) == FEATURES
    assert found["text"] is found["stream"] is True
    assert found.pop("schema") in ("native", "emulated", False)
    assert found.pop("prompt_cache") in ("automatic", "marker", False, None)
    assert set(found.values()) <= {True, False, None}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai", {"schema": "native", "documents": True, "embeddings": True, "prompt_cache": "automatic"}),
        ("azure", {"images": True, "documents": False, "embeddings": True}),
        ("anthropic", {"embeddings": False, "documents": True, "reasoning": True}),
        ("gemini", {"embeddings": True, "images": True}),
        ("bedrock", {"embeddings": True}),
        ("deepseek", {"schema": "emulated", "embeddings": False, "images": False, "reasoning": True}),
        ("mistral", {"documents": True, "embeddings": True, "prompt_cache": None}),
        ("openrouter", {"prompt_cache": "marker"}),
        ("groq", {"embeddings": None, "tools": True}),
        ("jan", {"embeddings": None, "images": None, "reasoning": None, "prompt_cache": None}),
        ("local", {"tools": False, "embeddings": False, "images": False}),
    ],
)
def test_well_known_providers_are_told_truly(name: str, expected: dict[str, Any]):
    assert supports(TABLE[name]).items() >= expected.items()


def test_a_users_own_provider_is_its_protocol_and_what_its_dialect_says():
    own = Provider("corp", dialect={"has": ["images"], "lacks": ["tools"], "embeddings": True, "json_schema": False})
    assert supports(own) == {
        "text": True, "stream": True, "tools": False, "schema": "emulated", "images": True, "documents": None,
        "embeddings": True, "reasoning": None, "prompt_cache": None,
    }  # fmt: skip
    assert supports(Provider("corp", dialect={"json_schema": ["old-"]}))["schema"] == "native"
    assert supports(Provider("corp", protocol="smoke-signals"))["text"] is None


def test_the_answer_is_the_callers_to_change():
    for name in ("openai", "local"):
        supports(TABLE[name])["text"] = False
        assert supports(TABLE[name])["text"] is True


def test_a_deployment_supports_no_more_than_its_capabilities():
    whole, listed = supports(TABLE["anthropic"]), supports(TABLE["anthropic"], ("text", "images", "embeddings"))
    assert {name for name in FEATURES if whole[name] != listed[name]} == {"tools", "schema", "documents", "reasoning"}
    assert (listed["schema"], listed["tools"], listed["embeddings"]) == ("emulated", False, False)
    assert supports(TABLE["anthropic"], ("schema",))["schema"] == "native"


@pytest.mark.parametrize(
    ("provider", "capabilities", "request_", "lacks"),
    [
        ("deepseek", (), Request((Message("user", (Image(url="https://x/y.png"),)),)), "takes no images"),
        ("azure", (), Request((Message("user", (Document("application/pdf", "QQ=="),)),)), "takes no documents"),
        ("gemini", ("images",), Request((), tools=(Tool("f"),)), "takes no tools"),
        ("gemini", ("tools",), Request((Message("user", (Image(), Document("", ""))),)), "images and no documents"),
        ("gemini", (), Request((Message("user", (Image(),)),), tools=(Tool("f"),)), ""),
        ("jan", (), Request((Message("user", (Image(),)),)), ""),
        ("local", (), Request((Message("user", (Text("hi"),)),)), ""),
    ],
)
def test_a_deployment_known_to_lack_what_a_request_holds_cannot_take_it(provider, capabilities, request_, lacks):
    error = lacking(request_, Deployment("d", TABLE[provider], "m", capabilities=capabilities))
    assert (lacks in error.message and error.exit_code == 5) if lacks else error is None

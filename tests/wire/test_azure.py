"""Azure OpenAI: where each form of its address goes, under which version, with which header."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmctl.core.catalog import Deployment
from llmctl.core.redact import Secret
from llmctl.core.types import Params, Request
from llmctl.wire.azure import encode, listing
from llmctl.wire.base import Endpoint, load
from tests.wire.fixtures import ASKED, providers

BASE = "https://res.openai.azure.com"
V1 = f"{BASE}/openai/v1"


def deployment(model: str = "mine", **more: Any) -> Deployment:
    return Deployment("d", providers()["azure"], model, **more)


def endpoint(base: str = BASE, key: str = "k", **more: Any) -> Endpoint:
    return Endpoint(base, Secret(key), **more)


def url(base: str, version: str = "", model: str = "mine") -> str:
    return encode(Request(ASKED), deployment(model), endpoint(base, api_version=version)).http.url


@pytest.mark.parametrize("base", [BASE, f"{BASE}/", f"{BASE}/openai", f"{BASE}/openai/"])
def test_a_resource_has_the_deployment_in_the_path_and_the_version_in_the_query(base: str):
    assert url(base) == f"{BASE}/openai/deployments/mine/chat/completions?api-version=2024-10-21"
    assert url(base, "2025-04-01-preview").endswith("?api-version=2025-04-01-preview")


@pytest.mark.parametrize(
    ("model", "path"),
    [("gpt 4o", "gpt%204o"), ("a/b", "a%2Fb"), ("a?b#c", "a%3Fb%23c"), ("caf\u00e9%", "caf%C3%A9%25")],
)
def test_a_deployments_odd_name_stays_one_segment(model: str, path: str):
    assert url(BASE, model=model).startswith(f"{BASE}/openai/deployments/{path}/chat/completions?")


def test_a_version_cannot_add_to_the_query():
    assert url(BASE, "1&x=2#").endswith("?api-version=1%26x%3D2%23")


@pytest.mark.parametrize("base", [V1, f"{V1}/", "http://127.0.0.1:1/openai/v1"])
def test_the_v1_form_takes_the_model_in_the_body_and_only_its_own_versions(base: str):
    assert url(base, "2024-10-21") == f"{base.rstrip('/')}/chat/completions"
    assert url(base, "preview").endswith("/chat/completions?api-version=preview")
    assert json.loads(encode(Request(ASKED), deployment(), endpoint(base)).http.body)["model"] == "mine"


@pytest.mark.parametrize(
    ("how", "header"),
    [
        ({}, {"api-key": "k"}),
        ({"bearer": True}, {"authorization": "Bearer k"}),
        ({"base": V1}, {"authorization": "Bearer k"}),
        ({"base": V1, "bearer": True}, {"authorization": "Bearer k"}),
        ({"key": ""}, {}),
        ({"headers": {"api-key": "mine", "x-user": "u"}}, {"api-key": "mine", "x-user": "u"}),
    ],
)
def test_a_key_goes_into_its_own_header_and_a_token_into_authorization(how: dict[str, Any], header: dict[str, str]):
    for http in (encode(Request(ASKED), deployment(), endpoint(**how)).http, listing(deployment(), endpoint(**how))):
        credentials = {
            name: http.headers[name] for name in http.headers.keys() & {"api-key", "authorization", "x-user"}
        }
        assert credentials == header


def test_models_are_listed_where_each_form_has_them():
    assert listing(deployment(), endpoint()).url == f"{BASE}/openai/models?api-version=2024-10-21"
    assert listing(deployment(), endpoint(V1)).url == f"{V1}/models"


@pytest.mark.parametrize("base", [BASE, V1])
def test_texts_are_embedded_at_the_same_deployment(base: str):
    http = encode(Request((), inputs=("a", "b"), dimensions=3), deployment(), endpoint(base)).http
    assert "/embeddings" in http.url
    assert ("/deployments/mine/" in http.url) == (base == BASE)
    sent = json.loads(http.body)
    assert sent == {"model": "mine", "input": ["a", "b"], "dimensions": 3, "encoding_format": "base64"}


def test_what_a_deployment_is_decides_what_it_refuses_not_its_name():
    request = Request(ASKED, Params(temperature=0.5))
    assert encode(request, deployment("o3"), endpoint()).dropped == ("temperature",)
    assert encode(request, deployment("mine", base_model="o3-mini"), endpoint()).dropped == ("temperature",)
    assert encode(request, deployment("o3", base_model="gpt-4o"), endpoint()).dropped == ()


def test_the_protocol_is_in_the_table_of_wires():
    assert load("azure").encode is encode

"""What is sent to Gemini: where the fixtures of its SDK are silent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.catalog import Deployment, Provider
from llmctl.core.redact import Secret
from llmctl.core.types import (
    Document,
    Fold,
    Image,
    Message,
    Params,
    Request,
    ResponseFormat,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from llmctl.wire.base import Endpoint, HttpRequest
from llmctl.wire.gemini import counting, encode, listing
from llmctl.wire.gemini_reading import decoder
from tests.wire.fixtures import ASKED

PROVIDER = Provider("gemini", protocol="gemini")
AT = Endpoint("https://host.example", Secret("k" * 20))
TOOL = Tool("f", "d", {"type": "object"})
CALL = ToolCall("c1", "f", '{"a": 1}')
TOLD = {"includeThoughts": True}


def at(model: str = "gemini-2.5-flash", base_model: str = "") -> Deployment:
    return Deployment("d", PROVIDER, model, base_model=base_model)


def body(http: HttpRequest) -> dict[str, Any]:
    return dict(json.loads(http.body))


def sent(request: Request, model: str = "gemini-2.5-flash") -> dict[str, Any]:
    return body(encode(request, at(model), AT).http)


def turns(*messages: Message, model: str = "gemini-2.5-flash") -> list[Any]:
    return list(sent(Request(messages), model)["contents"])


def result(text: str, **more: Any) -> Any:
    answer = Message("tool", (Text(text),), tool_call_id="c1", **more)
    return turns(Message("assistant", (), (CALL,)), answer)[1]["parts"][0]["functionResponse"]


# --- where it goes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "version", "path"),
    [
        ("https://h", "", "https://h/v1"),
        ("https://h/", "v1beta", "https://h/v1beta"),
        ("https://h/v1beta", "", "https://h/v1beta"),
        ("https://h/v1/", "v1beta", "https://h/v1"),
        ("https://h/gate/gemini", "v1alpha", "https://h/gate/gemini/v1alpha"),
        ("https://h", "v1/../x", "https://h/v1%2F..%2Fx"),
    ],
)
def test_the_version_is_the_addresss_own_or_the_configured_one_or_v1(base: str, version: str, path: str):
    endpoint = Endpoint(base, Secret(""), api_version=version)
    assert (
        encode(Request(ASKED, stream=False), at(), endpoint).http.url
        == f"{path}/models/gemini-2.5-flash:generateContent"
    )
    assert listing(at(), endpoint).url == f"{path}/models"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/x", "models/x"), ("tunedModels/my-x", "tunedModels/my-x"), ("x y?z#", "models/x%20y%3Fz%23"),
        ("a/b", "models/a/b"),
    ],
)  # fmt: skip
def test_a_models_name_may_say_its_collection_and_is_escaped(model: str, path: str):
    assert (
        encode(Request(ASKED), at(model), AT).http.url
        == f"https://host.example/v1/{path}:streamGenerateContent?alt=sse"
    )


def test_the_key_has_a_header_of_its_own_unless_it_is_a_token_or_there_is_none():
    for endpoint, name, value in (
        (AT, "x-goog-api-key", "k" * 20),
        (replace(AT, bearer=True), "authorization", f"Bearer {'k' * 20}"),
    ):
        for http in (encode(Request(ASKED), at(), endpoint).http, listing(at(), endpoint)):
            assert {
                key: http.headers.get(key) for key in ("x-goog-api-key", "authorization") if key in http.headers
            } == {name: value}
    assert (
        not {"x-goog-api-key", "authorization"}
        & encode(Request(ASKED), at(), Endpoint("https://h", Secret(""))).http.headers.keys()
    )


# --- the conversation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ('{"t": 18}', {"t": 18}), ("sunny", {"result": "sunny"}), ("", {"result": ""}), ("1.10", {"result": "1.10"}),
        ("[1, 2]", {"result": "[1, 2]"}), ('{"t": NaN}', {"result": '{"t": NaN}'}), ('{"t": ', {"result": '{"t": '}),
        ('{"t": 1e999}', {"result": '{"t": 1e999}'}),
    ],
)  # fmt: skip
def test_a_result_is_an_object_or_is_wrapped_into_one_verbatim(text: str, response: Any):
    assert result(text) == {"id": "c1", "name": "f", "response": response}


def test_a_failed_tool_says_so():
    assert result("no", is_error=True)["response"] == {"error": "no"}
    assert result('{"code": 7}', is_error=True)["response"] == {"error": {"code": 7}}


def test_a_result_has_its_own_name_or_that_of_the_last_call_with_its_id():
    again = replace(CALL, name="g")
    answer = Message("tool", (Text("x"),), tool_call_id="c1")
    contents = turns(
        Message("assistant", (), (CALL,)), answer, Message("assistant", (), (again,)), answer, replace(answer, name="h")
    )
    names = [part["functionResponse"]["name"] for turn in contents[1::2] for part in turn["parts"]]
    assert names == ["f", "g", "h"]
    assert turns(answer)[0]["parts"][0]["functionResponse"]["name"] == "c1"


def test_results_of_one_turn_are_one_turn_and_a_user_after_them_is_another():
    answer = Message("tool", (Text("x"),), tool_call_id="c1")
    contents = turns(Message("assistant", (), (CALL, CALL)), answer, answer, ASKED[0], answer)
    assert [(turn["role"], len(turn["parts"])) for turn in contents] == [
        ("model", 2),
        ("user", 2),
        ("user", 1),
        ("user", 1),
    ]


def test_a_result_may_hold_an_image():
    media = (Text("seen"), Image("image/png", "QQ=="))
    answer = turns(Message("tool", media, tool_call_id="c1"))[0]["parts"][0]["functionResponse"]
    assert answer["parts"] == [{"inlineData": {"mimeType": "image/png", "data": "QQ=="}}]


@pytest.mark.parametrize("arguments", ["", "{}", "not json", "[1]", '{"a": 1e999}', '{"a": NaN}'])
def test_arguments_that_are_no_object_are_not_lost(arguments: str):
    part = turns(Message("assistant", (), (replace(CALL, arguments=arguments),)))[0]["parts"][0]
    assert part["functionCall"]["args"] == ({} if arguments in ("", "{}") else {"arguments": arguments})


def test_a_call_keeps_its_seal_and_one_without_an_id_gets_none():
    signed = Message("assistant", (), (ToolCall("", "f", "{}", "U0lH"), replace(CALL, id="")))
    assert turns(signed)[0]["parts"] == [
        {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "U0lH"},
        {"functionCall": {"name": "f", "args": {"a": 1}}},
    ]


def test_the_first_call_that_another_model_made_is_vouched_for_where_a_seal_is_demanded():
    foreign = Message("assistant", (), (CALL, CALL))
    for model in ("gemini-3-pro-preview", "gemini-flash-latest"):
        first, second = turns(foreign, model=model)[0]["parts"]
        assert first["thoughtSignature"] == "skip_thought_signature_validator"
        assert "thoughtSignature" not in second
    own = Message("assistant", (), (replace(CALL, signature="U0lH"),))
    assert turns(own, model="gemini-3-pro-preview")[0]["parts"][0]["thoughtSignature"] == "U0lH"


def test_thoughts_go_back_sealed_as_they_came():
    said = Message("assistant", (Text("hi"),), thoughts=(Thought("hm"), Thought("so", "QQ=="), Thought("", "Qg==")))
    assert turns(said)[0]["parts"] == [
        {"text": "hm", "thought": True},
        {"text": "so", "thought": True, "thoughtSignature": "QQ=="},
        {"text": "hi"},
        {"text": "", "thoughtSignature": "Qg=="},
    ]


def test_an_answer_that_was_read_goes_back_as_it_came():
    parts = [
        {"text": "let me", "thought": True, "thoughtSignature": "QQ=="},
        {"text": "Looking."},
        {"functionCall": {"id": "x", "name": "f", "args": {"a": [1, {"b": None}]}}, "thoughtSignature": "Qg=="},
        {"functionCall": {"id": "y", "name": "f", "args": {}}},
    ]
    answer = {"candidates": [{"finishReason": "STOP", "content": {"role": "model", "parts": parts}}]}
    reading, fold = decoder(Request(ASKED, stream=False), 200, {}), Fold()
    for event in (*reading.feed(json.dumps(answer).encode()), *reading.end()):
        fold.add(event)
    got = fold.completion()
    again = Message("assistant", (Text(got.text),), got.tool_calls, thoughts=got.thoughts)
    assert turns(again, model="gemini-3-pro-preview") == [{"role": "model", "parts": parts}]


def test_an_empty_answer_is_still_a_turn():
    assert (
        turns(Message("assistant", ()))
        == turns(Message("assistant", (Text(""),)))
        == [{"role": "model", "parts": [{"text": ""}]}]
    )


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Document("application/pdf", "QQ==", "a.pdf"), {"inlineData": {"mimeType": "application/pdf", "data": "QQ=="}}),
        (Image(url="https://h/a.PNG?x=1"), {"fileData": {"fileUri": "https://h/a.PNG?x=1", "mimeType": "image/png"}}),
        (Image(url="https://h/files/7"), {"fileData": {"fileUri": "https://h/files/7"}}),
        (Image("image/webp", url="https://h/x"), {"fileData": {"fileUri": "https://h/x", "mimeType": "image/webp"}}),
    ],
)
def test_media_travel_inline_or_by_address(part: Any, expected: Any):
    assert turns(Message("user", (part,)))[0]["parts"] == [expected]


# --- parameters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "params", "expected", "dropped"),
    [
        ("gemini-2.5-flash", {"reasoning_effort": "low"}, {"thinkingBudget": 1024, **TOLD}, ()),
        ("models/gemini-2.5-pro", {"reasoning_effort": "high"}, {"thinkingBudget": 24576, **TOLD}, ()),
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}, ()),
        ("gemini-robotics-er-1.5", {"reasoning_effort": "medium"}, {"thinkingBudget": 8192, **TOLD}, ()),
        ("gemini-2.5-flash", {"reasoning_tokens": 0}, {"thinkingBudget": 0}, ()),
        ("gemini-2.5-flash", {"reasoning_tokens": -1}, {"thinkingBudget": -1, **TOLD}, ()),
        ("gemini-3-pro", {"reasoning_effort": "low"}, {"thinkingLevel": "LOW", **TOLD}, ()),
        ("gemini-flash-latest", {"reasoning_effort": "minimal"}, {"thinkingLevel": "MINIMAL", **TOLD}, ()),
        ("gemini-3-pro", {"reasoning_tokens": 9}, {"thinkingBudget": 9, **TOLD}, ()),
        ("gemini-3-pro", {"reasoning_effort": "none"}, None, ("reasoning_effort",)),
        ("gemini-2.5-flash", {"reasoning_effort": "xhigh"}, None, ("reasoning_effort",)),
        (
            "gemini-3-pro", {"reasoning_effort": "low", "reasoning_tokens": 9},
            {"thinkingBudget": 9, **TOLD}, ("reasoning_effort",),
        ),
        ("gemini-2.5-flash", {}, None, ()),
    ],
)  # fmt: skip
def test_how_much_to_think_is_a_budget_or_a_level_by_generation(
    model: str, params: dict[str, Any], expected: Any, dropped: tuple[str, ...]
):
    encoded = encode(Request(ASKED, Params(**params)), at(model), AT)
    assert body(encoded.http).get("generationConfig", {}).get("thinkingConfig") == expected
    assert encoded.dropped == dropped
    tuned = encode(Request(ASKED, Params(**params)), at("tunedModels/mine", base_model=model), AT)
    assert body(tuned.http) == body(encoded.http)


@pytest.mark.parametrize(
    ("request_", "dropped"),
    [
        (Request(ASKED, Params(user="u")), ("user",)),
        (Request(ASKED, Params(parallel_tool_calls=False), (TOOL,)), ("parallel_tool_calls",)),
        (Request(ASKED, Params(parallel_tool_calls=True), (TOOL,)), ()),
        (Request((Message("user", (Text("x"),), name="ada"),)), ("name",)),
        (Request((Message("user", (Text("x"),), cache=True),)), ()),
        (Request(ASKED, tools=(replace(TOOL, strict=True),)), ("strict",)),
        (Request(ASKED, tools=(replace(TOOL, strict=True),), tool_choice="required"), ()),
        (Request(ASKED, tools=(replace(TOOL, strict=False),)), ()),
        (Request((Message("user", (Image(url="https://h/a.png", detail="low"),)),)), ("detail",)),
        (Request((Message("user", (Image(url="https://h/a.png", detail="auto"),)),)), ()),
        (Request((Message("assistant", (Text("x"),), thoughts=(Thought(redacted="QQ=="),)),)), ("thoughts",)),
    ],
)
def test_what_has_no_field_is_announced_once_and_what_means_the_same_is_not(
    request_: Request, dropped: tuple[str, ...]
):
    assert encode(replace(request_, messages=request_.messages * 2), at(), AT).dropped == dropped


def test_one_tool_is_forced_by_name_and_an_unconstrained_choice_is_said():
    def choice(wanted: str) -> Any:
        return sent(Request(ASKED, tools=(TOOL,), tool_choice=wanted))["toolConfig"]["functionCallingConfig"]

    assert choice("f") == {"mode": "ANY", "allowedFunctionNames": ["f"]}
    assert choice("auto") == {"mode": "AUTO"}


def test_extras_reach_into_the_generation_config():
    extra = {"safetySettings": [{"category": "C"}], "generationConfig": {"candidateCount": 2, "temperature": 1}}
    got = sent(Request(ASKED, Params(temperature=0, seed=0, extra=extra), response_format=ResponseFormat("json")))
    assert got["safetySettings"] == [{"category": "C"}]
    assert got["generationConfig"] == {
        "candidateCount": 2, "temperature": 1, "seed": 0, "responseMimeType": "application/json",
    }  # fmt: skip


# --- embeddings and counting ----------------------------------------------------------------------------------------


def test_each_text_to_embed_has_a_request_and_the_extras():
    asked = Request((), Params(extra={"taskType": "RETRIEVAL_QUERY"}), inputs=("a", "b"), dimensions=3)
    http = encode(asked, at("gemini-embedding-001"), AT).http
    assert http.url == "https://host.example/v1/models/gemini-embedding-001:batchEmbedContents"
    assert [(row["content"]["parts"][0]["text"], row["model"]) for row in body(http)["requests"]] == [
        ("a", "models/gemini-embedding-001"), ("b", "models/gemini-embedding-001"),
    ]  # fmt: skip
    assert all(
        row["outputDimensionality"] == 3 and row["taskType"] == "RETRIEVAL_QUERY" for row in body(http)["requests"]
    )


def test_counting_asks_for_the_contents_alone_or_for_all_that_is_prompt():
    assert body(counting(Request(ASKED), at(), AT)).keys() == {"contents"}
    extra = {"cachedContent": "cachedContents/x", "safetySettings": []}
    full = Request((Message("system", (Text("s"),)), *ASKED), Params(temperature=1, extra=extra), (TOOL,))
    http = counting(full, at(), AT)
    assert http.url.endswith("/models/gemini-2.5-flash:countTokens")
    counted = {"model", "contents", "systemInstruction", "tools", "cachedContent"}
    assert body(http)["generateContentRequest"].keys() == counted
    vectors = body(counting(Request((), inputs=("a", "b")), at(), AT))
    assert [turn["parts"] for turn in vectors["contents"]] == [[{"text": "a"}], [{"text": "b"}]]

"""What we send to Bedrock where no fixture shows it: turns, documents, tools, makers' own parameters, embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.catalog import Deployment
from llmctl.core.errors import UsageError
from llmctl.core.redact import Secret
from llmctl.core.types import (
    Document,
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
from llmctl.wire import bedrock
from llmctl.wire.base import Endpoint
from tests.wire.fixtures import ASKED, providers

BASE = "https://bedrock-runtime.us-east-1.amazonaws.com"
CLAUDE, NOVA, GPT, LLAMA = (
    "us.anthropic.claude-sonnet-5-v1:0",
    "amazon.nova-2-lite-v1:0",
    "openai.gpt-oss-120b-1:0",
    "meta.llama3-70b-instruct-v1:0",
)
SAMPLING = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"  # the newer one takes no sampling parameters
DATA = "aGk="
TOOL = Tool("look", parameters={"type": "object"})
CALLED = (
    Message("user", (Text("go"),)),
    Message("assistant", (), (ToolCall("call_1", "look", '{"at": 1}'),)),
    Message("tool", (Text("seen"),), tool_call_id="call_1"),
)


def deployment(model: str = CLAUDE, **changes: Any) -> Deployment:
    return replace(Deployment("d", providers()["bedrock"], model), **changes)


def body(request: Request, model: str = CLAUDE, **changes: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    return bedrock.body_of(request, deployment(model, **changes))


def content(*messages: Message) -> list[Any]:
    return [turn["content"] for turn in body(Request(messages))[0]["messages"]]


@cache
def converse() -> tuple[ParamValidator, Any]:
    """Amazon's own description of Converse, as its SDK checks arguments with it."""
    service = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"))
    return ParamValidator(), service.operation_model("Converse").input_shape


def complaints(made: dict[str, Any]) -> str:
    """What Amazon's SDK would say of a body: unknown fields, wrong types, missing or empty values."""
    validator, shape = converse()
    return str(validator.validate({"modelId": "m", **made}, shape).generate_report())


def user(*parts: Any) -> Message:
    return Message("user", parts)


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("arn:aws:bedrock:us-east-1:1:x/a.b-v1:0", "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ax%2Fa.b-v1%3A0"),
        ("a b+c/ä~%2F?#", "a%20b%2Bc%2F%C3%A4~%252F%3F%23"),
    ],
)
def test_a_model_is_one_path_segment_escaped_once(model: str, path: str):
    sent = bedrock.encode(Request(ASKED), deployment(model), Endpoint(BASE + "/", Secret(""))).http
    assert sent.url == f"{BASE}/model/{path}/converse-stream"
    assert sent.headers == {"content-type": "application/json"}


def test_a_bearer_key_and_the_users_headers_go_along():
    endpoint = Endpoint(BASE, Secret("abc"), headers={"x-team": "7"})
    sent = bedrock.encode(Request(ASKED, stream=False), deployment(), endpoint).http
    assert sent.headers == {"content-type": "application/json", "authorization": "Bearer abc", "x-team": "7"}


@pytest.mark.parametrize(
    ("base", "listed"),
    [
        (BASE, "https://bedrock.us-east-1.amazonaws.com"),
        (
            "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/",
            "https://bedrock-fips.us-gov-west-1.amazonaws.com",
        ),
        ("http://127.0.0.1:8000/aws/", "http://127.0.0.1:8000/aws"),
        ("https://bedrock-runtime.example.com", "https://bedrock-runtime.example.com"),
    ],
)
def test_models_are_listed_beside_the_runtime(base: str, listed: str):
    sent = bedrock.listing(deployment(), Endpoint(base, Secret("")))
    assert (sent.method, sent.url, sent.body) == ("GET", listed + "/foundation-models", b"")


def test_tokens_are_counted_for_the_conversation_alone():
    asked = Request((Message("system", (Text("s"),)), *ASKED), Params(max_tokens=9, reasoning_tokens=3), (TOOL,))
    sent = bedrock.counting(asked, deployment(), Endpoint(BASE, Secret("")))
    assert sent.url.endswith("/count-tokens")
    counted = json.loads(sent.body)["input"]["converse"]
    assert counted.keys() == {"messages", "system", "toolConfig", "additionalModelRequestFields"}


@pytest.mark.parametrize(
    ("model", "params", "more", "dropped"),
    [
        (SAMPLING, {"top_k": 5}, {"additionalModelRequestFields": {"top_k": 5}}, ()),
        (NOVA, {"top_k": 5}, {"additionalModelRequestFields": {"inferenceConfig": {"topK": 5}}}, ()),
        ("cohere.command-r-v1:0", {"top_k": 5}, {"additionalModelRequestFields": {"k": 5}}, ()),
        (LLAMA, {"top_k": 5, "reasoning_effort": "low"}, {}, ("top_k", "reasoning_effort")),
        (CLAUDE, {"reasoning_effort": "low"}, {"outputConfig": {"effort": "low"}}, ()),
        (GPT, {"reasoning_effort": "low"}, {"additionalModelRequestFields": {"reasoning_effort": "low"}}, ()),
        (
            NOVA,
            {"reasoning_effort": "low"},
            {"additionalModelRequestFields": {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}},
            (),
        ),
        (LLAMA, {"temperature": 1.5}, {}, ("temperature",)),
        (SAMPLING, {"temperature": 1.5}, {}, ("temperature",)),
        (GPT, {"reasoning_tokens": 2000}, {}, ("reasoning_tokens",)),
        (SAMPLING, {"temperature": 0.0, "top_p": 0.5}, {"inferenceConfig": {"temperature": 0.0, "topP": 0.5}}, ()),
        (CLAUDE, {"temperature": 1.0, "top_p": 0.5, "top_k": 5}, {}, ("temperature", "top_p", "top_k")),
        (
            SAMPLING,
            {"reasoning_tokens": 2000, "temperature": 0.5, "top_p": 0.95},
            {
                "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 2000}},
                "inferenceConfig": {"topP": 0.95},
            },
            ("temperature",),
        ),
        (CLAUDE, {"reasoning_tokens": 0}, {"additionalModelRequestFields": {"thinking": {"type": "disabled"}}}, ()),
        (SAMPLING, {"reasoning_effort": "low"}, {}, ("reasoning_effort",)),
        (CLAUDE, {"stop": ("\n", "END")}, {"inferenceConfig": {"stopSequences": ["END"]}}, ("stop",)),
        (CLAUDE, {"reasoning_effort": "none"}, {}, ("reasoning_effort",)),
        (NOVA, {"reasoning_effort": "minimal"}, {}, ("reasoning_effort",)),
        (CLAUDE, {"seed": 0, "presence_penalty": 0.0}, {}, ("seed", "presence_penalty")),
        (CLAUDE, {"parallel_tool_calls": False}, {}, ("parallel_tool_calls",)),
        (CLAUDE, {"parallel_tool_calls": True}, {}, ()),
        (CLAUDE, {"user": "team-7@x"}, {"requestMetadata": {"user": "team-7@x"}}, ()),
        (CLAUDE, {"user": "Jürgen"}, {}, ("user",)),
        (
            CLAUDE,
            {"max_tokens": 3, "extra": {"inferenceConfig": {"topP": 1}, "serviceTier": {"type": "flex"}}},
            {"inferenceConfig": {"maxTokens": 3, "topP": 1}, "serviceTier": {"type": "flex"}},
            (),
        ),
    ],
)
def test_a_parameter_goes_where_the_models_maker_looks_for_it_or_is_announced(
    model: str, params: dict[str, Any], more: dict[str, Any], dropped: tuple[str, ...]
):
    made, left = body(Request(ASKED, Params(**params)), model)
    assert complaints(made) == ""
    del made["messages"]
    assert (made, left) == (more, dropped)


def test_a_tool_that_claude_must_call_is_worth_more_than_its_thoughts():
    asked = Request(ASKED, Params(reasoning_tokens=2000), (TOOL,), "required")
    made, dropped = body(asked, SAMPLING)
    assert (made["toolConfig"]["toolChoice"], dropped) == ({"any": {}}, ("reasoning_tokens",))
    assert "additionalModelRequestFields" not in made


def test_a_profile_that_hides_its_model_is_known_by_its_base_model():
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    asked = Request(ASKED, Params(top_k=5))
    assert body(asked, arn) == ({"messages": [{"role": "user", "content": [{"text": "Say hello."}]}]}, ("top_k",))
    assert body(asked, arn, base_model="claude-sonnet-4-5")[1] == ()


def test_a_schema_is_a_string_and_a_plain_json_mode_has_no_form():
    made, _ = body(Request(ASKED, response_format=ResponseFormat("json_schema", {"type": "object"}, "a")))
    assert complaints(made) == ""
    form = made["outputConfig"]["textFormat"]
    assert form == {
        "type": "json_schema",
        "structure": {"jsonSchema": {"name": "a", "schema": '{"type": "object"}'}},
    }
    assert body(Request(ASKED, response_format=ResponseFormat("json")))[1] == ("response_format",)
    with pytest.raises(UsageError):
        body(Request(ASKED, response_format=ResponseFormat("json_schema", {"x": float("nan")})))


# --- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "sent"), [("auto", {"auto": {}}), ("required", {"any": {}}), ("look", {"tool": {"name": "look"}})]
)
def test_every_choice_of_tools_has_its_form(choice: str, sent: dict[str, Any]):
    made, dropped = body(Request(ASKED, tools=(TOOL,), tool_choice=choice))
    assert (made["toolConfig"]["toolChoice"], dropped) == (sent, ())


def test_no_tool_is_wanted_by_leaving_them_out_or_is_announced_where_earlier_calls_need_them():
    assert body(Request(ASKED, tools=(TOOL,), tool_choice="none")) == body(Request(ASKED))
    made, dropped = body(Request(CALLED, tools=(TOOL,), tool_choice="none"))
    assert ("toolChoice" in made["toolConfig"], dropped) == (False, ("tool_choice",))


def test_earlier_calls_bring_their_tools_along_because_converse_refuses_them_alone():
    made, dropped = body(Request(CALLED))
    assert [tool["toolSpec"]["name"] for tool in made["toolConfig"]["tools"]] == ["look"]
    assert dropped == ()


def test_a_tool_has_a_schema_even_where_it_takes_nothing():
    made, _ = body(Request(ASKED, tools=(Tool("ping", strict=True),)))
    assert complaints(made) == ""
    spec = {"name": "ping", "inputSchema": {"json": {"type": "object", "properties": {}}}, "strict": True}
    assert made["toolConfig"]["tools"] == [{"toolSpec": spec}]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ('{"a": ', {"invalid_arguments": '{"a": '}),
        ("[1]", {"invalid_arguments": "[1]"}),
        ('{"a": 1e999}', {"invalid_arguments": '{"a": 1e999}'}),
        ('{"a": "\ud800"}', {"invalid_arguments": '{"a": "\ud800"}'}),
    ],
)
def test_arguments_are_an_object_and_broken_ones_are_sent_back_as_they_were(arguments: str, sent: dict[str, Any]):
    [[block]] = content(Message("assistant", (), (ToolCall("c", "look", arguments),)))
    assert block == {"toolUse": {"toolUseId": "c", "name": "look", "input": sent}}


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ('{"t": 18}', {"json": {"t": 18}}),
        ("18", {"text": "18"}),
        ("[1]", {"text": "[1]"}),
        ("{no", {"text": "{no"}),
        ('{"t": NaN}', {"text": '{"t": NaN}'}),
    ],
)
def test_a_tools_result_is_json_where_it_is_an_object(said: str, sent: dict[str, Any]):
    [[block]] = content(Message("tool", (Text(said),), tool_call_id="c", is_error=True))
    assert block == {"toolResult": {"toolUseId": "c", "content": [sent], "status": "error"}}


def test_a_foreign_call_id_has_the_same_stand_in_in_call_and_result():
    name = "weird id/" + "x" * 80
    (call,), (result,) = content(
        Message("assistant", (), (ToolCall(name, "look", "{}"),)), Message("tool", (Text("r"),), tool_call_id=name)
    )
    assert call["toolUse"]["toolUseId"] == result["toolResult"]["toolUseId"]
    assert len(call["toolUse"]["toolUseId"]) <= 64


# --- turns ----------------------------------------------------------------------------------------------------------


def test_what_one_side_says_in_a_row_is_one_turn_with_results_before_words():
    turns = content(*CALLED, Message("tool", (Image("image/png", DATA),), tool_call_id="call_2"), user(Text("and?")))
    assert [list(block) for turn in turns for block in turn] == [
        ["text"], ["toolUse"], ["toolResult"], ["toolResult"], ["text"],
    ]  # fmt: skip
    assert len(turns) == 3
    assert turns[2][1]["toolResult"]["content"] == [{"image": {"format": "png", "source": {"bytes": DATA}}}]


@pytest.mark.parametrize("nothing", ["", " \n"])
def test_blank_texts_and_turns_of_nothing_else_are_left_out(nothing: str):
    silent = Message("assistant", (Text(nothing),), thoughts=(Thought("hm", "sealed"),))
    asked = (user(Text("a")), silent, user(Text("b")), replace(CALLED[1], parts=(Text(nothing),)))
    made = [[list(block) for block in turn] for turn in content(*asked)]
    assert made[0] == [["text"], ["text"]]
    assert {each for [each] in made[1]} == {"toolUse"}


def test_cache_marks_follow_what_they_mark():
    made, dropped = body(
        Request((Message("system", (Text("s"),), cache=True), replace(user(Text("a")), cache=True), user(Text("b"))))
    )
    assert complaints(made) == ""
    mark = {"cachePoint": {"type": "default"}}
    assert made["system"] == [{"text": "s"}, mark]
    assert made["messages"] == [{"role": "user", "content": [{"text": "a"}, mark, {"text": "b"}]}]
    assert dropped == ()


def test_thoughts_go_back_sealed_and_claude_takes_no_others():
    thoughts = (Thought("because", "c2ln"), Thought(redacted="cmVk"), Thought("unsealed"))
    asked = Request((*ASKED, Message("assistant", (Text("so"),), thoughts=thoughts)))
    sealed = [
        {"reasoningContent": {"reasoningText": {"text": "because", "signature": "c2ln"}}},
        {"reasoningContent": {"redactedContent": "cmVk"}},
    ]
    unsealed = [{"reasoningContent": {"reasoningText": {"text": "unsealed"}}}]
    made, dropped = body(asked)
    assert complaints(made) == ""
    assert (made["messages"][1]["content"], dropped) == ([*sealed, {"text": "so"}], ("thoughts",))
    made, dropped = body(asked, "deepseek.r1-v1:0")
    assert (made["messages"][1]["content"], dropped) == ([*sealed, *unsealed, {"text": "so"}], ())


def test_a_participants_name_and_a_look_at_details_are_announced():
    asked = Request((replace(user(Image("image/png", DATA, detail="high")), name="Ada"),))
    assert body(asked)[1] == ("detail", "name")


def test_documents_have_names_of_allowed_characters_and_no_two_alike():
    names = ["Bericht (Q3)_ä.pdf", "a.pdf", "a", "", "  x \t y  ", "z" * 300]
    [blocks] = content(user(*(Document("application/pdf", DATA, name) for name in names)))
    made = [block["document"]["name"] for block in blocks]
    assert made == ["Bericht (Q3)", "a", "a 2", "document", "x y", "z" * 190]
    assert blocks[0]["document"]["format"] == "pdf"


@pytest.mark.parametrize(
    "part",
    [
        Image(url="https://example.com/a.png"),
        Image("image/bmp", DATA),
        Image(url="s3://bucket/a.tiff"),
        Document("application/zip", DATA, "a.zip"),
    ],
)
def test_what_has_no_form_is_refused_and_not_lost(part: Any):
    with pytest.raises(UsageError):
        content(user(Text("see"), part))
    with pytest.raises(UsageError):
        content(Message("system", (part,)))


def test_an_image_in_a_bucket_goes_by_its_address():
    [[block]] = content(user(Image(url="s3://bucket/a.JPEG")))
    assert block == {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.JPEG"}}}}


WORDS = st.text(min_size=1, max_size=8).filter(str.strip)
PARTS = st.one_of(
    WORDS.map(Text),
    st.sampled_from(["QQ==", "Qg=="]).map(lambda data: Image("image/png", data)),
    WORDS.map(lambda name: Document("application/pdf", DATA, name)),
)
MESSAGES = st.one_of(
    st.builds(Message, st.sampled_from(["user", "assistant"]), st.lists(PARTS, min_size=1).map(tuple)),
    st.builds(lambda text: Message("system", (Text(text),)), WORDS),
    st.builds(lambda text: Message("tool", (Text(text),), tool_call_id="c"), WORDS),
    st.builds(lambda text: Message("assistant", (), (ToolCall("c", "look", text),)), WORDS),
)


@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_no_part_of_any_message_is_lost_and_turns_alternate(messages: list[Message]):
    sent = bedrock.encode(Request(tuple(messages)), deployment(), Endpoint(BASE, Secret(""))).http
    made = json.loads(sent.body)
    assert complaints(made) == ""
    roles = [turn["role"] for turn in made["messages"]]
    assert all(a != b for a, b in pairwise(roles))
    blocks = [block for turn in made["messages"] for block in turn["content"]] + made.get("system", [])
    wanted = sum(len(m.tool_calls) + (1 if m.role == "tool" else len(m.parts)) for m in messages)
    assert len(blocks) == wanted
    texts = sorted(part.text for m in messages if m.role != "tool" for part in m.parts if isinstance(part, Text))
    assert sorted(block["text"] for block in blocks if "text" in block) == texts


# --- embeddings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "dimensions", "made", "dropped"),
    [
        ("amazon.titan-embed-text-v2:0", ("a",), 256, {"inputText": "a", "dimensions": 256}, ()),
        ("amazon.titan-embed-text-v1", ("a",), 256, {"inputText": "a"}, ("dimensions",)),
        (
            "amazon.titan-embed-image-v1",
            ("a",),
            256,
            {"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 256}},
            (),
        ),
        (
            "cohere.embed-english-v3",
            ("a", "b"),
            8,
            {"texts": ["a", "b"], "input_type": "search_document"},
            ("dimensions",),
        ),
        (
            "us.cohere.embed-v4:0",
            ("a", "b"),
            256,
            {"texts": ["a", "b"], "input_type": "search_document", "output_dimension": 256},
            (),
        ),
        (
            "amazon.nova-2-multimodal-embeddings-v1:0",
            ("a",),
            256,
            {
                "taskType": "SINGLE_EMBEDDING",
                "singleEmbeddingParams": {
                    "embeddingPurpose": "GENERIC_INDEX",
                    "embeddingDimension": 256,
                    "text": {"truncationMode": "NONE", "value": "a"},
                },
            },
            (),
        ),
    ],
)
def test_every_maker_of_vectors_has_its_form(
    model: str, inputs: tuple[str, ...], dimensions: int, made: dict[str, Any], dropped: tuple[str, ...]
):
    asked = Request((), inputs=inputs, dimensions=dimensions)
    sent = bedrock.encode(asked, deployment(model), Endpoint(BASE, Secret("")))
    assert sent.http.url.endswith("/invoke")
    assert sent.http.headers == {"content-type": "application/json", "accept": "application/json"}
    assert (json.loads(sent.http.body), sent.dropped) == (made, dropped)


@pytest.mark.parametrize("model", ["amazon.titan-embed-text-v2:0", "anthropic.claude-3-haiku-20240307-v1:0"])
def test_too_many_inputs_and_models_of_no_known_form_are_refused(model: str):
    with pytest.raises(UsageError):
        bedrock.encode(Request((), inputs=("a", "b")), deployment(model), Endpoint(BASE, Secret("")))

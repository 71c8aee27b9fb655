"""The price table against genai-prices, the oracle; which file is used; and that a call keeps the price of its day."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices.data import providers as theirs
from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

from llmctl import Client
from llmctl.config.load import catalog_of
from llmctl.config.places import Places
from llmctl.config.prices import SHIPPED, PriceTable, Table, sought
from llmctl.config.prices_import import installed_table
from llmctl.core.money import NANO
from llmctl.core.prices import model
from llmctl.core.types import Usage
from llmctl.run.clock import SystemClock
from llmctl.testing import MemoryLedger, Reply, ScriptedTransport

if TYPE_CHECKING:
    from llmctl.core.catalog import Deployment
    from llmctl.core.prices import Model

AUTUMN_2024 = datetime(2024, 9, 1, 12, tzinfo=UTC).timestamp()
NEWER = b'{"format":1,"source":"me","version":"1","date":"2099-01-01"}\n'
ROW = b'{"provider":"openai","models":[{"id":"gpt-4o","price":"7 8"}]}\n'
SEED = [  # what vendors' pages say, as in the published study of litellm's map: in and out per million tokens
    ("openai/gpt-4o", "", 2.5, 10.0, 128_000),
    ("openai/gpt-4o-2024-08-06", "", 2.5, 10.0, 128_000),
    ("gpt-4o-mini", "", 0.15, 0.6, 128_000),
    ("claude-3-5-sonnet-20241022", "", 3.0, 15.0, 200_000),
    ("groq/llama-3.3-70b-versatile", "", 0.59, 0.79, None),
    ("together/meta-llama/Llama-3.3-70B-Instruct-Turbo", "", 0.88, 0.88, None),
    ("gemini-1.5-pro", "", 1.25, 5.0, 1_000_000),
    ("azure/gpt-4o", "", 2.5, 10.0, 128_000),
    ("azure/gpt-4o-deployment-1", "gpt-4o-2024-08-06", 2.5, 10.0, 128_000),
    ("bedrock/anthropic.claude-3-sonnet-20240229-v1:0", "", 3.0, 15.0, 200_000),
]


@cache
def shipped() -> Table:
    return Table(SHIPPED.read_bytes(), SHIPPED)


def deployment(name: str, base_model: str = "", **config: Any) -> Deployment:
    row = {"model": name, **({"base_model": base_model} if base_model else {})}
    return catalog_of({"models": {"m": row}, **config}, {}).groups["m"].deployments[0]


def expected(them: Any, usage: Usage, at: float) -> int | None:
    """What genai-prices says, in nano-dollars; None where it has no price of tokens."""
    instant = datetime.fromtimestamp(at, UTC)
    prices = them.get_prices(instant)
    if prices.input_mtok is None and prices.output_mtok is None:
        return (
            0
            if them.id.endswith(":free") and not [each for each in vars(prices).values() if each is not None]
            else None
        )
    used = TheirUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    total = prices.calc_price(used)["total_price"] * NANO
    return int(total.quantize(Decimal(1), ROUND_HALF_UP))


def instants(them: Any, dice: random.Random) -> list[float]:
    """Around every start that the model's prices have, and somewhere."""
    found = [dice.uniform(1.5e9, 2e9), AUTUMN_2024]
    for each in them.prices if isinstance(them.prices, list) else []:
        match each.constraint:
            case StartDateConstraint(start_date=day):
                begin = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
            case TimeOfDateConstraint(start_time=start, end_time=end):
                found += [1.8e9 // 86400 * 86400 + at.hour * 3600 + at.minute * 60 - 1 for at in (start, end)]
                begin = found[-1] + 1
            case _:
                continue
        found += [begin - 1, begin - 1e-3, begin, begin + dice.uniform(0, 1e7)]
    return found


def usages(ours: Model, dice: random.Random) -> list[Usage]:
    """At random, and on both sides of every tier."""
    edges = {start for each in ours.prices if each.price for start, _ in each.price.tiers}
    given = [dice.randrange(300), dice.randrange(10**6), *(edge + each for edge in edges for each in (0, 1))]
    found = []
    for count in given:
        made, cached = dice.randrange(10**5), dice.randint(0, count)
        parts = cached, dice.randint(0, count - cached), dice.randint(0, made)
        found += [Usage(count, made), Usage(count, made, *parts)]
    return found


@pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.full)])
def test_every_model_of_the_snapshot_costs_to_the_nano_dollar_what_genai_prices_says(rounds: int):
    dice, compared = random.Random(rounds), 0
    for provider in theirs:
        line = shipped().line(provider.id)
        assert line is not None
        for them, row in zip(provider.models, line.rows, strict=False):  # rows of our own come after theirs
            ours = model(row, provider.id, shipped().version)
            assert (ours.id, ours.context_window, ours.deprecated) == (
                them.id,
                them.context_window,
                bool(them.deprecated),
            )
            for at in instants(them, dice) * rounds:
                price = ours.price(at)
                for usage in usages(ours, dice):
                    cost = price and price.cost_nanousd(usage)
                    assert cost == expected(them, usage, at), (provider.id, them.id, at, usage)
                    compared += cost is not None
    assert compared > 10_000


def spellings(name: str, dice: random.Random) -> list[str]:
    """A name and others near it, which may mean something else or nothing."""
    cut = dice.randint(0, len(name))
    return [
        name, name.upper(), f"{name}-20251211", f"{name}-2024-08-06", f"us.{name}", f"eu.{name}-v1:0", f"{name}:free",
        f"models/{name}", name[:cut], name[cut:], f"{name}x", name.replace("-", "."), name.replace(".", "-"),
        f" {name}", name.replace("-2", "-20240229").replace("--", "-"), f"{name[:cut]}-20240230{name[cut:]}",
    ]  # fmt: skip


def test_every_name_and_every_name_near_it_means_what_it_means_to_genai_prices():
    dice, hits, misses = random.Random(6), 0, 0
    everything = list(theirs)
    for provider in theirs:
        known = {word for them in provider.models for word in (them.id, *literals(them.match))}
        if provider.id == "openrouter":  # its 900 rows take most of the time
            known = set(dice.sample(sorted(known), 150))
        for name in [each for word in sorted(known) for each in (word, *dice.sample(spellings(word, dice), 4))]:
            them, ours = provider.find_model(name, all_providers=everything), shipped().find(provider.id, name)
            if ours is not None and ours.source:
                assert them is None
                continue
            assert (ours and ours.id) == (them and them.id), (provider.id, name)
            hits, misses = hits + (them is not None), misses + (them is None)
    assert hits > 3000
    assert misses > 1000


def literals(clause: Any) -> list[str]:
    (value,) = vars(clause).values()
    return [value] if isinstance(value, str) else [word for each in value for word in literals(each)]


def test_the_snapshot_is_what_the_pinned_genai_prices_and_our_own_rows_make():
    text = SHIPPED.read_text()
    stale = "stale: run `llmctl cost prices update --to llmctl/data/prices.jsonl`"
    assert text == installed_table(shipped().date), stale


def test_our_own_rows_are_dated_sourced_known_to_no_other_and_of_providers_that_can_be_asked():
    names = {each.prices for each in catalog_of({}, {}).providers.values()}
    ours = [each for each in shipped().models() if each.source]
    assert len(ours) >= 10
    for each in ours:
        assert each.provider in names
        assert each.source.startswith(("https://", "anomalyco/"))
        assert each.version[-10:] <= shipped().date
        assert each.price(0) is not None
        assert shipped().find(each.provider, each.id) == each


def test_every_provider_of_our_table_whose_prices_are_known_finds_them():
    lines = {line.provider for line in shipped().lines()}
    found = {name for name, each in catalog_of({}, {}).providers.items() if each.prices in lines}
    assert {
        "openai",
        "anthropic",
        "gemini",
        "bedrock",
        "azure",
        "groq",
        "together",
        "mistral",
        "xai",
        "zhipu",
        "moonshot",
    } < found
    assert len(found) > 35
    assert not {"vllm", "ollama", "litellm", "local"} & found


@pytest.mark.parametrize(("name", "base_model", "plain", "made", "window"), SEED)
def test_the_seed_models_are_priced_offline(name: str, base_model: str, plain: float, made: float, window: int | None):
    table = PriceTable(None)
    found = table.find(deployment(name, base_model))
    assert found is not None
    price = found.price(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
    assert price is not None
    assert (price.as_json()["input"], price.as_json()["output"], found.context_window) == (plain, made, window)
    assert price.version == table.table.version == f"{table.table.source} 0.2.3 {table.table.date}"


@pytest.mark.parametrize(
    ("name", "base_model", "row"),
    [
        ("azure/gpt-4o", "", "openai/gpt-4o"),
        ("azure/gpt-4o-eu", "", None),
        ("azure/GPT-4o", "", "openai/gpt-4o"),
        ("azure/prod", "gpt-4o-2024-08-06", "openai/gpt-4o"),
        ("azure/prod", "claude-3-5-sonnet-20241022", "anthropic/claude-3-5-sonnet"),
        ("azure/claude-3-5-sonnet-20241022", "", None),
        ("bedrock/eu.amazon.nova-pro-v1:0", "", "aws/amazon.nova-pro-v1:0"),
        ("bedrock/eu.amazon.nova-lite-v1:0", "", "aws/amazon.nova-lite-v1:0"),
        ("bedrock/arn:aws:bedrock:eu-central-1:1:application-inference-profile/x", "", None),
        ("openrouter/openai/gpt-4o", "", "openrouter/openai/gpt-4o"),
        ("huggingface/openai/gpt-oss-120b:novita", "", "huggingface_novita/openai/gpt-oss-120b"),
        ("huggingface/openai/gpt-oss-120b", "", None),
        ("vllm/gpt-4o", "", None),
        ("ollama/gpt-4o", "gpt-4o", None),
        ("openai/whisper-9", "", None),
        ("deepinfra/meta-llama/Llama-3.3-70B-Instruct-Turbo", "", "deepinfra/meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ],
)  # fmt: skip
def test_a_deployment_is_looked_up_by_what_it_is(name: str, base_model: str, row: str | None):
    found = PriceTable(None).find(deployment(name, base_model))
    assert (found and f"{found.provider}/{found.id}") == row


def test_a_provider_of_ones_own_is_priced_only_by_the_table_that_it_names():
    corp = {"corp": {"api_base": "https://corp.example/v1"}, "modal": {"api_base": "https://modal.example/v1"}}
    assert sought(deployment("corp/gpt-4o", providers=corp)) is None
    assert sought(deployment("modal/x", providers=corp)) is None
    assert sought(deployment("litellm/gpt-4o")) is None
    named = {"corp": {"api_base": "https://corp.example/v1", "prices": "openai"}, "openai": {"prices": ""}}
    assert PriceTable(None).find(deployment("corp/gpt-4o", providers=named)).id == "gpt-4o"
    assert sought(deployment("openai/gpt-4o", providers=named)) is None


def test_resolving_fills_the_price_of_the_moment_unless_the_configuration_sets_one(tmp_path: Path):
    models = {
        "a": {"model": "gpt-4o"},
        "b": {"model": "gpt-4o", "price": {"input": 1, "output": 0}},
        "c": {"model": "vllm/x"},
    }
    catalog = catalog_of({"models": models}, {}, Places(tmp_path, ()))
    versions = {
        name: catalog.resolve(name).deployments[0].price
        for name in ("a", "b", "c", "local", "groq/llama-3.3-70b-versatile")
    }
    assert [each and each.version.split(" ")[0] for each in versions.values()] == [
        "genai-prices",
        "config",
        None,
        "free",
        "genai-prices",
    ]
    assert catalog.groups["a"].deployments[0].price is None


class Autumn2024(SystemClock):
    def now(self) -> float:
        return AUTUMN_2024


@pytest.mark.parametrize("config", [{}, None], ids=["given", "from files"])
def test_a_call_is_priced_at_the_time_of_its_clock_by_the_model_that_answered(tmp_path: Path, config: dict | None):
    lines = b'{"provider":"openai","models":[{"id":"gpt-4o","price":[["","5 15"],["2024-10-02","2.5 10"]]}]}\n'
    (tmp_path / "prices.jsonl").write_bytes(
        NEWER + lines + b'{"provider":"groq","models":[{"id":"x","price":"9 9"}]}\n'
    )
    costs, environ = [], {"OPENAI_API_KEY": "k", "GROQ_API_KEY": "k", "LLMCTL_HOME": str(tmp_path)}
    for clock in (Autumn2024(), SystemClock()):
        transport = ScriptedTransport(Reply.refusal(503), Reply.stream("a", "b"))
        ledger = MemoryLedger()
        client = Client(config, environ=environ, transport=transport, clock=clock, ledger=ledger)
        client.complete("hi", model="groq/x", fallbacks=["gpt-4o"], retries=0)
        (row,) = ledger.rows.values()
        costs.append(row.cost_nanousd)
        assert (row.served_by, row.price_version) == ("openai/gpt-4o", "me 1 2099-01-01")
    assert costs == [7 * 5000 + 2 * 15000, 7 * 2500 + 2 * 10000]


def test_a_call_of_unknown_price_has_no_cost_and_no_version(tmp_path: Path):
    ledger = MemoryLedger()
    environ = {"LLMCTL_HOME": str(tmp_path)}
    Client({}, environ=environ, transport=ScriptedTransport(Reply.stream("a")), ledger=ledger).complete(
        "hi", model="vllm/x"
    )
    (row,) = ledger.rows.values()
    assert (row.cost_nanousd, row.price_version) == (None, None)


def own(path: Path, data: bytes) -> PriceTable:
    (file := path / "prices.jsonl").write_bytes(data)
    return PriceTable(file)


def test_the_users_own_table_is_used_unless_it_is_older(tmp_path: Path):
    mine = own(tmp_path, NEWER + ROW)
    assert (mine.find(deployment("gpt-4o")).price(0).as_json()["input"], mine.table.version, mine.warnings) == (
        7,
        "me 1 2099-01-01",
        [],
    )
    assert mine.find(deployment("groq/llama-3.3-70b-versatile")) is None
    same = own(tmp_path, NEWER.replace(b"2099-01-01", shipped().date.encode()) + ROW)
    assert same.find(deployment("gpt-4o")).price(0).as_json()["input"] == 7
    older = own(tmp_path, NEWER.replace(b"2099", b"2020") + ROW)
    assert (older.table.version, older.warnings) == (shipped().version, [])
    assert PriceTable(tmp_path / "none").table.version == shipped().version


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\n", b"hello", b"[]", b"null", b"\xff\xfe", b'{"format":2}', b'{"format":1}', b"[" * 100_000,
        b"x" * 5_000_000, NEWER.replace(b"2099-01-01", b"soon") + ROW, NEWER + ROW[:-20],
        NEWER + b'{"provider":"openai","models":7}\n',
        NEWER + ROW.replace(b"7 8", b"-7 8"), NEWER + ROW.replace(b'"7 8"', b'"\\u001b[31m"'),
        NEWER + ROW.replace(b'"price"', b'"match":"/(","price"'),
    ],
)  # fmt: skip
def test_a_damaged_table_of_the_users_own_is_left_aside_with_one_warning(data: bytes, tmp_path: Path):
    table = own(tmp_path, data)
    assert [table.find(deployment(name)).price(0).version for name in ("gpt-4o", "gpt-4o-mini")] == [
        shipped().version
    ] * 2
    assert len(table.warnings) == 1
    assert "prices.jsonl" in table.warnings[0]


def test_damage_that_is_found_late_takes_the_whole_table_out_of_use(tmp_path: Path):
    table = own(tmp_path, NEWER + ROW + b'{"provider":"groq","models":7}\n')
    versions = [table.find(deployment(name)).version for name in ("gpt-4o", "groq/llama-3.3-70b-versatile", "gpt-4o")]
    assert versions == ["me 1 2099-01-01", shipped().version, shipped().version]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_table_that_may_not_be_read_is_left_aside(tmp_path: Path):
    (tmp_path / "prices.jsonl").write_bytes(NEWER)
    (tmp_path / "prices.jsonl").chmod(0)
    assert len(PriceTable(tmp_path / "prices.jsonl").warnings) == 1


def test_a_price_is_found_without_genai_prices_pydantic_or_decimal(tmp_path: Path):
    code = """
import sys
from pathlib import Path
from llmctl.config.load import load_catalog
from llmctl.config.places import Places
price = load_catalog(Places(Path(sys.argv[1]), ()), {}).resolve("gpt-4o").deployments[0].price
assert price.version.startswith("genai-prices"), price
print({"genai_prices", "pydantic", "decimal"} & set(sys.modules))
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    for _ in range(2):  # the second time from the copy of the configuration that the first one kept
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout == "set()\n"

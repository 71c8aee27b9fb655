"""The price table made from the data of genai-prices (the installed package, or a file of theirs) and our own rows.

For `llmctl cost prices update` and for the table that llmctl ships; no call passes here. The form that comes out is
described in `core/prices`. What a call's usage does not tell apart is left out: audio, images, searches, processing.
"""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, date, datetime, time
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from llmctl.config.files import read
from llmctl.config.prices import FORMAT, OWN, STAYS, Table, checked
from llmctl.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

SOURCE = "genai-prices"
_MOST_DIGITS = 20
_KEYS = (
    "input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok", "requests_kcount",
)  # fmt: skip
_CLAUSES = {"equals": "=", "starts_with": "^", "ends_with": "$", "contains": "~", "regex": "/"}


def installed_table(day: str) -> str:
    """The text of the table of the installed genai-prices, as of `day`. Raises ImportError, ConfigInvalid."""
    from importlib.metadata import version

    from genai_prices.data import providers

    return table_of(map(_plain, providers), version(SOURCE), day)


def table_of(providers: Iterable[Mapping[str, Any]], version: str, day: str) -> str:
    """The text of a table of genai-prices' providers and our own rows. Raises ConfigInvalid for data of another shape.

    Where a provider has a row of ours and one of theirs for the same name, theirs is tried first.
    """
    lines: dict[str, dict[str, Any]] = {}
    try:
        for each in providers:
            line: dict[str, Any] = {"provider": each["id"]}
            if each.get("fallback_model_providers"):
                line["fallback"] = each["fallback_model_providers"]
            lines[each["id"]] = line | {"models": [_row(model) for model in each["models"]]}
        some = any(line["models"] for line in lines.values())
        for row in tomllib.loads(OWN.read_text("utf-8"))["model"]:
            provider = row.pop("provider")
            lines.setdefault(provider, {"provider": provider, "models": []})["models"].append(row)
        header = {"format": FORMAT, "source": SOURCE, "version": version, "date": day}
        texts = [json.dumps(line, ensure_ascii=False, separators=(",", ":")) for line in (header, *lines.values())]
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RecursionError) as error:
        what = f"no prices as {SOURCE} 0.2 has them: {error!r}"
        raise ConfigInvalid(what[:300], hint=STAYS) from error
    if not some:
        raise ConfigInvalid("there is no model in it", hint=STAYS)
    return checked("".join(f"{text}\n" for text in texts))


def differences(table: Table, other: Table) -> list[tuple[str, str, str, Any, Any]]:
    """(what, provider, model, ours, theirs) for each price that is not the same in both.

    `what` is "changed", "new" (in `other` only) or "gone".
    """
    ours, theirs = (
        {(line.provider, row["id"]): row for line in each.lines() for row in line.rows} for each in (table, other)
    )
    found = []
    for key in dict.fromkeys((*ours, *theirs)):
        mine, other_row = ours.get(key, {}), theirs.get(key, {})
        if mine.get("price") != other_row.get("price") or not mine or not other_row:
            what = "gone" if not other_row else "changed" if mine else "new"
            found.append((what, *key, mine.get("price"), other_row.get("price")))
    return found


def refuse_older(new: Table, current: Table) -> None:
    """Raises ConfigInvalid where `new` would not be used, or is of an earlier release of the same source."""
    releases = [[int(each) for each in table.release.split(".") if each.isdecimal()] for table in (new, current)]
    earlier = new.source == current.source and all(releases) and releases[0] < releases[1]
    if new.date < current.date or earlier:
        hint = "upgrade genai-prices, give a newer file, or write it elsewhere with --to FILE"
        raise ConfigInvalid(f"{new.version} is older than the table in use, {current.version}", hint=hint)


def table_in(file: Path, day: str) -> str:
    """The text of a table from a file: one of llmctl's as it is, or genai-prices' own JSON. Raises ConfigInvalid."""
    data = read(file)
    if data is None:
        raise ConfigInvalid(f"{file}: no such file", hint=STAYS)
    try:
        if not data.lstrip().startswith(b"["):
            return checked(data.decode("utf-8"), str(file))
        providers = json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{file}: not JSON, or not UTF-8", hint=STAYS) from error
    return table_of(providers, f"sha256:{sha256(data).hexdigest()[:8]}", day)


def _plain(value: Any) -> Any:
    """An object of the package as their JSON has it: a table of the attributes that are set."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not hasattr(value, "__dict__"):
        return value
    return {key.rstrip("_"): _plain(each) for key, each in vars(value).items() if each is not None}


def _row(model: Mapping[str, Any]) -> dict[str, Any]:
    match = _clause(model["match"])
    row: dict[str, Any] = {"id": model["id"]}
    if match != f"={model['id'].lower()}":
        row["match"] = match
    if model.get("context_window"):
        row["window"] = model["context_window"]
    if model.get("deprecated"):
        row["old"] = 1
    prices = model["prices"]
    if not isinstance(prices, list):
        price = "0 0" if not prices and model["id"].endswith(":free") else _price(prices)
        return row | ({"price": price} if price else {})
    return row | {"price": [[_when(each.get("constraint")), _price(each["prices"])] for each in prices]}


def _clause(clause: Mapping[str, Any]) -> Any:
    ((kind, value),) = clause.items()
    if kind == "or":
        return [_clause(each) for each in value]
    if kind == "and":
        return {"and": [_clause(each) for each in value]}
    return _CLAUSES[kind] + (value if kind == "regex" else value.lower())


def _when(constraint: Mapping[str, Any] | None) -> str:
    if constraint is None:
        return ""
    if "start_date" in constraint:
        return date.fromisoformat(str(constraint["start_date"])).isoformat()
    return "-".join(map(_utc, (constraint["start_time"], constraint["end_time"])))


def _utc(word: str | time) -> str:
    at = time.fromisoformat(str(word))
    moment = datetime.combine(date(1970, 1, 2), at, at.tzinfo or UTC).astimezone(UTC)
    return moment.strftime("%H:%M:%S" if moment.second else "%H:%M")


def _price(prices: Mapping[str, Any]) -> Any:
    """A price as `core/prices` reads it: each amount of theirs has tiers of its own, ours change together."""
    if prices.get("input_mtok") is None and prices.get("output_mtok") is None:
        return ""
    found = {key: prices[key] for key in _KEYS if prices.get(key) is not None}
    starts = sorted({tier["start"] for each in found.values() if isinstance(each, dict) for tier in each["tiers"]})
    base = _words(found, -1)
    return {"": base} | {str(start): _words(found, start) for start in starts} if starts else base


def _words(prices: Mapping[str, Any], start: int) -> str:
    words = list(_amounts(prices, start))
    while words[-1] == "-":
        words.pop()
    return " ".join(words)


def _amounts(prices: Mapping[str, Any], start: int) -> Iterator[str]:
    for key in _KEYS:
        amount = prices.get(key, 0 if key in _KEYS[:2] else None)
        if isinstance(amount, dict):
            reached = [
                tier for tier in sorted(amount["tiers"], key=lambda tier: tier["start"]) if tier["start"] <= start
            ]
            amount = reached[-1]["price"] if reached else amount["base"]
        if amount is None:
            yield "-"
        elif not isinstance(amount, (int, Decimal)):
            raise TypeError(f"{key} is no number")
        else:
            yield _written(Decimal(amount) / 1000 if key == "requests_kcount" else Decimal(amount))


def _written(amount: Decimal) -> str:
    if abs(amount.adjusted()) > _MOST_DIGITS:  # 1E+999999999, which would be written out
        raise ValueError("no amount")
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

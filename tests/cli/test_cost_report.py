"""`llmctl cost report`: every amount against SQL of its own, the look to the cell, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from llmctl.cli.cost import app
from llmctl.cli.money_table import bar, count, decimals, fold, money, seconds, short, sparkline
from llmctl.core.record import Attempt, CallRecord, ulid
from llmctl.store.ledger import SqliteLedger

from .drawn import Desk

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0
NOW = 1_793_880_000.0  # 2026-11-05T12:00:00Z
HOSTILE = "\x1b[2J\u202e[bold]=cmd\n|"
MODELS = {
    "groq/llama-3.3-70b-versatile": ("fast", 590),
    "anthropic/claude-3-5-sonnet-20241022": ("smart", 3_000_000),
    "corp/big": ("smart", None),
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(app, tmp_path / "home", monkeypatch)


def write(desk: Desk, *records: CallRecord | tuple[CallRecord, Attempt]) -> None:
    """Calls, some with the one attempt of theirs that matters."""
    ledger = SqliteLedger(desk.home / "ledger.db", desk.home / "spool")
    for each in records:
        record, *attempts = each if isinstance(each, tuple) else (each,)
        if record.state == "started":
            ledger.begin_now(record, None)
        else:
            ledger.complete_now(record, attempts, None)
    ledger.close()
    assert not ledger.warnings


def call(n: int, at: float, model: str = "groq/llama-3.3-70b-versatile", **what: Any) -> CallRecord:
    group, price = MODELS.get(model, ("other", 1_000))
    known: dict[str, Any] = {
        "state": "ok", "served_by": model, "provider": model.partition("/")[0], "deployment": f"{group}-1",
        "input_tokens": 100, "output_tokens": 20, "cost_nanousd": None if price is None else price * n,
        "latency_ms": 1000.0, "first_token_ms": 200.0,
    }  # fmt: skip
    return CallRecord(ulid(at, n), at, "ask", group, **(known | what))


@pytest.fixture
def filled(desk: Desk) -> Desk:
    """200 calls of 40 days in every state, with everything that a report tells apart."""
    dice, calls = random.Random(6), []
    for n in range(1, 201):
        state = dice.choice(("ok",) * 6 + ("failed", "incomplete", "cancelled", "cached", "refused", "started"))
        told: dict[str, Any] = {"state": state, "drill": n % 17 == 0, "fallback": n % 5 == 0}
        if n % 3:
            told["tags"] = {"team": dice.choice(("web", "ops", HOSTILE)), "run": str(n % 2)}
        told |= {"session": "night"} if n % 4 == 0 else {}
        if state in ("started", "refused"):
            told |= dict.fromkeys(
                ("served_by", "provider", "deployment", "input_tokens", "output_tokens", "cost_nanousd")
            )
        record = call(n, NOW - dice.random() * 40 * DAY, dice.choice(list(MODELS)), **told)
        if state == "cached":
            record = replace(record, cost_nanousd=0, saved_nanousd=7 * n)
        failed = Attempt(1, "d", "p", "m", "primary", "RateLimited", record.started_at, cost_nanousd=n)
        calls.append((record, failed) if state == "failed" else record)
    write(desk, *calls)
    return desk


def document(desk: Desk, *words: str) -> dict[str, Any]:
    done = desk.run("report", "--timezone", "UTC", *words, "--json")
    assert (done.code, done.err) == (0, "")
    return dict(json.loads(done.out))


# ---------------------------------------------------------------- the numbers

KEYS = {
    "day": "date(started_at, 'unixepoch')",
    "month": "strftime('%Y-%m', started_at, 'unixepoch')",
    "week": "week(started_at)",
    "model": "served_by",
    "provider": "provider",
    "group": "model",
    "deployment": "deployment",
    "session": "session",
    "tag:team": "(SELECT value FROM tags WHERE call_id = id AND key = 'team')",
}
AMOUNTS = {
    "calls": "count(*)",
    "ok": "sum(state = 'ok')",
    "failed": "sum(state = 'failed')",
    "cache_hits": "sum(state = 'cached')",
    "interrupted": "sum(state = 'started')",
    "fallbacks": "sum(fallback)",
    "input_tokens": "sum(coalesce(input_tokens, 0))",
    "unpriced_calls": "sum(cost_nanousd IS NULL AND (input_tokens IS NOT NULL OR state IN ('ok', 'incomplete')))",
    "cost_nanousd": "iif(count(cost_nanousd) = 0 AND count(input_tokens) > 0, NULL, sum(coalesce(cost_nanousd, 0)))",
    "wasted": "sum(coalesce((SELECT sum(cost_nanousd) FROM attempts WHERE call_id = id AND outcome <> 'ok'), 0))",
    "saved": "sum(saved_nanousd)",
    "fallback_cost": "sum(iif(fallback, coalesce(cost_nanousd, 0), 0))",
}


def counted(desk: Desk, keys: list[str], where: str) -> dict[tuple[Any, ...], list[Any]]:
    """The amounts of each key, by a plain query over all rows."""
    with closing(sqlite3.connect(desk.home / "ledger.db")) as ledger:
        ledger.create_function("week", 1, lambda at: "{}-W{:02}".format(*datetime.fromtimestamp(at, UTC).isocalendar()))
        group = f"GROUP BY {', '.join(map(str, range(1, len(keys) + 1)))}" if keys else ""
        sql = f"SELECT {', '.join([*map(KEYS.get, keys), *AMOUNTS.values()])} FROM calls WHERE {where} {group}"
        return {row[: len(keys)]: list(row[len(keys) :]) for row in ledger.execute(sql)}


def told(row: dict[str, Any]) -> list[Any]:
    """The same amounts of a row of the document."""
    saved = round(row["saved_by_cache_usd"] * 1e9) + round(row["saved_by_routing_usd"] * 1e9)
    amounts = {"saved": saved, **{name: round(row[f"{name}_usd"] * 1e9) for name in ("wasted", "fallback_cost")}}
    return [(row | amounts)[name] for name in AMOUNTS]


CHOICES = [
    ((), "drill = 0"),
    (("--drills",), "1"),
    (("--since", "2026-10-12T03:07", "--until", "2026-10-30"), "started_at >= 1791774420 AND started_at < 1793318400"),
    (("--model", "fast"), "model = 'fast'"),
    (("--model", "corp/big"), "served_by = 'corp/big'"),
    (("--session", "night"), "session = 'night'"),
    (("--tag", "team=web"), "id IN (SELECT call_id FROM tags WHERE key = 'team' AND value = 'web')"),
    (("--tag", "team=web", "--tag", "run=1"), "2 = (SELECT sum(value IN ('web', '1')) FROM tags WHERE call_id = id)"),
]


@pytest.mark.parametrize(("words", "where"), CHOICES, ids=[" ".join(words) or "all" for words, _ in CHOICES])
def test_every_amount_is_that_of_a_plain_query_to_the_nano_dollar(filled, words, where):
    where = where if "--drills" in words else f"{where} AND drill = 0"
    for keys in (["model"], ["day"], ["week", "provider"], ["month", "deployment"], ["group", "session"], ["tag:team"]):
        found = document(filled, *words, *(word for key in keys for word in ("--by", key)))
        rows = {tuple(row["key"].values()): told(row) for row in found["rows"]}
        assert rows == counted(filled, keys, where)
        assert rows
        assert [told(found["total"])] == list(counted(filled, [], where).values())
        cost = found["total"]["cost_nanousd"]
        assert found["total"]["cost_usd"] == (None if cost is None else cost / 1e9)


def test_percentiles_are_within_a_twentieth_and_exact_when_asked(desk):
    write(desk, *(call(n, NOW, latency_ms=7.0 * n, first_token_ms=3.0 * n) for n in range(1, 101)))
    exact = {"p50_ms": 350.0, "p95_ms": 665.0, "first_token_p50_ms": 150.0, "first_token_p95_ms": 285.0}
    assert exact.items() <= document(desk, "--exact")["total"].items()
    near = document(desk)["total"]
    assert {key: near[key] for key in exact} == pytest.approx(exact, rel=0.05)


def test_days_and_dates_are_those_of_the_zone(desk):
    write(desk, call(1, NOW - DAY / 2 - 60), call(2, NOW - DAY / 2 + 60))  # about midnight in UTC
    assert [row["key"]["day"] for row in document(desk, "--by", "day")["rows"]] == ["2026-11-04", "2026-11-05"]
    tokyo = ("--timezone", "Asia/Tokyo", "--by", "day")
    assert [row["key"]["day"] for row in document(desk, *tokyo)["rows"]] == ["2026-11-05"]
    assert document(desk, *tokyo, "--since", "2026-11-05T09:00")["total"]["calls"] == 1
    assert document(desk, *tokyo, "--since", "2026-11-05")["total"]["calls"] == 2


# ---------------------------------------------------------------- the look


def screenful(desk: Desk) -> Desk:
    """A month as it might be: a dear model, a cheap one, one without a price, and every line below the table."""
    cut = Attempt(1, "d", "p", "m", "primary", "StreamTruncated", NOW, cost_nanousd=31_860)
    write(
        desk,
        (call(54, NOW + 1, state="failed"), cut),
        *(call(n, NOW - n * DAY, "anthropic/claude-3-5-sonnet-20241022", latency_ms=2500.0) for n in range(1, 29)),
        *(call(100 + n, NOW - n * DAY, fallback=n % 9 == 0) for n in range(1, 20)),
        call(50, NOW, "corp/big", output_tokens=1_234_567, latency_ms=100_123.0),
        call(51, NOW, state="cached", cost_nanousd=0, saved_nanousd=12_340_000),
        call(52, NOW, state="cancelled"),
        call(53, NOW, state="refused", served_by=None, input_tokens=None, cost_nanousd=None),
        call(54, NOW, state="incomplete", tokens_estimated=True),
        call(55, NOW, state="started", served_by=None, input_tokens=None, cost_nanousd=None),
    )
    return desk


AT_80 = """\
█▇▇▇▇▆▆▆▆▆▅▅▅▅▅▄▄▄▄▃▃▃▃▃▂▂▂▂▂  from 2026-10-08; most on 2026-10-08: $0.084

model                    calls    in   out      cost           p50    p95  first
────────────────────────────────────────────────────────────────────────────────
anthropic/claude-3-5-       28  2.8k   560   $1.2180  ━━━━━  2.52s  2.52s  0.19s
sonnet-20241022
groq/llama-3.3-70b-         23  2.3k   460   $0.0013  ╸      0.97s  0.97s  0.19s
versatile
corp/big                     1   100  1.2M         ?          104s   104s  0.19s
-                            2     0    40   $0.0000             -      -      -
────────────────────────────────────────────────────────────────────────────────
total                       54  5.2k  1.2M  ≥$1.2193         2.52s  2.52s  0.19s

failed          1             without an answer; their cost is in the total
incomplete      1             broke off; what came was paid
cancelled       1             what came until then was paid
refused         1             nothing was sent
fallback        2  $0.000134  against $1.22 of the other 52
saved by cache  1  $0.012340  nobody was asked
wasted             $0.000032  by attempts that failed or were cancelled
estimated       1             their tokens, since the provider told none
interrupted     1             killed: what they cost is not known
unpriced        1             corp/big: set `price`, or `cost prices update`"""


def test_the_report_on_a_terminal_of_80_columns_to_the_cell(desk):
    shown = screenful(desk).run("report", "--timezone", "UTC", columns=80)
    assert shown.screen == AT_80
    assert shown.width == 80


@pytest.mark.parametrize("columns", [1, 20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(filled, columns):
    for by in (["model"], ["day", "model"], ["tag:team", "session", "week", "deployment"]):
        shown = filled.run("report", *(word for key in by for word in ("--by", key)), columns=columns)
        assert shown.width <= columns or columns == 1
        assert columns == 1 or "total"[: columns - 12] in shown.screen


def test_the_keys_of_the_row_above_are_not_said_again(filled):
    shown = filled.run("report", "--by", "month", "--by", "provider", columns=80).screen
    assert shown.count("2026-10  ") == 1


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_without_colour_there_is_no_escape_byte_and_the_same_text(filled, environ):
    plain = filled.run("report", columns=80, **environ)
    assert "\x1b" not in plain.out
    assert plain.screen == filled.run("report", columns=80).screen
    assert "\x1b" in filled.run("report", columns=80).out


def test_a_terminal_that_may_have_no_blocks_gets_none(filled):
    shown = filled.run("report", columns=80, encoding="iso-8859-1").screen
    assert not set(shown) & set("▁▂▃▄▅▆▇█━╸")
    assert "#####" in shown


def test_hostile_and_wide_values_drive_no_terminal_and_stay_aligned(desk):
    teams = (HOSTILE, "研究開発部門の長い名前のチームです" * 3, "x" * 500)
    write(desk, *(call(n, NOW, tags={"team": team}) for n, team in enumerate(teams, 1)))
    shown = desk.run("report", "--by", "tag:team", columns=80)
    assert shown.width <= 80
    assert "\x1b[2J" not in shown.out
    wide = desk.run("report", "--by", "tag:team", columns=200)
    assert "\\x1b[2J\\u202e[bold]=cmd |  " in wide.screen
    assert len({cell_len(line[: line.rindex("s")]) for line in wide.screen.splitlines() if line.endswith("0.19s")}) == 1
    piped = desk.run("report", "--by", "tag:team").out
    assert "\\x1b[2J\\u202e[bold]=cmd |\t1\t" in piped
    assert "\x1b" not in piped


def test_in_a_pipe_there_are_two_tables_with_tabs_and_amounts_in_full(desk):
    write(desk, call(1, NOW), call(2, NOW, "corp/big"))
    assert desk.run("report").out == (
        "model\tcalls\tok\tfailed\tfallbacks\tcache_hits\tinput_tokens\toutput_tokens\tcost_usd\tunpriced_calls"
        "\tp50_ms\tp95_ms\tfirst_token_p50_ms\n"
        "groq/llama-3.3-70b-versatile\t1\t1\t0\t0\t0\t100\t20\t0.00000059\t0\t{0}\t{0}\t{1}\n"
        "corp/big\t1\t1\t0\t0\t0\t100\t20\t-\t1\t{0}\t{0}\t{1}\n"
        "\nwhat\tcalls\tcost_usd\tnote\n"
        "total\t2\t0.00000059\t-\n"
        "unpriced\t1\t-\tcorp/big: set `price`, or `cost prices update`\n"
    ).format(*(f"{document(desk)['total'][key]:g}" for key in ("p50_ms", "first_token_p50_ms")))


@pytest.mark.parametrize("how", [(), ("--fail-over", "5")], ids=str)
def test_nobody_is_no_model_of_unknown_price(desk, how):
    write(desk, call(1, NOW, "corp/big", served_by=None))
    shown = desk.run("report", *how)
    assert "None" not in shown.out + shown.err


def test_a_fallback_of_unknown_price_is_no_fallback_for_nothing(desk):
    write(desk, call(1, NOW, "corp/big", fallback=True))
    assert "fallback\t1\t-\tevery call\n" in desk.run("report").out


def test_an_empty_ledger_is_an_empty_report(desk):
    assert document(desk)["rows"] == []
    assert document(desk)["total"]["calls"] == 0
    assert desk.run("report", columns=80).out == "no such calls in the ledger\n"
    assert desk.run("report").out.count("\n") == 4
    assert desk.run("report", "--csv").out.count("\r\n") == 1
    assert desk.run("report", "--fail-over", "0").code == 0
    assert not desk.home.exists()


def test_csv_is_the_document_with_the_keys_as_columns(filled):
    text = filled.run("report", "--by", "tag:team", "--by", "model", "--csv").out
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    rows = document(filled, "--by", "tag:team", "--by", "model")["rows"]
    assert header == ["tag:team", "model", *(key for key in rows[0] if key != "key")]
    for line, row in zip(lines, rows, strict=True):
        cells = dict(zip(header, line, strict=True))
        assert cells["model"] == (row["key"]["model"] or "")
        assert cells["cost_nanousd"] == ("" if row["cost_nanousd"] is None else str(row["cost_nanousd"]))
        assert not row["cost_usd"] or round(float(cells["cost_usd"]) * 1e9) == row["cost_nanousd"]
        assert "e" not in cells["cost_usd"]


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_value_that_a_spreadsheet_would_run_is_text_in_csv(desk, value):
    write(desk, call(1, NOW, tags={"team": value}))
    _, line = csv.reader(io.StringIO(desk.run("report", "--by", "tag:team", "--csv").out))
    assert line[0] == "'" + value
    assert document(desk, "--by", "tag:team")["rows"][0]["key"] == {"tag:team": value}


# ---------------------------------------------------------------- --fail-over, and what is refused


@pytest.mark.parametrize("how", [(), ("--json",), ("--csv",)], ids=str)
def test_a_total_above_the_limit_is_told_after_the_report_and_exits_100(desk, how):
    write(desk, call(1, NOW, cost_nanousd=1_000_000_001))
    how = (*how, "--until", "2026-11-06")
    over = desk.run("report", "--fail-over", "1", *how)
    assert over.code == 100
    assert over.err == ("llmctl: $1.00 is over --fail-over $1.00 by $0.000000001\n" if "--json" not in how else "")
    under = desk.run("report", "--fail-over", "1.000000001", *how)
    assert (under.code, under.err, under.out) == (0, "", over.out)


def test_what_nobody_priced_is_told_beside_the_limit(desk):
    write(desk, call(1, NOW, "corp/big"), call(2, NOW))
    hidden = "1 call of unknown price is not in it (corp/big)"
    assert desk.run("report", "--fail-over", "1").err.endswith(f"but {hidden}\n")
    assert desk.run("report", "--fail-over", "0").err.endswith(f"; {hidden}\n")
    assert desk.run("report", "--fail-over", "1", "--json").err == ""  # the document counts it


REFUSED = {
    "--by modle": "did you mean --by model?",
    "--by tag": "did you mean --by tag:KEY?",
    "--by tag:": "did you mean --by tag:KEY?",
    "--by nonsense": "one of: day, week, month, model, provider, group, deployment, session, tag:KEY",
    "--since soon": "write how long ago",
    "--until 2026-13-01": "write how long ago",
    "--since 2026-11-02 --until 2026-11-02": "swap them",
    "--timezone Middle/Earth": "IANA name",
    "--tag team": "for instance --tag team=web",
    "--fail-over -1": "USD, such as",
    "--fail-over nan": "USD, such as",
    "--json --csv": "give one of them",
}


@pytest.mark.parametrize(("words", "hint"), REFUSED.items(), ids=REFUSED)
def test_what_means_nothing_is_refused_with_a_way_out(desk, words, hint):
    error = desk.refused("report", *words.split())
    assert error.exit_code == 2
    assert hint in error.hint


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("nanousd", "words"),
    [(None, "-"), (0, "$0.00"), (1, "$0.000000001"), (34_100, "$0.0000341"), (999, "$0.000000999"),
     (12_345_678, "$0.0123"), (100_000_000, "$0.10"), (999_499_999, "$0.999"), (999_500_000, "$1.00"),
     (12_340_000_000, "$12.34"), (1_234_567_890_000, "$1,234.57")],
)  # fmt: skip
def test_money_is_told_in_as_many_digits_as_it_needs(nanousd, words):
    assert money(nanousd) == words


@given(st.lists(st.none() | st.integers(0, 10**15), max_size=9))
def test_amounts_of_one_column_have_their_digits_below_each_other_and_none_vanishes(amounts):
    places = decimals(amounts)
    for amount in amounts:
        words = money(amount, decimals=places)
        if amount is None:
            continue
        assert len(words.partition(".")[2]) == places
        shown = round(float(words.lstrip("<$").replace(",", "")) * 1e9)
        assert bool(shown) == bool(amount)
        assert 0 < amount < shown if words[0] == "<" else abs(shown - amount) * 2 <= 10 ** (9 - places)


@pytest.mark.parametrize(
    ("amounts", "places"),
    [([], 2), ([None, 0], 2), ([10**7], 2), ([1_334_000, 1_220_400_000], 4), ([6_500_000], 4), ([1], 9),
     ([34_100, 99_999], 7), ([1, 10**12], 3), ([5_000_000, 10**12], 3)],
)  # fmt: skip
def test_a_column_has_no_more_decimals_than_it_needs(amounts, places):
    assert decimals(amounts) == places


def test_a_known_part_too_small_to_be_seen_is_at_least_nothing(desk):
    least = [call(2, NOW, "a/b", cost_nanousd=1), call(3, NOW, "a/b", cost_nanousd=None)]
    write(desk, call(1, NOW, cost_nanousd=4 * 10**9), *least)
    shown = desk.run("report", columns=80).screen
    assert " $4.000000 " in shown
    assert " ≥$0.000000 " in shown


@given(st.integers(0, 10**15))
def test_money_that_is_told_is_never_further_off_than_a_two_hundredth(nanousd):
    said = round(float(money(nanousd)[1:].replace(",", "")) * 1e9)
    assert abs(said - nanousd) <= max(nanousd / 200, 0)


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9949, "9.9k"), (9950, "10k"), (999_499, "999k"), (999_500, "1.0M"),
     (1_234_567_890_123, "1T"), (None, "-")],
)  # fmt: skip
def test_a_great_number_is_short(number, words):
    assert short(number) == words


def test_a_number_of_calls_is_whole_as_long_as_it_is_short():
    assert [count(number) for number in (0, 99_999, 100_000)] == ["0", "99,999", "100k"]


@given(st.floats(0, 99_000_000))
def test_a_time_is_told_in_six_characters(ms):
    assert len(seconds(ms)) <= 7
    assert float(seconds(ms)[:-1].replace(",", "")) * 1000 == pytest.approx(ms, abs=5, rel=0.02)


@given(st.floats(0, 1), st.integers(1, 60), st.booleans())
def test_a_bar_is_as_long_as_its_share(share, width, plain):
    drawn = bar(share, width, plain=plain)
    assert len(drawn) <= width
    assert abs(len(drawn) - share * width) <= 1
    assert bool(drawn) == (share > 0)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.integers(1, 60))
def test_a_sparkline_fits_and_only_nothing_is_on_the_ground(values, width):
    drawn = sparkline(values, width)
    assert 1 <= len(drawn) <= width
    if len(values) <= width:
        assert [char == "▁" for char in drawn] == [not value for value in values]
        assert not any(values) or "█" in drawn


@given(st.text(st.characters(exclude_categories=["C", "M", "Z"])), st.integers(2, 40))
def test_folded_text_fits_and_nothing_of_it_is_lost_before_the_cut(text, width):
    lines = fold(text, width).split("\n")
    assert all(cell_len(line) <= width for line in lines)
    assert text.startswith("".join(lines).removesuffix("…")) or "…" in text

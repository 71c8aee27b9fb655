"""What of the wire fixtures we send, read and classify right: every provider and SDK generation x what can be asked.

    python benchmarks/wire_table.py [--json]
    LLMCTL_WIRE_FIXTURES=DIR python benchmarks/wire_table.py

Right means equal to the official SDK's bytes (but for the differences that `tests/wire/differences.py` states) and to
the expected reading or error class. A cell is right/all. A fixture of several kinds counts in each of its cells, and
once in the totals; a reply is read whole and byte by byte. The judge is that of `pytest tests/wire`. Exit code 1 when
anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the judge lives in tests/wire

from tests.wire import judge
from tests.wire.fixtures import FOLDER, Case, bytewise, cases, read, why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLUMNS = ("text", "stream", "tools", "schema", "images", "documents", "errors", "embeddings", "signatures", "other")
WIDTH = 160


def kinds_of_request(case: Case) -> Iterator[str]:
    """The columns that a request belongs to."""
    asked = case.data["canonical"]
    parts = [p for m in asked.get("messages", ()) if isinstance(m["content"], list) for p in m["content"]]
    found = {
        "embeddings": "input" in asked,
        "other": "op" in asked or "api" in asked,
        "stream": asked.get("stream"),
        "tools": asked.get("tools") or any(m.get("tool_calls") for m in asked.get("messages", ())),
        "schema": asked.get("response_format"),
        "images": any(part["type"].startswith("image") for part in parts),
        "documents": any(part["type"] == "document" for part in parts),
    }
    yield from [name for name, there in found.items() if there] or ["text"]


def kinds_of_reply(case: Case) -> Iterator[str]:
    """The columns that a reply belongs to."""
    yield "stream" if case.data["stream"] else "text"
    if (case.data.get("expected") or {}).get("tool_calls"):
        yield "tools"
    if case.data.get("expected_error"):
        yield "errors"


def wrong_reply(case: Case) -> list[str]:
    """What is wrong with our reading of a reply, whole and byte by byte."""
    if case.data["delivery"].startswith("connection cut"):
        got, error = read(case.decoder(), bytewise(case.body), to_end=False)
        text = (case.data.get("expected") or {"text": ""})["text"]
        fine = error is None and got.finish_reason is None and got.text == text
        return [] if fine else [f"cut: {got.text!r}, finish {got.finish_reason}, {error!r}"]
    whole = judge.reply_problems(case, *read(case.decoder(), [case.body]))
    pieces = judge.reply_problems(case, *read(case.decoder(), bytewise(case.body)))
    return whole or [f"byte by byte: {problem}" for problem in pieces]


def problems_of(judged: Callable[[Case], list[str]], case: Case) -> list[str]:
    """What `judged` finds; a crash is a finding too."""
    try:
        return judged(case)
    except Exception as error:  # noqa: BLE001 - one broken fixture must not hide the others
        return [f"raised {type(error).__name__}: {error}"]


def judged() -> Iterator[tuple[str, Case, list[str], list[str]]]:
    """(kind, fixture, its columns, what is wrong with it); a signature is judged apart from its request."""
    for case in cases("requests"):
        if not why_not(case):
            yield "requests", case, list(kinds_of_request(case)), problems_of(judge.request_problems, case)
        if "sigv4" in case.data:
            yield "signatures", case, ["signatures"], problems_of(judge.signature_problems, case)
    for case in cases("responses"):
        yield "replies", case, list(kinds_of_reply(case)), problems_of(wrong_reply, case)
    for case in cases("errors"):
        yield "errors", case, ["errors"], problems_of(judge.refusal_problems, case)


def left_out() -> dict[str, int]:
    """Why fixtures are not judged, and how many."""
    spoken = {case.id for kind in ("requests", "responses", "errors") for case in cases(kind)}
    reasons: defaultdict[str, int] = defaultdict(int)
    for entry in json.loads((FOLDER / "index.json").read_text()):
        if entry["id"] not in spoken:
            reasons[f"{entry['provider']}: a protocol that no wire of ours speaks"] += 1
    for case in cases("requests"):
        if why := why_not(case):
            reasons[f"{case.id}: {why}"] += 1
    return dict(reasons)


def show(cells: dict[str, dict[str, list[int]]], totals: dict[str, list[int]], wrong: list[str]) -> None:
    """Print the table, the totals, what is wrong, and what was not judged."""
    print(f"fixtures: {FOLDER.name} ({sum(total for _, total in totals.values())} judged)\n")
    print(f"{'provider':<14}" + "".join(f"{column:>12}" for column in COLUMNS))
    for name in sorted(cells):
        row = (cells[name].get(column) for column in COLUMNS)
        print(f"{name:<14}" + "".join(f"{f'{cell[0]}/{cell[1]}' if cell else '-':>12}" for cell in row))
    shares = (f"{kind} {right}/{total} ({right / total:.1%})" for kind, (right, total) in totals.items())
    print("\n" + ", ".join(shares))
    for line in wrong:
        print(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…")
    for why, n in left_out().items():
        print(f"not judged: {why}" + (f" ({n})" if n > 1 else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    options = parser.parse_args()
    cells: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong: list[str] = []
    for kind, case, columns, problems in judged():
        counts = [totals[kind], *(cells[case.id.split("/")[1]][column] for column in columns)]
        for count in counts:
            count[0] += not problems
            count[1] += 1
        if problems:
            wrong.append(f"wrong: {case.id} ({kind}): {'; '.join(problems)}")
    if options.json:
        document: dict[str, Any] = {"cells": cells, "totals": totals, "wrong": wrong, "not_judged": left_out()}
        print(json.dumps(document, indent=2))
    else:
        show(cells, totals, wrong)
    return 1 if wrong or not totals else 0


if __name__ == "__main__":
    sys.exit(main())

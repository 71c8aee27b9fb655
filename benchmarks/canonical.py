"""Which wordings share an answer by the canonical text, and which prompts the screen keeps out, beside naive peers.

    PYTHONPATH=. python benchmarks/canonical.py [DIRECTORY]

DIRECTORY holds labelled pairs, `{"a", "b", "y"}` a line (y = 1: one answer fits both), as *.jsonl, and prompts,
`{"t", "cacheable"}`, as *policy.jsonl. Goals included. Every wrong hit of ours is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.core.canonical import canonical
from llmctl.core.screen import screen

ROOT = Path(__file__).parents[1]
OWN = ROOT / "tests" / "core" / "data" / "prompts.jsonl"
Form = Callable[[str], str | None]
FIRST = {"1b": "2 and 3", "2": "18 and 3", "3": "29 and 2", "4": "15 and 0"}
"""What each round of our own prompts got before anybody had looked at it: the honest measure of the tables."""
DEEDS = """confirm_reservation cancel_reservation schedule_meeting meeting_schedule play_music next_song w2 income order
card_declined expiration_date transfer smart_home application_status travel_notification tire_pressure last_maintenance
oil_change_when how_busy gas next_holiday"""
FACTS = """travel_suggestion international_visa meal_suggestion meaning_of_life reset_settings who_made_you
are_you_a_bot"""
"""Intents of stream_clinc150, other people's words to an assistant, that nothing was tuned on."""
LOG = "review this diff\n\n" + "today it was my turn -\n" * 4_500
COLD = """
import time
import llmctl.core
began = time.process_time_ns()
from llmctl.core.canonical import canonical
from llmctl.core.screen import screen
screen("Could you please tell me how to sort a list in Python?")
canonical("Could you please tell me how to sort a list in Python?")
print(time.process_time_ns() - began)
"""


def stripped(text: str) -> str:
    return text.strip().lower()


def folded(text: str) -> str:
    """Return what most do: NFKC, casefold, one space for whatever is no letter or digit."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(each if each.isalnum() else " " for each in plain).split())


PEERS: dict[str, Form] = {"ours": canonical, "lower + strip": stripped, "fold + collapse": folded}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def same(form: Form, row: dict[str, Any]) -> bool:
    """Whether two wordings have one form; equal texts are the exact tier's, and count for every form."""
    one = form(row["a"])
    return row["a"] == row["b"] or (one is not None and one == form(row["b"]))


def pairs(paths: list[Path]) -> list[dict[str, Any]]:
    """Print hits and wrong hits of each file; return the wrong ones of ours."""
    print(
        f"{'pairs':16} {'should':>7} {'must not':>9}  " + "  ".join(f"{name + ': hits, wrong':>30}" for name in PEERS)
    )
    wrong: list[dict[str, Any]] = []
    for path in paths:
        rows = rows_of(path)
        should, must_not = [row for row in rows if row["y"]], [row for row in rows if not row["y"]]
        cells = []
        for name, form in PEERS.items():
            hits, bad = sum(same(form, row) for row in should), [row for row in must_not if same(form, row)]
            cells.append(f"{hits:6} {hits / max(1, len(should)):6.1%} {len(bad):5}")
            wrong += bad if name == "ours" else []
        print(f"{path.stem:16} {len(should):7} {len(must_not):9}  " + "  ".join(f"{cell:>30}" for cell in cells))
    return wrong


def policy(path: Path) -> None:
    """Print what is served and refused, of our own by the rounds they were written in; none is unseen any more."""
    rows = rows_of(path)
    for name in ["all", *dict.fromkeys(row["part"] for row in rows if "part" in row)]:
        part = [row for row in rows if name in ("all", row.get("part"))]
        unsafe, safe = ([row["t"] for row in part if row["cacheable"] == each] for each in (0, 1))
        served, refused = sum(not screen(text) for text in unsafe), sum(bool(screen(text)) for text in safe)
        share = refused / max(1, len(safe))
        sight = f"; at first sight {FIRST[name]}" if name in FIRST else ""
        counts = f"served {served:3} of {len(unsafe):3} unsafe, refused {refused:2} of {len(safe):3} safe"
        print(f"{path.stem:10} {name:>3} {counts} ({share:.1%}){sight}")


def assistant(path: Path) -> None:
    deeds, facts = ([row["t"] for row in rows_of(path) if row["g"] in names.split()] for names in (DEEDS, FACTS))
    served, refused = sum(not screen(text) for text in deeds), sum(bool(screen(text)) for text in facts)
    print(f"{'clinc150':10}  -  served {served:3} of {len(deeds):3} deeds, refused {refused:2} of {len(facts):3} facts")


def microseconds(work: Callable[[str], object], texts: list[str]) -> float:
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for text in texts:
            work(text)
        best = min(best, time.process_time() - began)
    return best / len(texts) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT.parent / "shared" / "data" / "semcache" / "dev")
    found = sorted(parser.parse_args().directory.glob("*.jsonl"))
    labelled = [path for path in found if not path.stem.startswith("stream") and "policy" not in path.stem]
    if not labelled:
        raise SystemExit("no labelled pairs there")
    wrong = pairs(labelled)
    print(f"\nGoals: nothing wrong, 35 % of the everyday pairs (own_pairs). Wrong hits of ours: {len(wrong)}")
    for row in wrong:
        print(f"  {row['a']!r} | {row['b']!r}")
    print("\nGoals: no unsafe prompt served, at most 5 % of the safe refused.")
    for path in [*(path for path in found if "policy" in path.stem), OWN]:
        policy(path)
    for path in (path for path in found if path.stem == "stream_clinc150"):
        assistant(path)
    texts = [row["a"] for path in labelled for row in rows_of(path)[:200]]
    works: dict[str, Callable[[str], object]] = {"canonical": canonical, "screen": screen, "fold + collapse": folded}
    cells = [f"{name} {microseconds(work, texts):.1f}" for name, work in works.items()]
    print(f"\nmicroseconds a prompt: {', '.join(cells)}; screen of 100 kB {microseconds(screen, [LOG]):.0f}")
    cold = sorted(cold_ns() for _ in range(15))[:-1]  # the first may have compiled them
    print(f"cold: import of both and first use {statistics.median(cold) / 1e6:.2f} ms CPU (goal 2 ms)")


def cold_ns() -> int:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return int(subprocess.run([sys.executable, "-c", COLD], check=True, capture_output=True, env=kept).stdout)


if __name__ == "__main__":
    main()

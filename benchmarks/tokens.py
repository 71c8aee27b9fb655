"""How far the offline token estimate is off, and how fast it is, beside characters / 4 and (if installed) rs-bpe.

    PYTHONPATH=. python benchmarks/tokens.py [FILE ...]

The frozen samples of the tests carry their true counts, so the first table needs nothing. With `pip install rs-bpe` the
errors on larger texts follow: package descriptions and the standard library found beside this interpreter, random
base64 and hex, and every FILE given.
"""

import argparse
import base64
import importlib.util
import json
import random
import sysconfig
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from types import ModuleType

from llmctl.core.tokens import estimate

PIECE = 400
"""Characters in a piece: about one chat prompt."""
DOCUMENT = 20_000
"""Characters of each document that are used, so that no single file decides."""
RUNS = (
    *("a", "A", "0", "é", "ạ", "я", "中", "😀", "-", "(", " ", "\n", "\u200d", "\ud800", "\x00"),
    *("A1b", "0f", " é", "1 "),
)
Count = Callable[[str], int]


def chars_over_4(text: str) -> int:
    return max(1, len(text) // 4)


COUNTERS: tuple[Count, ...] = (estimate, chars_over_4)


def real_tokenizer() -> Count | None:
    if importlib.util.find_spec("rs_bpe") is None:
        return None
    bpe = importlib.import_module("rs_bpe.bpe")
    count: Count = bpe.openai.o200k_base().count
    return count


def samples() -> ModuleType:
    # The tests own the frozen texts and their counts.
    path = Path(__file__).parents[1] / "tests" / "core" / "test_tokens.py"
    spec = importlib.util.spec_from_file_location("token_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def corpora(files: Iterable[Path]) -> dict[str, list[str]]:
    rng = random.Random(20_260_101)
    about = [package.metadata.json for package in metadata.distributions()]
    # A licence in capitals is in every tokenizer's vocabulary word for word: it says nothing about other JSON.
    fields = [{key: value for key, value in one.items() if key not in {"description", "license"}} for one in about]
    source = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    noise = [rng.randbytes(size) for size in (60, 300, 1_500, 6_000)] * 5
    texts = {
        "prose": [str(one.get("description", "")) for one in about],
        "python": [path.read_text(encoding="utf-8", errors="replace") for path in source],
        "json": [json.dumps(one, indent=2) for one in fields],
        "compact json": [json.dumps(one, separators=(",", ":")) for one in fields],
        "base64": [base64.b64encode(data).decode() for data in noise],
        "hex": [data.hex() for data in noise],
    }
    for path in files:
        texts[path.name] = [path.read_text(encoding="utf-8", errors="replace")]
    cut = {name: [text[:DOCUMENT] for text in group if len(text) >= PIECE // 4] for name, group in texts.items()}
    return {name: group for name, group in cut.items() if group}


def errors(count: Count, true: Count, texts: list[str]) -> str:
    """Return median and 95th percentile of the relative error, and the bias of the sum, in percent."""
    relative = [abs(count(text) / true(text) - 1) * 100 for text in texts]
    worst = quantiles(relative, n=20)[-1] if len(relative) > 1 else relative[0]
    bias = (sum(map(count, texts)) / sum(map(true, texts)) - 1) * 100
    return f"{median(relative):5.1f} {worst:6.1f} {bias:+6.1f}"


def megabytes_per_s(count: Count, text: str) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        count(text)
        best = min(best, time.perf_counter() - start)
    return len(text.encode("utf-8", "surrogatepass")) / best / 1e6


def one_run(unit: str) -> float:
    text = unit * (1_000_000 // len(unit))
    start = time.perf_counter()
    estimate(text)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="texts of your own to measure")
    texts = corpora(parser.parse_args().files)
    true = real_tokenizer()

    print(f"{'sample':18} {'true':>5} {'ours':>12} {'chars/4':>12}")
    for sample in samples().SAMPLES:
        counts = [count(sample.text) for count in COUNTERS]
        cells = [f"{n:5} {(n / sample.tokens - 1) * 100:+5.0f}%" for n in counts]
        print(f"{sample.name:18} {sample.tokens:5} {' '.join(cells)}")

    if true is None:
        print("\nErrors on larger texts: `pip install rs-bpe` first.")
    else:
        print(f"\n{'median, p95, bias %':18} {'n':>6} {'ours':>20} {'chars/4':>20}")
        for name, group in texts.items():
            pieces = [text[i : i + PIECE] for text in group for i in range(0, len(text) - PIECE // 2, PIECE)]
            for kind, some in (("pieces", pieces), ("whole", group)):
                cells = [errors(count, true, some) for count in COUNTERS]
                print(f"{name[:11]:11} {kind:6} {len(some):6} {' '.join(cells)}")

    print(f"\n{'MB/s':18} {'ours':>8}" + (f" {'rs-bpe':>8}" if true else ""))
    for name, group in texts.items():
        joined = "\n\n".join(group)[:1_000_000]
        speeds = [megabytes_per_s(count, joined) for count in (estimate, true) if count]
        print(f"{name[:18]:18} {' '.join(f'{speed:8.1f}' for speed in speeds)}")

    print("\nSlowest runs of a million characters")
    slowest = sorted(((one_run(unit), unit) for unit in RUNS), reverse=True)
    print("  ".join(f"{unit!a} {seconds:.2f} s" for seconds, unit in slowest[:6]))


if __name__ == "__main__":
    main()

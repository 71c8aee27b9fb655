"""CPU microseconds per streamed event: our decoder and fold, beside the least that anybody must do.

    python benchmarks/decode.py [--events 20000] [--rounds 7]

The floor splits the body into lines and parses each with `json.loads`, as one does by hand behind httpx; no socket on
either side. "apart": every event is a chunk of its own, as from a real provider; "burst": 16 KiB chunks. The goal for
the whole path is 40 us an event (`benchmarks/stream.py` measures that); this is the part of it that is the wire's.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from typing import TYPE_CHECKING, Any

from llmctl.core.types import Fold, Request
from llmctl.wire.openai_reading import decoder as make_decoder

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = {"id": "chatcmpl-0123456789", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "bench"}
TEXTS = {"ascii": "word ", "emoji": "w\u00f6rd \U0001f600 "}
BURST = 16 << 10


def sse(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + json.dumps({**HEAD, "system_fingerprint": "fp_0", "choices": [choice]}).encode() + b"\n\n"


def bodies(events: int) -> dict[str, list[bytes]]:
    """The streams to read, each as a list of events."""
    end = [sse({}, "stop"), b"data: [DONE]\n\n"]
    found = {name: [sse({"content": text})] * events + end for name, text in TEXTS.items()}
    fragment = {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]}
    found["tool call"] = [sse(fragment)] * events + end
    return found


def floor(chunks: list[bytes]) -> int:
    """Lines and JSON by hand: the text, joined."""
    rest, pieces = b"", list[str]()
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line != b"data: [DONE]":
                delta = json.loads(line[6:])["choices"][0]["delta"]
                pieces.append(delta.get("content") or "")
    return len("".join(pieces))


def ours(chunks: list[bytes]) -> int:
    """The decoder, every event folded."""
    decoder, fold = make_decoder(Request(()), 200, {}), Fold()
    for chunk in chunks:
        for event in decoder.feed(chunk):
            fold.add(event)
    for event in decoder.end():
        fold.add(event)
    return len(fold.completion().text)


def best_us(work: Callable[[list[bytes]], int], chunks: list[bytes], events: int, rounds: int) -> float:
    """The best of several rounds, as CPU microseconds an event."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        work(chunks)
        times.append(time.process_time() - began)
    return min(times) / events * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"CPython {platform.python_version()}, {args.events} events, best of {args.rounds}; CPU us per event")
    print(f"{'stream':<12}{'arrival':<10}{'by hand':>9}{'llmctl':>9}{'more':>9}")
    for name, rows in bodies(args.events).items():
        whole = b"".join(rows)
        burst = [whole[i : i + BURST] for i in range(0, len(whole), BURST)]
        for arrival, chunks in (("apart", rows), ("burst", burst)):
            assert floor(chunks) == ours(chunks)
            hand, own = (best_us(work, chunks, args.events, args.rounds) for work in (floor, ours))
            print(f"{name:<12}{arrival:<10}{hand:>9.2f}{own:>9.2f}{own - hand:>9.2f}")


if __name__ == "__main__":
    main()

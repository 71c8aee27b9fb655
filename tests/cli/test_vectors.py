"""How vectors are written: the shortest numbers that give the same 32 bits back, and NumPy's file without NumPy."""

from __future__ import annotations

import ast
import json
from array import array
from typing import TYPE_CHECKING, Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.cli.vectors import WRITERS, Target, shortest
from llmctl.run.embedding import Embeddings

if TYPE_CHECKING:
    from pathlib import Path

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), max_size=20)


@given(numbers=FLOATS)
@example(numbers=[0.1, -0.0, 1.1754944e-38, 3.4028235e38, 16777216.0, 16307490.0, 100000.0, 0.000993684])
def test_numbers_are_the_shortest_that_give_the_same_32_bits_back(numbers):
    vector = array("f", numbers)
    texts = shortest(vector)
    assert array("f", [float(text) for text in texts]) == vector
    assert [json.loads(text) for text in texts] == [float(text) for text in texts]
    for number, text in zip(vector, texts, strict=True):
        digits = len(text.partition("e")[0].lstrip("-").replace(".", "").strip("0"))
        fewer = [f"{number:.{n}g}" for n in range(1, digits)]
        assert not [short for short in fewer if array("f", [float(short)])[0] == number]


def test_the_smallest_numbers_come_back_too():
    tiny = array("f", [1e-45, -1e-40, 0.0])
    assert array("f", map(float, shortest(tiny))) == tiny


def written(shape: str, path: Path, *batches: list[tuple[Any, list[float]]]) -> bytes:
    with Target(str(path), cast("Any", None)) as target:
        writer = WRITERS[shape](target)
        for batch in batches:
            writer.add([(key, array("f", numbers)) for key, numbers in batch])
        writer.end(Embeddings((), "m"))
    return path.read_bytes()


def test_a_numpy_file_has_the_header_of_its_format(tmp_path):
    data = written("npy", tmp_path / "x", [(0, [1.0, 2.0])], [(1, [3.0, 4.0]), (2, [5.0, 6.0])])
    assert data[:8] == b"\x93NUMPY\x01\x00"
    size = int.from_bytes(data[8:10], "little")
    assert (10 + size) % 64 == 0
    header = data[10 : 10 + size]
    assert header.endswith(b" \n")
    assert ast.literal_eval(header.decode()) == {"descr": "<f4", "fortran_order": False, "shape": (3, 2)}
    numbers = array("f", data[10 + size :])
    assert list(numbers) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_a_numpy_file_that_was_not_finished_is_no_numpy_file(tmp_path):
    with Target(str(tmp_path / "x"), cast("Any", None)) as target:
        WRITERS["npy"](target).add([(0, array("f", [1.0]))])
    assert (tmp_path / "x").read_bytes()[:6] == bytes(6)


def test_ids_that_are_no_utf8_are_still_json(tmp_path):
    data = written("jsonl", tmp_path / "x", [("a\udcff\n", [1.0])])
    assert json.loads(data) == {"id": "a\udcff\n", "vector": [1]}

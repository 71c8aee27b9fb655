"""Making text safe, writing bytes whatever the locale, tables, and the error as JSON."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.cli.output import Out, error_json, one_line, print_json, safe, table, tell, write
from llmctl.core.errors import OutputFailed, RateLimited

from .conftest import needs_dev_full


class Stream(io.TextIOWrapper):
    """A stdout of a given encoding over bytes."""

    def __init__(self, encoding: str = "ascii") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    @property
    def written(self) -> bytes:
        return self.buffer.getvalue()  # type: ignore[attr-defined]


@given(st.text())
def test_safe_text_has_no_control_and_no_direction_override(text):
    shown = safe(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\t\n"]
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"])))
def test_text_without_controls_is_left_as_it_is(text):
    assert safe(text) == text


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_within_its_limit(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line.splitlines() in ([], [line]) or "\u2028" in line or "\u2029" in line


@given(st.text())
def test_every_text_is_written_as_utf_8_whatever_the_encoding(text):
    write(text, out := Stream("ascii"))
    assert out.written.decode("utf-8") == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def test_lone_surrogates_are_replaced_and_the_rest_stays():
    write("a\ud83db", out := Stream())
    assert out.written == "a\ufffdb".encode()


def test_a_json_document_is_readable_and_utf_8(monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := Stream("latin-1"))
    print_json({"text": "żółć 😀\ud800"})
    assert json.loads(out.written) == {"text": "żółć 😀\ufffd"}


@needs_dev_full
def test_a_stdout_that_is_full_is_our_error_and_is_left_alone_afterwards(monkeypatch):
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, encoding="utf-8", write_through=True))
        out = Out()
        with pytest.raises(OutputFailed, match="stdout cannot be written: No space left on device"):
            out.write("hello")
        out.end_line()


def test_without_a_stdout_there_is_no_out(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputFailed, match="stdout is closed"):
        Out()
    with pytest.raises(OutputFailed, match="stdout is closed"):
        write("x")
    with pytest.raises(OutputFailed, match="stdout is closed"):
        table(("a",), [])


def test_without_a_stderr_nothing_is_told_and_nothing_fails(monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", None)
    tell("unheard")
    assert capfd.readouterr() == ("", "")


def test_a_table_off_a_terminal_is_tab_separated_with_safe_cells(capfd):
    table(("a", "b"), [{"a": "x\ty\n\x1b[1m", "b": None}, {"a": 0, "b": ""}])
    assert capfd.readouterr().out == "a\tb\nx y \\x1b[1m\t-\n0\t-\n"


def test_a_table_on_a_terminal_shows_markup_literally(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys, "stdout", out := Stream("utf-8"))
    monkeypatch.setattr(out, "isatty", lambda: True)
    table(("name", "n"), [{"name": "[bold]x[/bold]", "n": 1}], right=("n",))
    out.flush()
    assert "[bold]x[/bold]" in out.written.decode()


def test_an_error_is_one_ascii_line_of_json():
    error = RateLimited("slow\ndown ż", hint="", status=429, retry_after_s=1.5)
    line = error_json(error)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["error"] | {"attempts": 0} == {
        "type": "RateLimited",
        "message": "slow\ndown ż",
        "hint": error.hint,
        "provider": None,
        "model": None,
        "status": 429,
        "retry_after": 1.5,
        "partial_text": None,
        "attempts": 0,
    }


@pytest.mark.parametrize(("columns", "header"), [(80, "id note ms"), (30, "id ms"), (20, "id ms")])
def test_a_narrow_terminal_loses_spare_columns_and_never_a_part_of_what_is_kept(monkeypatch, columns, header):
    monkeypatch.setattr(sys, "stdout", out := Stream("utf-8"))
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    row = {"id": "01K0ABCD", "note": "n" * 30, "ms": 12345}
    table(("id", "note", "ms"), [row], right=("ms",), keep=("id",), spare=("note",))
    out.flush()
    first, *_, last = re.sub(r"\x1b\[[\d;]*m", "", out.written.decode()).strip().split("\n")
    assert first.split() == header.split()
    assert last.split()[0] == "01K0ABCD"
    assert last.split()[-1] == "12345"

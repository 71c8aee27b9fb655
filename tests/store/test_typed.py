"""What was typed: private, bounded, and never an error."""

from __future__ import annotations

import os
import stat

from hypothesis import given
from hypothesis import strategies as st

from llmctl.store import typed


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5))
def test_texts_come_back_as_they_were(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "new" / "history"
    for text in texts:
        typed.add(path, text)
    assert typed.load(path) == texts
    if texts:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_line_is_passed_over_and_a_paste_is_not_kept(tmp_path):
    path = tmp_path / "history"
    typed.add(path, "one")
    path.write_bytes(path.read_bytes() + b'{"not": "text"}\n\xff\n[[[\n')
    typed.add(path, "x" * (typed.LONGEST + 1))
    typed.add(path, "two")
    assert typed.load(path) == ["one", "two"]


def test_the_file_is_bounded(tmp_path):
    path = tmp_path / "history"
    path.write_bytes(b'"a"\n' * (2 * typed.MOST) + b'"b"\n')
    assert typed.load(path)[-2:] == ["a", "b"]
    assert len(path.read_bytes().splitlines()) == typed.MOST


def test_what_cannot_be_read_or_written_is_no_error(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    typed.add(tmp_path / "link", "text")
    assert not (tmp_path / "elsewhere").exists()
    typed.add(tmp_path / "link" / "below", "text")
    assert typed.load(tmp_path) == []


def test_what_is_no_file_holds_nothing_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "history")
    assert typed.load(tmp_path / "history") == []
    typed.add(tmp_path / "history", "one")

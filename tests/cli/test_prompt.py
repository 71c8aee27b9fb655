"""How files, the argument and stdin become one message, byte for byte; and what is no text."""

from __future__ import annotations

import fcntl
import os
import termios

import pytest
from servers import FaultServer

from llmctl.cli.prompt import MAX_INPUT, _announce_silence, as_text, compose
from llmctl.core.errors import UsageError

# words of `ask`, stdin (None: /dev/null) -> the message
COMPOSED = {
    "prompt": (["hi"], None, "hi"),
    "prompt and empty stdin": (["hi"], b"", "hi"),
    "stdin alone": ([], b"piped\n", "piped\n"),
    "prompt and stdin": (["hi"], b"piped\n", "hi\n\npiped\n"),
    "stdin as it is": (["hi"], b"\n\n  a\r\nb\t\n\n", "hi\n\n\n\n  a\r\nb\t\n\n"),
    "file alone": (["-f", "a.txt"], None, "--- a.txt ---\nalpha\n\n"),
    "file and prompt": (["-f", "a.txt", "hi"], None, "--- a.txt ---\nalpha\n\nhi"),
    "file without a newline": (["-f", "b.txt", "hi"], None, "--- b.txt ---\nbeta\n\nhi"),
    "two files": (["-f", "a.txt", "--file=b.txt", "hi"], None, "--- a.txt ---\nalpha\n\n--- b.txt ---\nbeta\n\nhi"),
    "file, prompt, stdin": (["hi", "-f", "a.txt"], b"piped", "--- a.txt ---\nalpha\n\nhi\n\npiped"),
    "stdin as a file": (["-f", "-", "hi"], b"piped\n", "--- stdin ---\npiped\n\nhi"),
    "stdin between files": (["-f", "a.txt", "-f", "-"], b"p", "--- a.txt ---\nalpha\n\n--- stdin ---\np\n\n"),
    "no stdin": (["hi", "--no-stdin"], b"piped\n", "hi"),
    "no stdin with a file": (["-f", "a.txt", "--no-stdin"], b"piped\n", "--- a.txt ---\nalpha\n\n"),
    "byte order mark": (["-f", "bom.txt"], b"\xef\xbb\xbfpiped", "--- bom.txt ---\nmarked\n\npiped"),
    "empty file": (["-f", "empty.txt", "hi"], None, "--- empty.txt ---\n\n\nhi"),
    "a dash is a prompt": (["--", "-"], None, "-"),
    "an option is a prompt": (["--", "--json"], None, "--json"),
}
FILES = {"a.txt": b"alpha\n", "b.txt": b"beta", "bom.txt": b"\xef\xbb\xbfmarked\n", "empty.txt": b""}


@pytest.fixture(scope="module")
def server():
    with FaultServer("ok") as running:
        yield running


@pytest.mark.parametrize(("words", "stdin", "message"), COMPOSED.values(), ids=COMPOSED.keys())
def test_the_message_is_composed_byte_for_byte(cli, server, words, stdin, message):
    for name, data in FILES.items():
        (cli.root / name).write_bytes(data)
    done = cli.to(server).ask(*words, stdin=stdin)
    assert (done.code, done.err) == (0, "")
    assert server.requests[-1].json["messages"] == [{"role": "user", "content": message}]
    assert cli.calls()[0]["prompt"] == message


@pytest.mark.parametrize("redirect", ["<&-", "</dev/null", "</dev/zero --no-stdin"])
def test_a_stdin_that_says_nothing_is_no_part_of_the_prompt(cli, server, redirect):
    done = cli.to(server).shell(f"llmctl ask -m openai/m hi {redirect}")
    assert (done.code, done.err) == (0, "")
    assert server.requests[-1].json["messages"][0]["content"] == "hi"


def test_a_pipe_that_stays_open_does_not_matter_with_no_stdin(cli, server):
    reader, writer = os.pipe()
    try:
        process = cli.to(server).start("ask", "-m", "openai/m", "hi", "--no-stdin", stdin=reader)
        out, err = process.communicate(timeout=60)
    finally:
        os.close(reader)
        os.close(writer)
    assert (process.returncode, out, err) == (0, b"t0 t1 t2 t3 t4 \n", b"")


REFUSED = {
    "empty prompt": ([""], None, "the prompt is empty"),
    "blank prompt": ([" \n\t"], b"", "the prompt is empty"),
    "empty stdin": ([], b"", "the prompt is empty"),
    "blank stdin": ([], b" \n", "the prompt is empty"),
    "nothing but empty files": (["-f", "empty.txt", "-f", "-"], b"", "the prompt is empty"),
    "binary stdin": (["hi"], b"\x7fELF\x00\x01", "stdin is binary, not text"),
    "invalid UTF-8": (["hi"], "caf\u00e9".encode("latin-1"), "stdin is not valid UTF-8 (byte 3)"),
    "binary file": (["-f", "bin"], None, "--file bin is binary, not text"),
    "invalid file": (["-f", "latin"], None, "--file latin is not valid UTF-8 (byte 3)"),
    "missing file": (["-f", "gone\x1b[2J.txt"], None, r"--file gone\x1b[2J.txt: No such file or directory"),
    "a directory": (["-f", "."], None, "--file .: not a regular file"),
    "a pipe that nobody writes": (["-f", "fifo"], None, "--file fifo: not a regular file"),
    "stdin twice": (["-f", "-", "-f", "-"], b"x", "--file - was given twice"),
    "stdin and no stdin": (["-f", "-", "--no-stdin"], b"x", "--file - and --no-stdin exclude each other"),
}


@pytest.mark.parametrize(("words", "stdin", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_text_is_refused_before_anything_is_sent(cli, server, words, stdin, message):
    (cli.root / "empty.txt").touch()
    (cli.root / "bin").write_bytes(b"a\x00b")
    (cli.root / "latin").write_bytes(b"caf\xe9")
    os.mkfifo(cli.root / "fifo")
    before = len(server.requests)
    assert cli.to(server).ask(*words, stdin=stdin).refused(2) == message
    assert len(server.requests) == before
    assert not (cli.home / "ledger.db").exists()


def test_an_argument_that_is_no_utf_8_is_refused_and_not_changed(cli, server):
    done = cli.to(server).shell("llmctl ask -m openai/m $'caf\\xe9'")
    assert done.refused(2) == "the prompt is not valid UTF-8 (byte 3)"
    assert cli.shell("llmctl ask -m openai/m hi -s $'\\xff'").refused(2).startswith("--system is not valid UTF-8")
    assert cli.shell("llmctl ask -m openai/m hi --tag a=$'\\xff'").refused(2).startswith("--tag is not valid UTF-8")


@pytest.mark.parametrize("how", ["stdin", "file"])
def test_more_than_the_cap_is_refused_without_reading_it_all(cli, server, how):
    size = 50 << 20
    with open(cli.root / "big", "wb") as file:
        file.truncate(size)  # holes: it takes no room, and reads as zeros
    words = "<big" if how == "stdin" else "-f big"
    assert cli.to(server).shell(f"llmctl ask -m openai/m {words}").refused(2).endswith("is over 16 MiB")


def test_fifty_megabytes_through_a_pipe_are_refused_and_the_writer_is_not_kept(cli, server):
    done = cli.to(server).shell("head -c 52428800 /dev/zero | tr '\\0' a | llmctl ask -m openai/m")
    assert done.refused(2) == "stdin is over 16 MiB"


def test_a_large_prompt_within_the_cap_arrives_whole(cli, server):
    text = "zażółć " * 150_000
    assert cli.to(server).ask(stdin=text.encode()).code == 0
    assert server.requests[-1].json["messages"][0]["content"] == text


def test_no_prompt_and_a_terminal_is_short_help(cli):
    primary, secondary = os.openpty()
    process = cli.start("ask", stdin=secondary)
    out, err = process.communicate(timeout=60)
    os.close(primary)
    os.close(secondary)
    assert (process.returncode, out) == (2, b"")
    assert err.startswith(b"Usage: llmctl ask")
    assert err.count(b"\n") < 15


@pytest.mark.parametrize(("words", "code"), [(["--no-stdin"], 2), (["--no-stdin", "--json"], 2)])
def test_no_prompt_and_no_stdin_is_short_help_or_one_json_line(cli, words, code):
    done = cli.run("ask", *words, stdin=b"left alone")
    assert (done.code, done.out) == (code, b"")
    assert done.err.startswith('{"error": ' if "--json" in words else "Usage: llmctl ask")


def test_a_file_just_over_the_cap_is_refused_and_one_just_under_is_not(tmp_path):
    (file := tmp_path / "f").write_bytes(b"a" * MAX_INPUT)
    assert len(compose(None, [str(file)], use_stdin=False).text) == len(f"--- {file} ---\n") + MAX_INPUT + 2
    with file.open("ab") as more:
        more.write(b"a")
    with pytest.raises(UsageError, match="over 16 MiB"):
        compose(None, [str(file)], use_stdin=False)


def test_the_output_of_a_command_can_be_a_file(cli, server):
    done = cli.to(server).shell("llmctl ask -m openai/m -f <(printf 'made\\n') hi")
    assert (done.code, done.err) == (0, "")
    name, text = server.requests[-1].json["messages"][0]["content"].split("\n", 1)
    assert name.startswith("--- /dev/fd/")
    assert text == "made\n\nhi"


def test_a_stdin_that_does_not_block_is_read_to_its_end(cli, server):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    process = cli.to(server).start("ask", "-m", "openai/m", stdin=reader)
    with open(writer, "wb", buffering=0) as pipe:
        for _ in range(5):
            pipe.write(b"x" * 10_000)
            while fcntl.ioctl(reader, termios.FIONREAD, bytes(4)) != bytes(4) and process.poll() is None:
                pass  # until it was taken, so that the next read finds the pipe empty
    os.close(reader)
    assert process.communicate(timeout=60) == (b"t0 t1 t2 t3 t4 \n", b"")
    assert len(server.requests[-1].json["messages"][0]["content"]) == 50_000


def test_a_stdin_that_cannot_be_read_is_refused(cli, server):
    done = cli.to(server).shell("llmctl ask -m openai/m hi 0>written")
    assert done.refused(2) == "stdin: Bad file descriptor"


def test_a_file_name_cannot_forge_a_block(tmp_path):
    (file := tmp_path / "a ---\n--- b").write_text("x")
    assert compose(None, [str(file)], use_stdin=False).text.count("\n") == 3


def test_text_that_the_locale_could_not_decode_is_decoded_as_utf_8():
    assert as_text("za\udcc5\udcbc", "here") == "zaż"
    with pytest.raises(UsageError, match="here is not valid UTF-8"):
        as_text("\udcff", "here")
    assert as_text("\ud800", "here") == "\ud800"


def test_a_silent_pipe_is_announced_on_a_terminal_only(monkeypatch, capfd):
    reader, writer = os.pipe()
    with open(reader, "rb") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        _announce_silence(0.0)
        assert capfd.readouterr().err == ""
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        _announce_silence(0.0)
        assert capfd.readouterr().err == "llmctl: reading stdin until it ends (--no-stdin leaves it alone)\n"
        os.write(writer, b"x")
        _announce_silence(0.0)
        assert capfd.readouterr().err == ""
    os.close(writer)

"""Markdown that streams onto a terminal, and the code block that `--extract` takes out of an answer."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.cli.markdown import Markdown
from llmctl.cli.marks import REACH, code_block
from llmctl.cli.output import safe

SGR = re.compile(r"\x1b\[([\d;]*)m")
NAMES = {"0": "/", "1": "b", "2": "dim", "3": "i", "4": "u", "9": "s", "36": "code"}
MARKS = str.maketrans("", "", "*_`~#>[]()!\\-+•│─ \t")
"""What a mark is made of, and what is put in its place."""
PIECES = ["*", "**", "***", "_", "__", "`", "``", "```", "````", "~~", "~~~", "#", "## ", "> ", ">", "- ", "* ", "1. ",
          "12", "[", "](", ")", "(", "!", "\\", "|", "|-", "---", "\n", "\n\n", "\n```\n", " ", "    ", "\t", "a", "b1",
          "x y", "e\u0301", "字", "👩\u200d👧", "\r\n", "\r", "\x1b[31m", "\x9b", "\u202e", '"', "."]  # fmt: skip
texts = st.lists(st.sampled_from([*PIECES, "-" * REACH, "word " * 60]), max_size=25).map("".join)


def drawn(*pieces: str) -> str:
    markdown = Markdown()
    return "".join(map(markdown.feed, pieces)) + markdown.end()


def seen(text: str) -> str:
    """What `text` looks like, with the names of styles: `**x**` is `<b>x</>`."""
    return SGR.sub(lambda found: f"<{' '.join(NAMES[code] for code in found[1].split(';'))}>", drawn(text))


@given(texts, st.lists(st.integers(0, 400), max_size=6))
@example("a\r\nb\r", [2])
@example("**x**" + "`" * 300, [])
@example("```py\n" + "`" * 300 + "\n```\n", [])
def test_however_a_text_is_cut_it_is_drawn_the_same_and_styles_end_with_their_line(text, cuts):
    whole = drawn(text)
    ends = sorted(min(cut, len(text)) for cut in cuts)
    assert drawn(*text) == whole
    assert drawn(*(text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True))) == whole
    for line in whole.split("\n"):
        assert SGR.findall(line)[-1:] in ([], ["0"])


@given(texts | st.text())
@example("[a](b) ![c](d) \\*e\\*")
def test_all_that_is_no_mark_is_drawn_in_order_and_no_control_but_our_own(text):
    bare = SGR.sub("", drawn(text))
    assert bare.translate(MARKS) == safe(text.replace("\r\n", "\n")).translate(MARKS)
    assert bare == safe(bare)


@pytest.mark.parametrize(
    "text",
    [
        "a 字 e\u0301 👩\u200d👧\u2028, x_y_z 2*3*4 2**3**4 f(*args, **kw) * b *",
        "\tc | d ~5 $x^*$ $y^*$ &amp; C:\\dir \\[1\\]\n",
        "word " * 500,
        "__init__.py and __a_b__",
        "glob *.py, *.md src/*/a and src/*/b **/*.c, **/*.h",
        "select count(*) from a, count(*) b",
        "\\mathbf{x}_{i} + \\mathbf{y}_{j} |x|_{2} + |y|_{1} (a)*(b)*(c)",
        "f[0](x) and [1] [see] (this) [x",
        ">>> print(1)\n>>>> x",
        "**never closed\n\nand *this neither",
        "`never closed\n\n``",
        "** not this ** nor * this * nor ~~ this ~~",
        "#hashtag\n####### seven\n-5\n1.5\n12345678901. x",
        "~/home and ~one~",
        "---- not a rule\n=====\n",
        "    indented **code** `x`\n\n    # more",
        "| a | b |\n| c | d |",
        "***a** b*",
        "`" + "x" * REACH + "`",
        "**" + "x" * REACH + "**",
    ],
)
def test_what_is_not_surely_markdown_stays_as_it_is(text):
    assert drawn(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# One\n## 2 *x* 2\n#### 4 `y`\nz", "<b u>One</>\n<b>2 </><b i>x</><b> 2</>\n<b i>4 </><b i code>y</>\nz"),
        ("**b** *i* _i_ ***bi*** `c` __B b__", "<b>b</> <i>i</> <i>i</> <b i>bi</> <code>c</> <b>B b</>"),
        ("~~so~~ ~~*so*~~", "<s>~~so~~</> <s>~~</><s i>so</><s>~~</>"),
        ("**a *b* c** *d **e***", "<b>a </><b i>b</><b> c</> <i>d </><i b>e</>"),
        ("**A**cme **.env** (**x**), **b**!", "<b>A</>cme <b>.env</> (<b>x</>), <b>b</>!"),
        ("这是**粗体**文字 **“引用”**的 **단어**는", "这是<b>粗体</>文字 <b>“引用”</>的 <b>단어</>는"),
        ("**code `**` in it**", "<b>code </><b code>**</><b> in it</>"),
        ("`` a ` b `` ` `", "<code>a ` b</> <code> </>"),
        ("over **two\nlines** and `a\nb`", "over <b>two</>\n<b>lines</> and <code>a</>\n<code>b</>"),
        ("[a *b*](http://x/y_(z)) ![p](q)", "<u>a </><u i>b</> (<dim>http://x/y_(z)</>) <u>p</> (<dim>q</>)"),
        ("[http://x](http://x)", "<u>http://x</>"),
        ('[a](b "T")', '<u>a</> (<dim>b "T"</>)'),
        ("\\*a\\* \\_b\\_ \\`c\\` \\# \\\\d", "*a* _b_ `c` # \\\\d"),
        ("- a\n  * b\n\n    + **c**\n1. d\n2) - e\n- [ ] f", "• a\n  • b\n\n    • <b>c</>\n1. d\n2) • e\n• [ ] f"),
        ("> a *b*\n> > c\nd", "<dim>│ </>a <i>b</>\n<dim>│ </><dim>│ </>c\nd"),
        ("a\n\n---\n* * *\n___", "a\n\n" + "\n".join(["<dim>────────────────</>"] * 3)),
        ("| a |\n|:-:|\n| `b` |", "| a |\n<dim>|:-:|</>\n| <code>b</> |"),
        ("```py\n*a* # b\n\n ```\nc", "<dim>```py</>\n*a* # b\n\n<dim> ```</>\nc"),
        ("````\n```\nx\n```\n````\n*y*", "<dim>````</>\n```\nx\n```\n<dim>````</>\n<i>y</>"),
        ("~~~\n```\n~~~", "<dim>~~~</>\n```\n<dim>~~~</>"),
        ("1. a\n   ```\n   b\n   ```\n   *c*", "1. a\n   <dim>```</>\n   b\n<dim>   ```</>\n   <i>c</>"),
        ("> ```\n> *b*\nc *d*", "<dim>│ </><dim>```</>\n<dim>│ </>*b*\nc <i>d</>"),
        ("```\nnever closed *x*", "<dim>```</>\nnever closed *x*"),
        ("```inline```", "<code>inline</>"),
        ("# open `head", "<b u>open `head</>"),
        ("*a*\r\n# b\r\n", "<i>a</>\n<b u>b</>\n"),
        ("*\x1b[2Ja*\r", "<i>\\x1b[2Ja</>\\x0d"),
    ],
)  # fmt: skip
def test_markdown_is_drawn(text, shown):
    assert seen(text) == shown


def test_only_what_may_become_a_mark_is_held_back():
    markdown = Markdown()
    steps = [("plain, ", "plain, "), ("*", ""), ("it", ""), ("*", ""), (" so", "\x1b[3mit\x1b[0m so"),
             ("\n", "\n"), ("12", ""), (" apples\n", "12 apples\n"), ("*x " + "y" * REACH,) * 2]  # fmt: skip
    for text, shown in steps:
        assert markdown.feed(text) == shown, text
    assert markdown.end() == ""


def test_after_the_end_another_text_begins():
    markdown = Markdown()
    assert markdown.feed("```\n# a *") + markdown.end() == "\x1b[2m```\x1b[0m\n# a *"
    assert markdown.feed("# a") + markdown.end() == "\x1b[1;4ma\x1b[0m"


@pytest.mark.parametrize("text", ["_(" * 200, "`x *y " * 80, "*a **b _c " * 50, "[" * 400, "`a ``b " * 60])
def test_twice_as_many_hostile_marks_cost_twice_as_much(text):
    assert _calls(text * 2) < 3 * _calls(text)


def _calls(text: str) -> int:
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        drawn(*text)
    finally:
        sys.setprofile(None)
    return calls


def test_nothing_of_rich_is_needed():
    code = "import sys, llmctl.cli.markdown; print([m for m in ('rich', 'typer', 'unicodedata') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------- extract


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("no block, `code` only", None),
        ("so:\n```py\na = '*'\n\n```\nand\n```\nb\n```", "a = '*'\n\n"),
        ("````md\n```\nx\n```\n````", "```\nx\n```\n"),
        ("~~~\nx\r\n~~~\r\n", "x\r\n"),
        ("```\nnever closed", "never closed"),
        ("```\n```", ""),
        ("1. so:\n   ```sh\n   ls\n     -l\n  x\n   ```", "ls\n  -l\nx\n"),
        ("- ```\n  a\n  ```\nb", "a\n"),
        ("> ```\n> a\n>  b\n> ```", "a\n b\n"),
        ("> ```\n> a\nb", "a\n"),
        ("```a`b```\n", None),
        ("```\n\u2028\x1b[31m\x0c字\n```", "\u2028\x1b[31m\x0c字\n"),
    ],
)
def test_the_first_code_block_is_taken_unchanged(text, code):
    assert code_block(text) == code

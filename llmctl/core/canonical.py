"""The canonical text of a prompt: what two wordings share where one answer fits both. Tables and a scan, no model.

The rule of the room: nothing is lost that any reader could go by. What cannot be judged here has no canonical text and
is compared as it was written: long, of several lines, code, about its own wording, or not in English. A capital goes
where it says nothing ("What", "Docker") and stays where it may ("Rust", "US"); words change only by a table, only
politeness is left out, and only at the ends. No stemming, no articles left out, no order changed.
"""

from __future__ import annotations

from itertools import pairwise

from llmctl.core import canonical_words as tables

LONGEST = 1_000
"""In characters: a longer text is a document, where every letter may count."""
_CODE = frozenset("`_{}[]<>=\\|~^*@")
_STOPS = frozenset(",;:!?.")
_HELD = "\x00"  # stands for a space inside what is kept as it was written
_ROUNDS = 3


def canonical(text: str) -> str | None:
    """The canonical text of a prompt, which is its own canonical text; None where it is to be compared as written."""
    form = _once(text.strip())
    for _ in range(_ROUNDS):
        again = form and _once(form)
        if again == form:
            return form
        form = again
    return None


def _once(text: str) -> str | None:
    if not 0 < len(text) <= LONGEST or not text.isprintable() or not _CODE.isdisjoint(text):
        return None
    plain = _composed(text) if not text.isascii() else text
    held = plain and _held(plain)
    if not held:
        return None
    words = _cased(_split(held))
    words = words and _counted(_spelled(words))
    if not words or tables.ENGLISH.isdisjoint(words) or not tables.ELSEWHERE.isdisjoint(words):
        return None
    if _on_wording(words) or any(who == "you" and does in tables.OPINION for who, does in pairwise(words)):
        return None
    words = _unframed(words) if len(words) > 1 else words
    return " ".join(words).replace(f" {_HELD}", " ").replace(_HELD, " ") if len(words) > 1 else None


def _composed(text: str) -> str | None:
    """`text` composed and with straight quotes; None where NFKC would change more: x² is no x2, ½ no 12."""
    from unicodedata import normalize  # most prompts are ASCII

    text = normalize("NFC", text).replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    return text if normalize("NFKC", text) == text else None


def _held(text: str) -> str | None:
    """`text` with its quotes, and all that follows a colon, held together as one word; None where a quote is open."""
    if text[0] == text[-1] == '"' and text.count('"') == 2 and text[1:].split(" ", 1)[0].lower() in tables.QUESTION:
        text = text[1:-1].strip()
    done, at = "", 0
    while at < len(text):
        end, mark = at + 1, text[at]
        if mark in "\"'" and (at == 0 or text[at - 1] in " ("):
            end = _closed(text, mark, end)
            if not end:
                return None
            mark = _one_kind(text[at:end], text).replace(" ", _HELD)
        elif mark == '"':
            return None
        done, at = done + mark, end
    head, colon, rest = done.partition(": ")
    while colon and set(head.lower().replace(",", " ").split()) <= tables.ASIDES:
        head, colon, rest = rest.partition(": ")
    return f"{head}: {_HELD}{rest.replace(' ', _HELD)}" if colon else head


def _closed(text: str, mark: str, at: int) -> int:
    """Where the quote ends that is open at `at`; 0 where nowhere. An apostrophe inside a word ends none."""
    while at := text.find(mark, at) + 1:
        if at == len(text) or text[at] in " )" or text[at] in _STOPS:
            break
    return at


def _one_kind(quoted: str, text: str) -> str:
    """`quoted` in double quotes, where it is plain words and `text` is not about code, where the kinds may differ."""
    inside = quoted[1:-1].replace(" ", "")
    plain = len(inside) > 2 and inside.isalpha() and '"' not in text.replace(quoted, "", 1)
    return f'"{quoted[1:-1]}"' if plain and tables.QUOTING.isdisjoint(text.lower().split()) else quoted


def _split(text: str) -> list[str]:
    """The words and the marks between them; what a mark belongs to keeps it: U.S., 5!, f(x), C++."""
    words: list[str] = []
    for each in text.split(" "):
        word, marks = each, ""
        while word[:1] == "(" and ")" not in word[1:-1]:
            words.append("(")
            word = word[1:]
        while word and word[-1] in ",;:!?.)" and word[0] != _HELD:
            rest, last = word[:-1], word[-1]
            if (last == "." and "." in rest) or (last == ")" and "(" in rest):
                break
            if last == "!" and (rest[-1:].isdigit() or len(rest.rstrip("!")) == 1):
                break
            marks, word = last + marks.lstrip(last if last in "?!" else ""), rest
        words += [word, *marks] if word else marks
    return words


def _cased(words: list[str]) -> list[str] | None:
    """`words` without the capitals that say nothing; None where all have one, and nobody can tell names from words."""
    lower = [word.lower() for word in words]
    starts = [at == 0 or words[at - 1] in _STOPS for at in range(len(words))]
    letters = [word for word in words if word not in _STOPS]
    shouted = len(letters) > 1 and all(map(str.isupper, letters))
    titled = not tables.SMALL.isdisjoint(lower[1:]) and all(word[0].isupper() for word in letters)
    if shouted or titled:
        plain = all(word.isascii() and word.isalpha() and (len(word) > 1 or word in "aAI") for word in letters)
        if not plain or not (tables.TWO_FACED | tables.NUMBERS.keys()).isdisjoint(lower):
            return None
    coding = not tables.CODING.isdisjoint(lower)
    return [
        low if shouted or (titled and word[1:].islower()) or _says_nothing(word, low, start, after, coding) else word
        for word, low, start, after in zip(words, lower, starts, [*lower[1:], ""], strict=True)
    ]


def _says_nothing(word: str, low: str, start: bool, after: str, coding: bool) -> bool:
    """Whether the capitals of `word` may go: at the `start` of a sentence, before `after`, in a text on `coding`."""
    head, _, tail = word.partition("'")
    name = low[: len(head)]
    if not (head.isascii() and head.isalpha()) or tail != low[len(head) + 1 :]:
        return False
    if head == "I" and (tail or after.isalpha()):
        return True
    if start and word[1:].islower() | (head == "A"):
        starter = {low, name, low.removesuffix("n't")} & tables.STARTERS or low in tables.WHOLE
        if starter or (name in ("will", "may") and after in tables.SUBJECTS):
            return True
    if head.isupper() and name not in tables.ACRONYMS:
        return len(head) > 2 and name not in tables.UNITS_LIKE and tables.VOWELS.isdisjoint(name)
    return name in tables.PLAIN or name in tables.ACRONYMS or (coding and name in tables.TOOLS)


def _spelled(words: list[str]) -> list[str]:
    """`words` with contractions written out, where they stand for one thing only."""
    done: list[str] = []
    for word, after in pairwise([*words, ""]):
        at = word.find("'") - (word[-3:] == "n't")
        if word in tables.WHOLE and after not in ("only", "just", "but"):
            done += [tables.WHOLE[word], "not"]
        elif at > 0 and word[at:] in tables.ENDINGS and word[:at] not in ("ai", "ca", "wo", "sha"):
            done += [word[:at], tables.ENDINGS[word[at:]]]
        elif word in tables.IS and after and after not in tables.DONE and not after.endswith(("ed", "en", "?")):
            done += [tables.IS[word], "is"]
        elif word == "i'd" and after in ("like", "appreciate", "be"):
            done += ["i", "would"]
        elif word in tables.ORDINALS:
            done.append(tables.ORDINALS[word])
        else:
            done.append(word)
    return done


def _counted(words: list[str]) -> list[str]:
    """`words` with numbers in digits and their units in short."""
    done: list[str] = []
    rest = [*words, "", ""]
    skip = 0
    for at, word in enumerate(words):
        if skip:
            skip -= 1
            continue
        before, after, then = done[-1] if done else "", rest[at + 1], rest[at + 2]
        if number := _number(word, before, after, then):
            done.append(number)
            skip = number.endswith("00") and after in tables.SCALES
        elif _is_number(before) and word in tables.UNITS and not after[:1].isdigit():  # 20 % 3
            done.append(tables.UNITS[word])
        elif _is_number(before) and (word, after) == ("per", "cent"):
            done, skip = [*done, "%"], 1
        elif (unit := word.lstrip("0123456789.")) in tables.ATTACHED and _is_number(word[: -len(unit)]):
            done += [word[: -len(unit)], unit]
        else:
            done.append(word)
    return done


def _number(word: str, before: str, after: str, then: str) -> str:
    """The digits of a number, "" where `word` is none, or not alone one: twenty five, no one, two hundred and six."""
    groups = word.split(",")
    if len(groups) > 1:
        bare = groups[0][:1] not in ("", "0") and before != "(" and after != ")" and "".join(groups).isdecimal()
        long = len(groups[0]) > (3 if len(groups) == 2 else 2)  # 100,200,300 may be three numbers
        return "".join(groups) if bare and not long and all(len(each) == 3 for each in groups[1:]) else ""
    tens, hyphen, ones = word.partition("-")
    value = tables.NUMBERS.get(tens, "")
    if hyphen:
        value = value[:1] + tables.NUMBERS.get(ones, "") if value in tables.TENS and ones not in tables.TEENS else ""
    if not value or _numeric(before) or before in tables.SCALES or before.endswith("'s") or _numeric(after):
        return ""
    if after in tables.SCALES:
        return "" if _numeric(then) or then in tables.SCALES or then == "and" else value + tables.SCALES[after]
    return "" if word == "one" and after not in tables.UNITS else value


def _numeric(word: str) -> bool:
    return word in tables.NUMERIC or word[:1].isdigit() or word[-1:].isdigit()


def _is_number(word: str) -> bool:
    whole, _, part = word.partition(".")
    return word.isascii() and whole.isdecimal() and (part.isdecimal() or whole == word)


def _on_wording(words: list[str]) -> bool:
    """Whether a text may be about its own words; three sentences are a length, and what is in quotes is kept anyway."""
    if any(word[0] in "\"'" for word in words):
        return False
    said = [word.lower() for word, before in zip(words, ["", *words], strict=False) if not before.isdecimal()]
    return not tables.OF_WORDS.isdisjoint(said)


def _starts(words: list[str], phrases: tuple[list[str], ...]) -> int:
    """How many of the first words are one of `phrases`."""
    return next((len(phrase) for phrase in phrases if words[: len(phrase)] == phrase), 0)


def _unframed(words: list[str]) -> list[str]:
    """`words` without the politeness around them."""
    if at := _starts(words, tables.GREETINGS):
        at += words[at : at + 1] in ([","], ["."], ["!"], [":"], ["-"], ["but"])
        words = words[at:] if words[at:] and words[at] in tables.OPENERS else words
    words, asked = _ended(words)
    if words[0] in tables.PLEASE and words[1:] and words[1] in tables.OPENERS:
        words, asked = words[1:], True
    words = _told(_requested(words, asked))
    if words[-2:] == ["for", "me"] and words[0] in tables.FOR_ME:
        words = words[:-2]
    if words[:3] == ["how", "do", "i"] and len(words) > 4 and words[3].isalpha() and words[3] not in tables.BY_LOOKS:
        words = ["how", "to", *words[3:]]
    return words


def _requested(words: list[str], asked: bool) -> list[str]:
    """What a `could you` asks for: with a `please`, or where it can be no question about what anybody may do."""
    at = _starts(words, tables.POLITELY)
    if at and words[at:] and words[at] in tables.DOINGS:
        return [tables.DOINGS[words[at]], *words[at + 1 :]]
    if at := _starts(words, tables.YOU):
        please = not tables.PLEASE.isdisjoint(words[at : at + 1])
        rest = words[at + please :]
        if asked or please or rest[:1] in (["explain"], ["tell"]) or rest[1:2] == ["me"]:
            return rest if rest and rest[0] in tables.ASKED else words
    return words


def _told(words: list[str]) -> list[str]:
    """The question in `tell me what love is`, and a few ways to say one thing."""
    at = _starts(words, tables.KNOW)
    if at and words[at:] and words[at] in tables.WH and (words[0] != "do" or words[at] != "how"):
        return _straight(words[at:-1] if words[-1] == "?" else words[at:])
    if words[:4] == ["show", "me", "how", "to"]:
        return words[2:]
    if words[:3] == ["explain", "to", "me"]:
        return ["explain", *words[3:]]
    return words


def _ended(words: list[str]) -> tuple[list[str], bool]:
    """`words` without thanks, a last `please`, which is told, and the marks at the end that change nothing."""
    asked = False
    while len(words) > 2 and ":" not in words:
        last, before, question = words[-1], words[-2], words[0] in tables.QUESTION
        thanks = next((len(each) for each in tables.THANKS if words[-len(each) :] == each), 0)
        if last == "." or (last == "?" and question) or (last == "!" and (not question or before == "?")):
            words = words[:-1]
        elif thanks and len(words) > thanks and words[-thanks - 1] in _STOPS:
            words = words[:-thanks]
            words = words[:-1] if words[-1] in ",;" else words
        elif last in tables.PLEASE and before not in tables.NO_OBJECT:
            words, asked = words[: -1 - (before == ",")], True
        else:
            break
    return words, asked


def _straight(words: list[str]) -> list[str]:
    """A question from its indirect form: `what love is`, `how i make bread`."""
    if words[:2] == ["how", "i"] and len(words) > 3 and words[2] not in tables.AUXILIARY:
        return ["how", "do", *words[1:]]
    be = [word for word in words if word in ("is", "are", "was", "were")]
    if len(be) == 1 and words[-1] in be and words[0] in ("what", "who", "where", "when"):
        return [words[0], words[-1], *words[1:-1]]
    return words

"""Reading what an LLM answered: strict about the content, forgiving about harmless form."""

from __future__ import annotations

import re

# What a model says where it cannot answer; the templates ask for "0".
DECLINED = frozenset({"0", "none", "n/a", "null", "unknown"})
LONGEST_DETAIL = 200

_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "：": ":", "，": ","})
_LABEL = re.compile(r"[\s*-]*([A-Za-z][A-Za-z _]{0,20}?\d?)[\s*]*:(?:\*\*)?\s*(.*)")
_PAIRS = ('"', "'", "`", "**", "*")
_IRREGULAR_PLURALS = {
    "calves": "calf",
    "geese": "goose",
    "hooves": "hoof",
    "mice": "mouse",
    "lice": "louse",
    "oxen": "ox",
    "wolves": "wolf",
    "children": "child",
    "men": "man",
    "people": "person",
    "women": "woman",
}


def lines_of(reply: str) -> list[str]:
    """The lines that say something: typographic signs made plain, white space single, code fences dropped."""
    lines = (unquote(" ".join(line.split())) for line in reply.translate(_PLAIN).splitlines())
    return [line for line in lines if line and not line.startswith("```")]


def unquote(text: str) -> str:
    """Without the quotation marks, backticks or asterisks around all of it; those inside stay."""
    text = text.strip()
    for mark in _PAIRS:
        inner = text[len(mark) : -len(mark)]
        # "A" and "B" begins and ends with a mark, but is not quoted as a whole. An apostrophe is no mark.
        if len(text) >= 2 * len(mark) and text == f"{mark}{inner}{mark}" and mark not in re.sub(r"\b'\b", "", inner):
            return unquote(inner)
    return text


def label_and_value(line: str) -> tuple[str, str]:
    """A line `Label: value` in its parts, the label as `canonical_label` gives it; ("", the line) without a label."""
    match = _LABEL.fullmatch(line)
    return (canonical_label(match[1]), unquote(match[2])) if match else ("", line)


def value_of(line: str, label: str) -> str:
    """What stands behind a label, or the whole line where the label does not stand before it."""
    found, value = label_and_value(line)
    return value if found == canonical_label(label) else line


def canonical_label(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.lower())


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def singular_forms(word: str) -> set[str]:
    """The word and what it may be the simple plural of: `foxes` gives foxes, foxe and fox."""
    forms = {word}
    if word in _IRREGULAR_PLURALS:
        forms.add(_IRREGULAR_PLURALS[word])
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        forms.add(word[:-1])
        if word.endswith("ies"):
            forms.add(f"{word[:-3]}y")
        if re.search(r"(s|x|z|ch|sh|o)es$", word):
            forms.add(word[:-2])
    return forms


def shorten(text: str, length: int = LONGEST_DETAIL) -> str:
    """At most `length` characters, cut after a word where there is one."""
    if len(text) <= length:
        return text
    head = text[: length - 3]
    return f"{head.rsplit(' ', 1)[0]}..."

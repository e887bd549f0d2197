"""Reading what an LLM answered: strict about the content, forgiving about harmless form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..benchmark.stages import Refusal
from ..data.auditorybench import MASK

# What a model says where it cannot answer; the templates ask for "0".
DECLINED = frozenset({"0", "none", "n/a", "null", "unknown"})
# A sentence of a prompt without any of them is no English one. Of the sentences published, 99.7 % have one.
ENGLISH_WORDS = frozenset(
    {"the", "of", "sound", "sounds", "make", "makes", "and", "with", "than", "has", "can", "when"}
)
SHORTEST_TELLING_WORD = 3
LONGEST_DETAIL = 200

_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "：": ":", "，": ","})
_LABEL = re.compile(r"[\s*-]*([A-Za-z][A-Za-z _]{0,20}?\d?)[\s*]*:(?:\*\*)?\s*(.*)")
_MASK = re.compile(r"\[\s*mask\s*\]", re.IGNORECASE)
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


def value_of(line: str, label: str) -> str:
    """What stands behind a label, or the whole line where the label does not stand before it."""
    match = _LABEL.fullmatch(line)
    return unquote(match[2]) if match and canonical_label(match[1]) == canonical_label(label) else line


def labelled_values(reply: str, labels: Sequence[str]) -> list[str]:
    """The values of a reply that is written `Label: value`, one on each line, in the order of `labels`.

    Raises:
        Refusal: the model declined, a label is missing or double, or anything else stands there.
    """
    lines = lines_of(reply)
    if not lines:
        raise Refusal("empty reply")
    if len(lines) == 1 and value_of(lines[0], labels[0]).rstrip(".").lower() in DECLINED:
        raise Refusal("the model could not write a prompt")
    values: dict[str, str] = {}
    names = {canonical_label(label): label for label in labels}
    for line in lines:
        match = _LABEL.fullmatch(line)
        name = names.get(canonical_label(match[1])) if match else None
        if match is None or name is None:
            raise Refusal("text beside the form asked for", shorten(line))
        if name in values:
            raise Refusal("a line of the form stands there twice", name)
        values[name] = unquote(match[2])
    missing = [label for label in labels if label not in values]
    if missing:
        raise Refusal("a line of the form is missing", ", ".join(missing))
    if values[labels[0]].rstrip(".").lower() in DECLINED:
        raise Refusal("the model could not write a prompt")
    return [values[label] for label in labels]


def canonical_label(label: str) -> str:
    return re.sub(r"[^a-z0-9]", "", label.lower())


def check_sentence(sentence: str) -> str:
    """The sentence of a prompt with its one `[MASK]` in capitals.

    Raises:
        Refusal: it is not English, or has not exactly one `[MASK]` that stands by itself.
    """
    sentence = _MASK.sub(MASK, sentence)
    if sentence.count(MASK) != 1:
        raise Refusal("not exactly one [MASK]", shorten(sentence))
    if not is_english(sentence):
        raise Refusal("the prompt is not English", shorten(sentence))
    if re.search(rf"\w{re.escape(MASK)}|{re.escape(MASK)}\w", sentence):
        raise Refusal("the [MASK] is part of a word", shorten(sentence))
    return sentence


def is_english(sentence: str) -> bool:
    """Latin letters alone, and one of the commonest English words: enough to notice a reply in another language."""
    return all(map(is_latin, sentence)) and not ENGLISH_WORDS.isdisjoint(words_of(sentence))


def is_latin(character: str) -> bool:
    return character.isprintable() and (character.isascii() or unicodedata.name(character, "").startswith("LATIN "))


def find_span(sentence: str, span: str) -> list[tuple[int, int]]:
    """Where a span stands in a sentence with one `[MASK]`, as whole words in upper or lower case: (start, end) of each.

    Raises:
        Refusal: it has no letter, holds the `[MASK]`, or stands nowhere.
    """
    if not any(map(str.isalpha, span)):
        raise Refusal("a span is empty")
    if _MASK.search(span):
        raise Refusal("a span holds the [MASK]", shorten(span))
    # A full stop after a span is form, unless the sentence has it too.
    for form in (span, span.rstrip(".,;")):
        found = re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", sentence, re.IGNORECASE)
        # The word "mask" would be found inside of "[MASK]".
        mask = sentence.index(MASK)
        places = [match.span() for match in found if match.end() <= mask or match.start() >= mask + len(MASK)]
        if places:
            return places
    raise Refusal("a span is not in the prompt", shorten(span))


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def shares_word(answer: str, sentence: str) -> bool:
    """Whether a word of the answer stands in the sentence, in the singular or the plural.

    Words of one or two letters count only where the answer has no other: "of" in "bird of prey" gives nothing away.
    """
    words = words_of(answer)
    telling = [word for word in words if len(word) >= SHORTEST_TELLING_WORD] or words
    forms = set().union(*map(singular_forms, telling))
    return any(forms & singular_forms(word) for word in words_of(sentence))


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

"""Asking for what a benchmark is written of, and the rules that a reply has to keep; what breaks one is refused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...data.auditorybench import MASK
from ...llm.client import NoReply, RequestRefused, Sampling
from ...llm.replies import (
    DECLINED,
    canonical_label,
    label_and_value,
    lines_of,
    shorten,
    singular_forms,
    value_of,
    words_of,
)
from ..stages import NO_REPLY, Refusal

if TYPE_CHECKING:
    from ...llm.client import ChatModel

# A sentence of a prompt without any of them is no English one. Of the sentences published, 99.7 % have one.
ENGLISH_WORDS = frozenset(
    {"the", "of", "sound", "sounds", "make", "makes", "and", "with", "than", "has", "can", "when"}
)
SHORTEST_TELLING_WORD = 3

_MASK = re.compile(r"\[\s*mask\s*\]", re.IGNORECASE)


async def reply_to(chat: ChatModel, prompt: str, sampling: Sampling) -> str:
    """The reply to a prompt.

    Raises:
        Refusal: there is none to this prompt.
        OSError: there is none to any.
    """
    try:
        return await chat.reply(prompt, sampling)
    except NoReply as error:
        raise Refusal(NO_REPLY, str(error)) from error
    except RequestRefused as error:
        raise Refusal("the server refused the request", str(error)) from error


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
        label, value = label_and_value(line)
        name = names.get(label)
        if name is None:
            raise Refusal("text beside the form asked for", shorten(line))
        if name in values:
            raise Refusal("a line of the form stands there twice", name)
        values[name] = value
    missing = [label for label in labels if label not in values]
    if missing:
        raise Refusal("a line of the form is missing", ", ".join(missing))
    if values[labels[0]].rstrip(".").lower() in DECLINED:
        raise Refusal("the model could not write a prompt")
    return [values[label] for label in labels]


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


def shares_word(answer: str, sentence: str) -> bool:
    """Whether a word of the answer stands in the sentence, in the singular or the plural.

    Words of one or two letters count only where the answer has no other: "of" in "bird of prey" gives nothing away.
    """
    words = words_of(answer)
    telling = [word for word in words if len(word) >= SHORTEST_TELLING_WORD] or words
    forms = set().union(*map(singular_forms, telling))
    return any(forms & singular_forms(word) for word in words_of(sentence))

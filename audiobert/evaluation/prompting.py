"""Putting rows of AuditoryBench into prompts for generative models, and reading what these answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from ..data.auditorybench import FEATURES, MASK, PITCH_ANSWERS, choose_splits
from ..llm.replies import DECLINED, lines_of, singular_forms, value_of
from ..llm.templates import load_template

PROMPT_FOLDER = Path(__file__).with_name("prompts")
# The longest names of animals in the data have four words.
MOST_WORDS = 5

_ARTICLE = re.compile(r"^(?:an?|the|some)\s+")
_ANSWER = re.compile(r"[^\W\d_]+(?:[ '-][^\W\d_]+)*")


def load_prompt(path: str | Path | None, default_name: str, placeholders: Iterable[str] = ("sentence",)) -> str:
    """A user's own prompt, or the package's `default_name`; errors are those of `load_template`."""
    return load_template(PROMPT_FOLDER / default_name if path is None else path, placeholders)


def rows_by_split(
    dataset: DatasetDict | Dataset, splits: Sequence[str] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """
    The rows of the splits to be answered, in the data's order; none for an empty split.

    Args:
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.

    Raises:
        ValueError: for a split that is not there, or a missing column.
    """
    parts = choose_splits(dataset, splits)
    for name, part in parts.items():
        if missing := set(FEATURES) - set(part.column_names):
            raise ValueError(f"Split {name} has no column {', '.join(sorted(missing))}; it has {part.column_names}.")
    return {name: part.select_columns(list(FEATURES)).with_format(None).to_list() for name, part in parts.items()}


def answer_set(dataset: DatasetDict | Dataset, split_rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """
    The answers that an animal is chosen from: the distinct ones, in lower case, of split train (if the dataset has it)
    and then of the rows themselves, in the order in which they come up.

    So every row's answer is among them, and those of train that are wrong here are there to be mistaken for it. In the
    published AuditoryBench these are 596 answers for dev, 629 for test and 560 for wiki (550 for train). Singular and
    plural are two answers, and so are two spellings.
    """
    train = (
        rows_by_split(dataset, ["train"])["train"] if isinstance(dataset, DatasetDict) and "train" in dataset else []
    )
    animals = (row["answer"].lower() for row in [*train, *split_rows] if row["task"] != "pitch")
    return list(dict.fromkeys(animals))


def filled_sentence(sentence: str, answer: str) -> str:
    """The sentence with the answer at each `[MASK]`, its first letter a capital where it begins the sentence."""
    if sentence.startswith(MASK):
        sentence = answer[:1].upper() + answer[1:] + sentence[len(MASK) :]
    return sentence.replace(MASK, answer)


def same_animal(first: str, second: str) -> bool:
    """
    Whether two answers are the same but for form: upper and lower case, an article before it, hyphen or space, and the
    singular or plural of the last word ("a Roe-deer" and "roe deer", "birds" and "bird").

    The number is left open as the sentences of the data do not always agree with it ("[MASK] make a chirp sound.",
    bird). Nothing else is: a broader or narrower animal, or another word for it, is a different answer.
    """
    first_words, second_words = _words(first), _words(second)
    if not first_words or not second_words or first_words[:-1] != second_words[:-1]:
        return False
    return not singular_forms(first_words[-1]).isdisjoint(singular_forms(second_words[-1]))


def completed_animal(text: str) -> str:
    """
    The animal at the beginning of what a model wrote on: the first line that says something, up to its first mark of
    punctuation other than a hyphen or an apostrophe, in lower case and without an article. "" if that is no name.
    """
    lines = lines_of(text)
    match = _ANSWER.match(lines[0]) if lines else None
    return _name(match[0]) if match else ""


def replied_animal(reply: str) -> str:
    """
    The animal of a reply that holds nothing else, in lower case and without an article; "" for any other reply.

    Allowed is form that changes nothing: "Answer:" before it, quotation marks or asterisks around it, a full stop.
    """
    line = _only_line(reply)
    return _name(line) if _ANSWER.fullmatch(line) else ""


def replied_choice(reply: str, choices: Sequence[str]) -> str:
    """The one of some words or letters that the reply consists of, in upper or lower case; "" for any other reply."""
    line = _only_line(reply).lower()
    return next((choice for choice in choices if choice.lower() == line), "")


def replied_pitch(reply: str) -> str:
    """`replied_choice` of "higher" and "lower"."""
    return replied_choice(reply, PITCH_ANSWERS)


def _only_line(reply: str) -> str:
    lines = lines_of(reply)
    # The labels that the prompts of the package end with.
    return value_of(lines[0], "answer").rstrip(".").strip() if len(lines) == 1 else ""


def _name(text: str) -> str:
    name = _ARTICLE.sub("", text.lower())
    return "" if name in DECLINED or len(name.split()) > MOST_WORDS else name


def _words(answer: str) -> list[str]:
    return _ARTICLE.sub("", " ".join(answer.lower().replace("-", " ").split())).split()

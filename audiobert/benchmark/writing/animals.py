"""Prompts on the sounds of animals: an LLM writes them, rules check them (paper, figure 2, b)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...llm.client import Sampling
from ...llm.replies import shorten, singular_forms, words_of
from ...llm.templates import fill
from ..dataset.splitting import normalise_sentence
from ..stages import Refusal
from . import TEMPLATES
from .categories import record_values
from .checks import check_sentence, find_span, labelled_values, reply_to, shares_word

if TYPE_CHECKING:
    from ...llm.client import ChatModel

TEMPLATE = "animal_prompt.txt"
PLACEHOLDERS = ("title", "tags", "description", "category")
STOP_LIST = "inappropriate_answers.txt"
# As in the authors' code.
SAMPLING = Sampling(max_tokens=100, temperature=0.6, top_p=0.9, seed=42)
MOST_ANSWER_WORDS = 3


class AnimalPrompt(NamedTuple):
    """A prompt that passed every check; `span` is written as `sentence` has it."""

    sentence: str
    answer: str
    span: str


def animal_prompts(rows: Iterable[dict], chat: ChatModel, template: str, stop_list: frozenset[str]) -> Iterator[dict]:
    """Asks for a prompt on every record of an animal; one row for each, in their order.

    Args:
        rows: records with a `category`, all of them of animals.
        chat: who is asked.
        template: the instruction, with the placeholders of `PLACEHOLDERS`.
        stop_list: the answers that no prompt may have, as `load_stop_list` reads them.

    Returns:
        Rows with `recordings` (list of the one id), `task` ("animal"), `category`, `sentence` (with one `[MASK]`),
        `answer` (lower case), `spans` (list of the one span; these three None if refused), `reply` (as the model wrote
        it), `refusal` and `detail`.
    """

    async def work(row: dict) -> dict:
        result = {
            "recordings": [row["id"]],
            "task": "animal",
            "category": row["category"],
            "sentence": None,
            "answer": None,
            "spans": None,
            "reply": None,
            "refusal": None,
            "detail": "",
        }
        try:
            values = {**record_values(row), "category": row["category"]}
            result["reply"] = await reply_to(chat, fill(template, values), SAMPLING)
            prompt = parse_animal_prompt(result["reply"], stop_list)
            result.update(sentence=prompt.sentence, answer=prompt.answer, spans=[prompt.span])
        except Refusal as refusal:
            result["refusal"], result["detail"] = refusal.reason, refusal.detail
        return result

    return chat.map(work, rows)


def parse_animal_prompt(reply: str, stop_list: frozenset[str]) -> AnimalPrompt:
    """Reads and checks a reply of the lines "Prompt:", "Answer:" and "Span:".

    Raises:
        Refusal: the model could not write a prompt, the form is another, or a check failed.
    """
    sentence, answer, span = labelled_values(reply, ("Prompt", "Answer", "Span"))
    sentence = check_sentence(sentence)
    answer = check_answer(answer, stop_list)
    if shares_word(answer, sentence):
        raise Refusal("the answer stands in the prompt", shorten(f"{answer}: {sentence}"))
    start, end = find_span(sentence, span)[0]
    return AnimalPrompt(sentence, answer, sentence[start:end])


def check_answer(answer: str, stop_list: frozenset[str]) -> str:
    answer = re.sub(r"^(an?|the) ", "", answer.lower().rstrip(". "))
    if not answer:
        raise Refusal("the answer is empty")
    words = answer.split()
    if not all(re.fullmatch(r"[a-z]+(['-][a-z]+)*", word) for word in words):
        raise Refusal("the answer is not in English letters", shorten(answer))
    if len(words) > MOST_ANSWER_WORDS:
        raise Refusal("the answer has more than three words", shorten(answer))
    # The last word says what it is: a sea monster is a monster, but a vampire bat is a bat.
    if not stop_list.isdisjoint({answer} | singular_forms(words[-1]) | singular_forms(words_of(answer)[-1])):
        raise Refusal("an inappropriate answer", answer)
    return answer


def load_stop_list(path: Path | None = None) -> frozenset[str]:
    """Reads the answers that no prompt may have: one on a line, `#` begins a comment. None reads the package's list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an entry has anything but English letters, with the file and the line.
    """
    source = TEMPLATES / STOP_LIST if path is None else path
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: not encoded in UTF-8 ({error.reason}); save it as UTF-8.") from error
    entries = set()
    for number, line in enumerate(lines, 1):
        entry = " ".join(line.partition("#")[0].lower().split())
        if entry and not re.fullmatch(r"[a-z' -]+", entry):
            raise ValueError(f"{source}, line {number}: an answer has English letters only, got {entry!r}.")
        entries.add(entry)
    return frozenset(entries - {""})


def merge_duplicates(rows: Iterable[dict]) -> tuple[list[dict], int]:
    """Unites rows that ask the same: equal answers, and sentences equal but for case, spaces and punctuation.

    Returns:
        The first row of each, in the order of `rows`, its `recordings` united; and how many rows were merged away.
    """
    firsts: dict[tuple[str, str], dict] = {}
    # Dicts as sets that keep the order.
    recordings: dict[tuple[str, str], dict[str, None]] = {}
    count = 0
    for row in rows:
        count += 1
        question = normalise_sentence(row["sentence"]), row["answer"]
        firsts.setdefault(question, row)
        recordings.setdefault(question, {}).update(dict.fromkeys(row["recordings"]))
    merged = [{**row, "recordings": list(recordings[question])} for question, row in firsts.items()]
    return merged, count - len(merged)

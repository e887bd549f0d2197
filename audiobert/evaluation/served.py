"""Answers of models behind an OpenAI-compatible server to AuditoryBench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, DatasetDict

from ..data.auditorybench import PITCH_ANSWERS
from ..llm.client import ChatModel, NoReply, RequestRefused, Sampling
from ..llm.templates import fill
from .predictions import RowPrediction
from .prompting import load_prompt, replied_animal, replied_choice, rows_by_split, same_animal

ANIMAL_PROMPT = "animal_question.txt"
PITCH_PROMPT = "pitch_question.txt"
# The likeliest reply, as far as the server can give it. A model that thinks before it answers needs more tokens.
SAMPLING = Sampling(max_tokens=32, temperature=0.0, top_p=1.0)


def predict_served(
    chat: ChatModel,
    dataset: DatasetDict | Dataset,
    *,
    splits: Sequence[str] | None = None,
    animal_prompt: str | Path | None = None,
    pitch_prompt: str | Path | None = None,
    sampling: Sampling = SAMPLING,
) -> list[RowPrediction]:
    """
    Answers AuditoryBench by a served model, one message per row; what stands in the model's log is not asked again.

    A reply has to be the answer and nothing else: "higher" or "lower", or the name of an animal (`replied_animal`),
    which is right if it is the row's but for form (`same_animal`). Anything else, several lines, a sentence, "0", and a
    row that the server refuses to answer, is no answer: `predicted` is "", the row is wrong, and `unanswered` counts
    it. What the model wrote stands in the log.

    Args:
        chat: the model; its requests run side by side.
        dataset: what `load_auditorybench` gives, or one split of it.
        splits: names of splits of a `DatasetDict`; all but train if omitted.
        animal_prompt, pitch_prompt: files of your own with `{{sentence}}`, in the place of the package's
            `prompts/animal_question.txt` and `prompts/pitch_question.txt`.
        sampling: how the model draws its reply.

    Returns:
        One prediction per row, split by split in the data's order; none of a split without rows.

    Raises:
        ValueError: for a split that is not there, a prompt without `{{sentence}}`, or if no reply at all is an answer.
        OSError: the server cannot be reached, or did not reply to some rows though it does to others; a second call
            with the same log asks for those alone.
    """
    prompts = {
        "animal": load_prompt(animal_prompt, ANIMAL_PROMPT),
        "pitch": load_prompt(pitch_prompt, PITCH_PROMPT),
    }
    parts = rows_by_split(dataset, splits)
    rows = [(split, number, row) for split, part in parts.items() for number, row in enumerate(part)]
    replies = ask_all(chat, [fill(prompts[row["task"]], {"sentence": row["sentence"]}) for _, _, row in rows], sampling)

    predictions = []
    for (split, number, row), reply in zip(rows, replies, strict=True):
        if row["task"] == "pitch":
            predicted = replied_choice(reply, PITCH_ANSWERS)
            right = predicted == row["answer"]
        else:
            predicted = replied_animal(reply)
            right = same_animal(predicted, row["answer"])
        predictions.append(RowPrediction.of(split, number, row, predicted, right))
    refuse_no_answers(chat, [row.predicted for row in predictions], [row.sentence for row in predictions], replies)
    return predictions


def ask_all(chat: ChatModel, prompts: Sequence[str], sampling: Sampling = SAMPLING) -> list[str]:
    """The replies to prompts, in their order; "" where the server refuses the request.

    Raises:
        OSError: the server cannot be reached, or did not reply to some; those it did reply to are in the log.
    """

    async def work(row: dict) -> str | None:
        try:
            return await chat.reply(row["prompt"], sampling)
        except RequestRefused:
            return ""
        except NoReply:
            return None

    # Each is waited for before the failure of one is reported, so that a second call has only these to ask.
    replies = list(chat.map(work, ({"prompt": prompt} for prompt in prompts)))
    if missing := replies.count(None):
        raise OSError(
            f"{chat.url} gave no reply to {missing} of {len(replies)} prompts. Start the same command again: those "
            "that were answered are not asked for a second time."
        )
    return [reply for reply in replies if reply is not None]


def refuse_no_answers(
    chat: ChatModel, answers: Sequence[str], sentences: Sequence[str], replies: Sequence[str]
) -> None:
    """
    A model none of whose replies can be read would score 0: its prompt, its template or the room that its reply has is
    wrong, and no figure says anything of what it knows.

    Raises:
        ValueError: there are answers, and all are "". The error names the model, the first row and its reply.
    """
    if answers and not any(answers):
        raise ValueError(
            f"None of the {len(answers):,} replies of {chat.model} is an answer that can be read. The first is "
            f"{replies[0][:80]!r}, to {sentences[0]!r}: look at the others in the log of replies, and give another "
            "prompt, or more tokens to a model that thinks before it answers."
        )


def unanswered(predictions: Sequence[RowPrediction]) -> dict[str, dict[str, int]]:
    """The number of rows without an answer that can be read, by split, then by task; 0 is given too."""
    counts: dict[str, dict[str, int]] = {}
    for row in predictions:
        tasks = counts.setdefault(row.split, {})
        tasks[row.task] = tasks.get(row.task, 0) + (not row.predicted)
    return counts

"""Sorting recordings: an LLM names what is heard, broad to narrow (paper, figure 2, a)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ...llm.client import Sampling
from ...llm.replies import DECLINED, lines_of, shorten, value_of
from ...llm.templates import fill
from ..stages import Refusal
from .checks import reply_to

if TYPE_CHECKING:
    from ...llm.client import ChatModel

TEMPLATE = "categorise.txt"
PLACEHOLDERS = ("title", "tags", "description")
# As in the authors' code.
SAMPLING = Sampling(max_tokens=32, temperature=0.6, top_p=0.9, seed=22, stop=("\n",))

MOST_LEVELS = 5
LONGEST_LEVEL = 40
ROOT_SYNONYMS = {
    "animals": "animal",
    "environments": "environment",
    "human": "person",
    "humans": "person",
    "objects": "object",
    "people": "person",
    "persons": "person",
}

# Descriptions can be pages long; what is heard stands at their beginning.
LONGEST_TITLE = 200
MOST_TAGS = 30
LONGEST_DESCRIPTION = 600
NOTHING = "(none)"


def categorise(rows: Iterable[dict], chat: ChatModel, template: str) -> Iterator[dict]:
    """Asks for the category of every record; one row for each, in their order.

    Args:
        rows: records, as `Record.to_row` gives them.
        chat: who is asked.
        template: the instruction, with the placeholders of `PLACEHOLDERS`.

    Returns:
        The rows with `category` ("animal/dog/pomeranian", None if refused), `reply` (as the model wrote it),
        `refusal` and `detail`.
    """

    async def work(row: dict) -> dict:
        result = {**row, "category": None, "reply": None, "refusal": None, "detail": ""}
        try:
            result["reply"] = await reply_to(chat, fill(template, record_values(row)), SAMPLING)
            result["category"] = parse_category(result["reply"])
        except Refusal as refusal:
            result["refusal"], result["detail"] = refusal.reason, refusal.detail
        return result

    return chat.map(work, rows)


def record_values(row: dict) -> dict[str, str]:
    """What a prompt shows of a record: `title`, `tags` and `description`, each on one line, cut to size."""
    title, *captions = row["text"]
    # A caption is often the title or the description over again.
    further = dict.fromkeys(text for text in (*captions, row["description"]) if text != title)
    return {
        "title": one_line(title, LONGEST_TITLE),
        "tags": one_line(", ".join(row["tags"][:MOST_TAGS]), LONGEST_DESCRIPTION),
        "description": one_line(" ".join(further), LONGEST_DESCRIPTION),
    }


def one_line(text: str, length: int) -> str:
    return shorten(" ".join(text.split()), length) or NOTHING


def parse_category(reply: str) -> str:
    """The category of a reply: one to five levels in lower case, joined by "/".

    Raises:
        Refusal: the model could not tell, or the reply is no category.
    """
    lines = lines_of(reply)
    if not lines:
        raise Refusal("empty reply")
    if len(lines) > 1:
        raise Refusal("more than one line", shorten(" | ".join(lines)))
    path = value_of(lines[0], "category").rstrip(". ").lower()
    if path in DECLINED:
        raise Refusal("the model could not categorise it")
    levels = [level.strip() for level in path.split("/")]
    if len(levels) > MOST_LEVELS:
        raise Refusal("more than five levels", shorten(path))
    if not all(levels):
        raise Refusal("an empty level", shorten(path))
    if not all(re.fullmatch(r"[a-z0-9 '-]*[a-z][a-z0-9 '-]*", level) for level in levels):
        raise Refusal("characters outside a-z and 0-9", shorten(path))
    if max(map(len, levels)) > LONGEST_LEVEL:
        raise Refusal("a level is too long", shorten(path))
    return "/".join([ROOT_SYNONYMS.get(levels[0], levels[0]), *levels[1:]])

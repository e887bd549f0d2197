"""Plain English, in which nothing is to be heard: passages of a text in the form of WikiText."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

# What is shorter is no sentence, but a line of a list or the rest of a cut paragraph.
SHORTEST_PASSAGE = 5
UNKNOWN = "[UNK]"


def read_passages(path: str | Path, words: int = 60) -> list[str]:
    """
    Cuts the paragraphs of a text into passages.

    The text is in the form of WikiText (Merity et al., 2017): a paragraph to a line, headings as " = Heading = ", words
    and punctuation apart, and marks where a hyphen, comma or point stood within a word (" @-@ "). The marks are undone.
    `<unk>`, a word too rare for WikiText's vocabulary, becomes `[UNK]`, which BERT's tokenizers read as one unknown
    token. Other text of one paragraph to a line is read as well.

    Args:
        path: a text file in UTF-8, or a folder whose *.txt files are read in the order of their names.
        words: of a passage, punctuation that stands apart counted; the last passage of a paragraph may have fewer. One
            with fewer than 5 is left out.

    Raises:
        ValueError: if the text has no passage or is not UTF-8, or `words` is below 5.
        OSError: if there is no such file, or no text file in the folder.
    """
    if words < SHORTEST_PASSAGE:
        raise ValueError(
            f"Passages with fewer than {SHORTEST_PASSAGE} words are left out, so `words` cannot be {words}."
        )
    passages = [
        " ".join(text[start : start + words])
        for file in text_files(path)
        for text in _paragraphs(file)
        for start in range(0, len(text), words)
        if len(text) - start >= SHORTEST_PASSAGE
    ]
    if not passages:
        raise ValueError(
            f"{path} has no paragraph of at least {SHORTEST_PASSAGE} words: give WikiText or another text."
        )
    return passages


def sample_passages(passages: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """
    Some of the passages, drawn at random, in their order; all of them if there are not more than `count`.

    Raises:
        ValueError: if `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"At least one passage must be drawn, got a count of {count}.")
    chosen = random.Random(seed).sample(range(len(passages)), min(count, len(passages)))
    return [passages[index] for index in sorted(chosen)]


def text_files(path: str | Path) -> list[Path]:
    """
    The files that [`read_passages`] reads, in this order.

    Raises:
        OSError: if there is no such file, or no text file in the folder.
    """
    path = Path(path)
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"There is no text at {path}: give a text file, or a folder with *.txt files.")
        return [path]
    files = sorted(path.glob("*.txt"))
    if not files:
        raise FileNotFoundError(
            f"The folder {path} holds no *.txt file: give one with WikiText's valid.txt or test.txt."
        )
    return files


def _paragraphs(file: Path) -> list[list[str]]:
    """The words of each paragraph."""
    try:
        # A byte order mark, which some editors write, is no part of the text.
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 (byte {error.start}): convert it first.") from error
    return [_plain(line).split() for line in map(str.strip, lines) if not _is_heading(line)]


def _is_heading(line: str) -> bool:
    return line.startswith("=") and line.endswith("=")


def _plain(line: str) -> str:
    return re.sub(r" @(.)@ ", r"\1", line.replace("<unk>", UNKNOWN))

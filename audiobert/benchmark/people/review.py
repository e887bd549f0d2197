"""The human filter (paper, section II-A): a sheet of prompts to keep or drop, and the decisions read back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .sheets import COMMENT, Option, Question, Sheet, read_sheet, row_id

DROPPED = "dropped in the review"
NOT_REVIEWED = "not reviewed"
_NAME = "review"
_KEEP = "keep"
_WORDS = {
    **dict.fromkeys(("yes", "y", "1", "true"), True),
    **dict.fromkeys(("no", "n", "0", "false"), False),
    "": None,
}
_INSTRUCTIONS = (
    "Each row is a sentence with a gap, the answer that belongs there, and the marked words, which should tell the "
    "answer by its sound.",
    "Keep a row if the sentence is good English, the answer is an animal that does make this sound, and the marked "
    "words describe the sound. Drop it otherwise: names of fictional beings, answers that the sentence gives away, "
    "sounds that no such animal makes.",
    "This browser remembers your decisions. When you are done, or want to go on elsewhere, download them: rows that "
    "are not decided are left out of the benchmark.",
)


def write_review(rows: Iterable[dict], folder: str | Path) -> tuple[Path, Path]:
    """
    Writes `review.csv` and `review.html`, either of which a person can fill in.

    Rows with the same sentence and answer share a line. A `review.csv` that is in the folder already is not lost: what
    it decides about these rows stands in the new sheet too, and it is kept as `review.1.csv` (or the next number) if it
    decides about rows that are no longer there.

    Args:
        rows: with sentence, answer, spans, recordings and, if known, category.
        folder: made if need be.

    Returns:
        The paths of the CSV and of the page. The CSV has the columns id, sentence, answer, span, category, recordings
        (several separated by "; "), keep and comment; the page downloads the same.

    Raises:
        ValueError: there is no row, or a `review.csv` in the folder cannot be read (see `read_decisions`).
    """
    folder = Path(folder)
    by_id = {row_id(row): row for row in rows}
    if not by_id:
        raise ValueError("There is no row to review.")
    sheet = Sheet(
        name=_NAME,
        storage="audiobert review",
        title="Review of the benchmark's prompts",
        instructions=_INSTRUCTIONS,
        columns=("id", "sentence", "answer", "span", "category", "recordings"),
        details=("category", "recordings"),
        questions=(Question(_KEEP, "Keep it?", (Option("yes", "keep", "y"), Option("no", "drop", "n"))),),
        rows=tuple({**_cells(name, row), **decided} for name, row, decided in _with_earlier(by_id, folder)),
        spans=tuple(row["spans"] for row in by_id.values()),
    )
    return sheet.write(folder)


def _cells(name: str, row: dict) -> dict[str, str]:
    return {
        "id": name,
        "sentence": row["sentence"],
        "answer": row["answer"],
        "span": "; ".join(row["spans"]),
        "category": row.get("category") or "",
        "recordings": "; ".join(row["recordings"]),
    }


def _with_earlier(by_id: dict[str, dict], folder: Path) -> list[tuple[str, dict, dict[str, str]]]:
    path = folder / f"{_NAME}.csv"
    earlier: dict[str, dict[str, str]] = {}
    if path.is_file():
        for where, line in read_sheet(path, (_KEEP, COMMENT)):
            decision = _decision(line[_KEEP], where)
            if decision is not None or line[COMMENT].strip():
                word = {True: "yes", False: "no", None: ""}[decision]
                earlier[line["id"]] = {_KEEP: word, COMMENT: line[COMMENT]}
        if not earlier.keys() <= by_id.keys():
            _set_aside(path)
    return [(name, row, earlier.get(name, {})) for name, row in by_id.items()]


def _set_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.stem}.{number}{path.suffix}")).exists():
        number += 1
    os.replace(path, aside)


def read_decisions(path: str | Path, rows: Iterable[dict]) -> tuple[list[dict], dict[str, int]]:
    """
    Reads a sheet of `write_review` that was filled in.

    Args:
        path: the CSV. `keep` says yes, no, y, n, 1, 0, true or false in any case; blank is not decided.
        rows: what the sheet was written of. It may lack some of them: those count as not decided.

    Returns:
        All the rows, in their order: `refusal` is None for those that are kept, else "dropped in the review" (with the
        comment as `detail`) or "not reviewed"; and how many were "kept", "dropped" and "undecided".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: with file and line, for a missing column, an unknown or double id, another word in `keep`, or a
            sentence or answer that was changed.
    """
    path = Path(path)
    rows = list(rows)
    by_id = {row_id(row): row for row in rows}
    decisions: dict[str, tuple[bool | None, str]] = {}
    for where, line in read_sheet(path, (_KEEP,)):
        if line["id"] not in by_id:
            raise ValueError(f"{where}: no row has the id {line['id']!r}; write the sheet anew from these rows.")
        _refuse_changes(line, by_id[line["id"]], where)
        decisions[line["id"]] = (_decision(line[_KEEP], where), line.get(COMMENT, "").strip())

    counts: Counter[str] = Counter(kept=0, dropped=0, undecided=0)
    reviewed = []
    for row in rows:
        keep, comment = decisions.get(row_id(row), (None, ""))
        if keep:
            counts["kept"] += 1
            reviewed.append({**row, "refusal": None})
        elif keep is None:
            counts["undecided"] += 1
            reviewed.append({**row, "refusal": NOT_REVIEWED})
        else:
            counts["dropped"] += 1
            reviewed.append({**row, "refusal": DROPPED, "detail": comment})
    return reviewed, dict(counts)


def _decision(word: str, where: str) -> bool | None:
    folded = word.strip().lower()
    if folded not in _WORDS:
        raise ValueError(f"{where}: keep must be yes, no or blank, got {word!r}.")
    return _WORDS[folded]


def _refuse_changes(line: dict[str, str], row: dict, where: str) -> None:
    for column in ("sentence", "answer"):
        # Spreadsheets may change line ends and the space at the end; people should not change words in vain.
        if column in line and line[column].split() != row[column].split():
            raise ValueError(
                f"{where}: the {column} was {row[column]!r} and is now {line[column]!r}; a review only keeps or drops "
                "rows: change it back, and drop the row if it is wrong."
            )

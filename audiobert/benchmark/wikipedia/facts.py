"""The Wikipedia sets: animals and their sounds, and the ranges of instruments and voices (paper, section II-A).

The facts stand in two small tables beside this module, `wikipedia_tables/`; `tables.json` there says where they come
from and of what day they are. `wikipedia_refresh` makes such tables anew out of Wikipedia's pages.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from ...data.auditorybench import MASK
from ..stages import Refusal
from ..writing.checks import shares_word

TABLES = Path(__file__).with_name("tables")
ANIMAL_TABLE = "animal_sounds.csv"
PITCH_TABLE = "pitch_ranges.csv"
ANIMAL_COLUMNS = ("animal", "sound")
PITCH_COLUMNS = ("name", "lowest", "highest")

# The paper compares recordings only where their pitches differ by more than 10 %; in semitones.
MIN_DISTANCE = 12 * math.log2(1.1)

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
NOTE_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_NOTE = re.compile(r"([A-G])([#♯]{0,2}|[b♭]{0,2})([-−]?\d+)")


class AnimalSound(NamedTuple):
    animal: str
    sound: str


class PitchRange(NamedTuple):
    """The lowest and the highest note of an instrument or a voice as it sounds, in MIDI's numbers (C4 is 60)."""

    name: str
    lowest: int
    highest: int


def note_number(note: str) -> int:
    """The MIDI number, 0 to 127, of a note in scientific pitch notation: "C4" is 60, "F#3" 54, "A♭2" 44, "Bb-1" 10.

    Raises:
        ValueError: it is no such note.
    """
    match = _NOTE.fullmatch(note.strip())
    if match:
        step, accidentals, octave = match.groups()
        shift = len(accidentals) * (1 if accidentals[:1] in ("#", "♯") else -1)
        number = STEPS[step] + shift + 12 * (int(octave.replace("−", "-")) + 1)
        if 0 <= number <= 127:
            return number
    raise ValueError(f"unknown note {note!r}; write it like C4, F#3 or Bb1, from C-1 to G9.")


def note_name(number: int) -> str:
    """The note of a MIDI number in scientific pitch notation."""
    return f"{NOTE_NAMES[number % 12]}{number // 12 - 1}"


def read_animal_sounds(path: str | Path | None = None) -> list[AnimalSound]:
    """Reads a table with the columns animal and sound, the package's if no path is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a field is empty, a row stands there twice, or there are none.
    """
    path = Path(path) if path is not None else TABLES / ANIMAL_TABLE
    table: dict[AnimalSound, None] = {}
    for where, fields in _read_table(path, ANIMAL_COLUMNS):
        row = AnimalSound(*fields)
        if row in table:
            raise ValueError(f"{where}: {row.animal!r} with the sound {row.sound!r} stands there twice.")
        table[row] = None
    return list(table)


def read_pitch_ranges(path: str | Path | None = None) -> list[PitchRange]:
    """Reads a table with the columns name, lowest and highest (notes such as F#3), the package's if no path is given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a field is empty, a note is unknown, a range is upside down, a name stands
            there twice, or there are no rows.
    """
    path = Path(path) if path is not None else TABLES / PITCH_TABLE
    table: dict[str, PitchRange] = {}
    for where, (name, lowest, highest) in _read_table(path, PITCH_COLUMNS):
        try:
            row = PitchRange(name, note_number(lowest), note_number(highest))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if row.lowest > row.highest:
            raise ValueError(f"{where}: the range of {name!r} is upside down, {lowest} lies above {highest}.")
        if name in table:
            raise ValueError(f"{where}: {name!r} stands there twice.")
        table[name] = row
    return list(table.values())


def animal_rows(sounds: Iterable[AnimalSound]) -> Iterator[dict]:
    """One row for each sound of an animal, in the words of the published set.

    Refused is a sound that is called like its animal (the cuckoo's): the answer would stand in the sentence.
    """
    for animal, sound in sounds:
        sentence = f"{sound} is the sound a {MASK} makes."
        yield {
            "task": "animal",
            "sentence": sentence,
            "answer": animal,
            "spans": [sound],
            "recordings": [],
            "refusal": "the answer stands in the prompt" if shares_word(animal, sentence) else None,
        }


def pitch_rows(ranges: Iterable[PitchRange]) -> Iterator[dict]:
    """One row for each pair of instruments or voices, in the words of the published set; `direction` is the rule.

    Which of the two is named first alternates, so that the order of the table does not give the answer away.
    """
    table = list(enumerate(ranges))
    for (i, first), (j, second) in combinations(table, 2):
        if (i + j) % 2 == 0:
            first, second = second, first
        row = {
            "task": "pitch",
            "sentence": f"The sound of {first.name} is {MASK} than the sound of {second.name}",
            "answer": None,
            "spans": [first.name, second.name],
            "recordings": [],
            "refusal": None,
        }
        try:
            row["answer"] = direction(first, second)
        except Refusal as refusal:
            row.update(refusal=refusal.reason, detail=refusal.detail)
        yield row


def direction(first: PitchRange, second: PitchRange) -> str:
    """Whether the first sounds "higher" or "lower" than the second, where the ranges alone make that certain.

    The higher one has neither end below that of the other, and its middle lies more than 10 % above (two semitones).
    Then whatever part of both ranges is compared, the lowest tenth or the middle half, it is never the lower one.

    Raises:
        Refusal: one range holds the other and goes beyond it on both sides, or the middles are too close.
    """
    distance = (first.lowest + first.highest - second.lowest - second.highest) / 2
    ranges = ", ".join(f"{name} {note_name(lowest)}-{note_name(highest)}" for name, lowest, highest in (first, second))
    if abs(distance) <= MIN_DISTANCE:
        raise Refusal("the middles of the ranges differ by 10 % or less", ranges)
    higher, lower = (first, second) if distance > 0 else (second, first)
    if higher.lowest < lower.lowest or higher.highest < lower.highest:
        raise Refusal("one range lies within the other", ranges)
    return "higher" if higher is first else "lower"


def _read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The rows of a CSV file as the fields of `columns`, each with the words that say where it stands."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {path}; it has to be a CSV file with {', '.join(columns)}.")
    empty = True
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}; its columns are {reader.fieldnames}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                fields = tuple((row[column] or "").strip() for column in columns)
                if not all(fields):
                    absent = ", ".join(column for column, value in zip(columns, fields, strict=True) if not value)
                    raise ValueError(f"{where}: the row has no {absent}.")
                empty = False
                yield where, fields
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {reader.line_num}: no CSV in UTF-8 ({error}).") from error
    if empty:
        raise ValueError(f"{path} has no rows below its header.")

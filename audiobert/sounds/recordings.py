"""Where recordings come from: a folder with `metadata.csv`, or a `datasets` dataset with an audio column."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from ..csv_files import CsvRow, read_csv

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_NAME = "metadata.csv"
LABEL_COLUMNS = ("label", "caption")
ONE_LINE_COLUMNS = ("file_name", "id", "label", "source", "license", "seconds")

# What can be wrong with a row of metadata: its cells, its file's name, or that the file stood before.
MISFIT = "misfit"
BAD_NAME = "bad name"
DOUBLE_NAME = "double name"


@dataclass(frozen=True)
class MetadataRow:
    """A row of `metadata.csv`.

    Attributes:
        line: on which it begins, from 1.
        file_name: as it is written; a path within the folder unless `fault` says otherwise.
        cells: by column.
        fault: None, or one of `MISFIT`, `BAD_NAME` and `DOUBLE_NAME`; nothing in the row may be used then.
        detail: what is wrong, and what is to be done.
    """

    line: int
    file_name: str
    cells: dict[str, str]
    fault: str | None
    detail: str


@dataclass(frozen=True)
class SourceRecording:
    """A recording before it is decoded.

    `open` returns what `audiobert.sounds.decoding.load_audio` takes; `seconds` is None where the source does not
    state it, and `pitch_note` empty where it names no note.
    """

    id: str
    label: str
    source: str
    license: str
    seconds: float | None
    open: Callable[[], str | bytes]
    pitch_note: str = ""


def read_recordings(
    source: str | os.PathLike | Dataset | Sequence[str | os.PathLike | Dataset],
    sources: Sequence[str] | None = None,
    without_sources: Sequence[str] = (),
) -> list[SourceRecording]:
    """Lists the recordings of a folder or a dataset, or of several in their order, without decoding any.

    Args:
        source: a folder in the audiofolder layout, its `metadata.csv` with the columns `file_name` and `label` (or
            `caption`) and, if known, `source`, `license`, `seconds` and `pitch_note`; or a `datasets.Dataset` with an
            `Audio` column and the same other columns. `id` names a recording of a dataset, its row number if there is
            no such column; a file is named by its `file_name`. Or a list of such folders and datasets.
        sources: keep only the recordings whose `source` is one of these.
        without_sources: keep none of these.

    Raises:
        OSError: the folder or its `metadata.csv` is not there.
        ValueError: a column is missing, a label is empty, an id is double, a row is at fault (see `read_metadata`), or
            nothing is left to read.
    """
    places = list(source) if isinstance(source, (list, tuple)) else [source]
    recordings: list[SourceRecording] = []
    seen: dict[str, str] = {}
    names = []
    for place in places:
        if isinstance(place, (str, os.PathLike)):
            listed, where = recordings_of_folder(Path(place)), os.fspath(place)
        else:
            listed, where = recordings_of_dataset(place), "the dataset"
        names.append(where)
        for recording in listed:
            if recording.id in seen:
                raise ValueError(
                    f"{where} names the recording {recording.id!r}"
                    + (" twice" if seen[recording.id] == where else f", as {seen[recording.id]} does")
                    + "; every id may stand there once."
                )
            if not recording.label:
                raise ValueError(f"{where} gives the recording {recording.id!r} no label.")
            seen[recording.id] = where
        recordings += listed
    where = ", ".join(names)
    present = sorted({recording.source for recording in recordings})
    unknown = sorted({*(sources or ()), *without_sources} - set(present))
    if unknown:
        raise ValueError(f"{where} has no recordings of the sources {unknown}; it has {shortened(present)}.")
    wanted = set(present if sources is None else sources) - set(without_sources)
    recordings = [recording for recording in recordings if recording.source in wanted]
    if not recordings:
        raise ValueError(f"{where} holds no recordings{' of these sources' if present else ''}.")
    return recordings


def shortened(names: Sequence[str], most: int = 10) -> str:
    return f"{list(names)}" if len(names) <= most else f"{list(names[:most])} and {len(names) - most} more"


def recordings_of_folder(folder: Path) -> list[SourceRecording]:
    recordings = []
    label_column = ""
    for row in read_metadata(folder):
        label_column = label_column or find_label_column(list(row.cells), str(folder / METADATA_NAME))
        if row.fault is not None:
            raise ValueError(f"{folder / METADATA_NAME}, line {row.line}: {row.detail}.")
        recordings.append(
            SourceRecording(
                id=row.file_name,
                label=row.cells[label_column].strip(),
                source=row.cells.get("source", ""),
                license=row.cells.get("license", ""),
                seconds=parse_seconds(row.cells.get("seconds")),
                open=partial(os.fspath, recording_path(folder, row.file_name)),
                pitch_note=row.cells.get("pitch_note", "").strip(),
            )
        )
    return recordings


def read_metadata(folder: Path, required: Sequence[str] = ()) -> Iterator[MetadataRow]:
    """
    The rows of the `metadata.csv` of a folder of recordings, as `datasets` reads an audiofolder.

    What makes the whole file doubtful is an error; what is wrong with a row alone stands in its `fault`, so that a long
    build can list it and go on.

    Raises:
        OSError: the folder or its `metadata.csv` is not there.
        ValueError: as `audiobert.csv_files.read_csv` does, with file and line, for a column that is missing or double,
            a quotation mark that is not closed, also where another row's mark seems to close it, or bytes that are no
            UTF-8; or the file has no row.
    """
    path = folder / METADATA_NAME
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {METADATA_NAME}; it has to list the recordings in the columns file_name and label."
        )
    # 64 bits take less memory than the names; among a million, a false alarm has a chance of 3e-8.
    seen: dict[int, int] = {}
    for row in read_csv(path, ("file_name", *required)):
        if swallowed := _swallowed_row(row, folder):
            raise ValueError(
                f"{path}, line {row.line}: a cell goes on over the row of {swallowed!r}; close the quotation mark that "
                "opens it."
            )
        name = row.cells.get("file_name", "")
        fault, detail = _fault_of(row, folder)
        if fault is None:
            key = int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
            if seen.setdefault(key, row.line) != row.line:
                fault, detail = DOUBLE_NAME, f"{name!r} stands in line {seen[key]} already"
        yield MetadataRow(row.line, name, row.cells, fault, detail)


def recording_path(folder: str | os.PathLike, name: str) -> Path:
    """
    Where the recording of this name or id lies within a folder; it need not be there.

    Raises:
        ValueError: the name is empty, or leads out of the folder, as one in files from elsewhere could.
    """
    if not name:
        raise ValueError("A recording has no name; write its path within the folder of recordings.")
    # By the rules of either system: the folder may have been made on the other one.
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.anchor or posix.is_absolute() or "\\" in name or "\0" in name or ".." in posix.parts:
        raise ValueError(
            f"The recording's id {name!r} leads out of the folder of recordings: it is not opened. An id has to be a "
            "path within the folder, written with /."
        )
    return Path(folder, name)


def find_recording(folder: str | os.PathLike, name: str) -> Path:
    """
    The file of a recording whose id is its name within `folder`.

    Raises:
        FileNotFoundError: the recording is not in it.
        ValueError: as `recording_path`.
    """
    path = recording_path(folder, name)
    if not path.is_file():
        raise FileNotFoundError(f"The folder of recordings holds no {name!r}.")
    return path


def _fault_of(row: CsvRow, folder: Path) -> tuple[str | None, str]:
    if row.misfit is not None:
        return MISFIT, row.misfit
    if broken := [name for name in ONE_LINE_COLUMNS if len(row.cells.get(name, "").splitlines()) > 1]:
        return MISFIT, f"{broken[0]} holds a line break; write it on one line"
    try:
        parse_seconds(row.cells.get("seconds"))
    except ValueError as error:
        return MISFIT, str(error)
    try:
        recording_path(folder, row.cells["file_name"])
    except ValueError:
        return BAD_NAME, (
            f"file_name has to be a path within the folder, written with /, got {row.cells['file_name']!r}"
        )
    return None, ""


def _swallowed_row(row: CsvRow, folder: Path) -> str | None:
    """The recording whose row stands within a cell, as it does where a quotation mark is closed rows later."""
    for cell in row.cells.values():
        if len(cell.splitlines()) > 1:
            for name in re.split(r"[,\r\n]", cell):
                is_other = name != row.cells["file_name"] and not os.path.isabs(name)
                if is_other and os.path.isfile(os.path.join(folder, name)):
                    return name
    return None


def recordings_of_dataset(dataset: Dataset) -> list[SourceRecording]:
    from datasets import Audio, ClassLabel, Dataset, DatasetDict

    if isinstance(dataset, DatasetDict):
        raise TypeError(f"the recordings came as a DatasetDict; pass one of its splits {sorted(dataset)}.")
    if not isinstance(dataset, Dataset):
        raise TypeError(f"recordings are read from a folder or a `datasets.Dataset`, got {type(dataset).__name__}.")
    audio_columns = [name for name, feature in dataset.features.items() if isinstance(feature, Audio)]
    if len(audio_columns) != 1:
        raise ValueError(f"the dataset needs one Audio column, it has {audio_columns} among {dataset.column_names}.")
    audio_column = audio_columns[0]
    label_column = find_label_column(dataset.column_names, "the dataset")
    label_feature = dataset.features[label_column]
    # The bytes are decoded here, so torchcodec need not be installed.
    audio = dataset.select_columns([audio_column]).cast_column(audio_column, Audio(decode=False))
    rows = dataset.remove_columns([audio_column])

    def open_row(number: int) -> str | bytes:
        value = audio[number][audio_column] or {}
        # A row without audio counts as an empty file: skipped and listed like one that is damaged.
        return value.get("bytes") or value.get("path") or b""

    recordings = []
    for number, row in enumerate(rows):
        label = row[label_column]
        if isinstance(label_feature, ClassLabel) and label is not None:
            label = label_feature.int2str(label)
        identity = row.get("id")
        try:
            seconds = parse_seconds(row.get("seconds"))
        except ValueError as error:
            raise ValueError(f"row {number} of the dataset: {error}.") from None
        recordings.append(
            SourceRecording(
                id=str(number if identity is None else identity),
                label=str(label or "").strip(),
                source=row.get("source") or "",
                license=row.get("license") or "",
                seconds=seconds,
                open=partial(open_row, number),
                pitch_note=str(row.get("pitch_note") or "").strip(),
            )
        )
    return recordings


def find_label_column(columns: Sequence[str], where: str) -> str:
    for name in LABEL_COLUMNS:
        if name in columns:
            return name
    raise ValueError(f"{where} has no column label or caption; its columns are {list(columns)}.")


def parse_seconds(value: str | float | None) -> float | None:
    if value is None or value == "":
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds has to be a number, 0 or more, got {value!r}")
    return seconds

"""Where recordings come from: a folder with `metadata.csv`, or a `datasets` dataset with an audio column."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

METADATA_NAME = "metadata.csv"
LABEL_COLUMNS = ("label", "caption")


@dataclass(frozen=True)
class SourceRecording:
    """A recording before it is decoded.

    `open` returns what `audiobert.sounds.decoding.load_audio` takes; `seconds` is None where the source does not
    state it.
    """

    id: str
    label: str
    source: str
    license: str
    seconds: float | None
    open: Callable[[], str | bytes]


def read_recordings(source: str | os.PathLike | Dataset, sources: Sequence[str] | None = None) -> list[SourceRecording]:
    """Lists the recordings of a folder or a dataset, without decoding any.

    Args:
        source: a folder in the audiofolder layout, its `metadata.csv` with the columns `file_name` and `label` (or
            `caption`) and, if known, `source`, `license` and `seconds`; or a `datasets.Dataset` with an `Audio` column
            and the same other columns. `id` names a recording of a dataset, its row number if there is no such column;
            a file is named by its `file_name`.
        sources: keep only the recordings whose `source` is one of these.

    Raises:
        OSError: the folder or its `metadata.csv` is not there.
        ValueError: a column is missing, a label is empty, an id is double, or nothing is left to read.
    """
    if isinstance(source, (str, os.PathLike)):
        recordings = recordings_of_folder(Path(source))
        where = os.fspath(source)
    else:
        recordings = recordings_of_dataset(source)
        where = "the dataset"
    seen: set[str] = set()
    for recording in recordings:
        if recording.id in seen:
            raise ValueError(f"{where} names the recording {recording.id!r} twice; every id may stand there once.")
        if not recording.label:
            raise ValueError(f"{where} gives the recording {recording.id!r} no label.")
        seen.add(recording.id)
    if sources is not None:
        present = sorted({recording.source for recording in recordings})
        unknown = sorted(set(sources) - set(present))
        if unknown:
            raise ValueError(f"{where} has no recordings of the sources {unknown}; it has {present}.")
        recordings = [recording for recording in recordings if recording.source in sources]
    if not recordings:
        raise ValueError(f"{where} holds no recordings.")
    return recordings


def recordings_of_folder(folder: Path) -> list[SourceRecording]:
    path = folder / METADATA_NAME
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {METADATA_NAME}; it has to list the recordings in the columns file_name and label."
        )
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if "file_name" not in columns:
            raise ValueError(f"{path} has no column file_name; its columns are {columns}.")
        label_column = find_label_column(columns, str(path))
        recordings = []
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            name = row["file_name"]
            if not name or Path(name).is_absolute():
                raise ValueError(f"{where}: file_name has to be a path relative to the folder, got {name!r}.")
            recordings.append(
                SourceRecording(
                    id=name,
                    label=(row[label_column] or "").strip(),
                    source=row.get("source") or "",
                    license=row.get("license") or "",
                    seconds=parse_seconds(row.get("seconds"), where),
                    open=lambda name=name: str(folder / name),
                )
            )
    return recordings


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
        recordings.append(
            SourceRecording(
                id=str(number if identity is None else identity),
                label=str(label or "").strip(),
                source=row.get("source") or "",
                license=row.get("license") or "",
                seconds=parse_seconds(row.get("seconds"), f"row {number} of the dataset"),
                open=lambda number=number: open_row(number),
            )
        )
    return recordings


def find_label_column(columns: Sequence[str], where: str) -> str:
    for name in LABEL_COLUMNS:
        if name in columns:
            return name
    raise ValueError(f"{where} has no column label or caption; its columns are {list(columns)}.")


def parse_seconds(value: str | float | None, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{where}: seconds has to be a number, got {value!r}.") from None

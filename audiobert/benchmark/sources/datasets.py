"""Records out of `datasets` datasets: of the Hub, streamed, or objects that the caller made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Dataset, DatasetDict, IterableDataset, IterableDatasetDict, load_dataset

from .folders import files_below, fingerprint_of_files
from .records import TEXT_COLUMNS, Record, RecordSource, record_of_columns, record_of_mapping

# WebDataset's JSON, as `datasets` gives it, is that of LAION-Audio-630K.
JSON_COLUMN = "json"
OTHER_COLUMNS = ("tags", "description", "source", "license", "id")
FINGERPRINT_ROWS = 100


@dataclass
class StoredAudio(Audio):
    """Audio as it is stored, path or bytes: unlike `Audio(decode=False)`, a stream of it does without torchcodec."""

    decode: bool = False

    def encode_example(self, value: Any) -> dict[str, Any]:
        if isinstance(value, (str, os.PathLike)):
            return {"bytes": None, "path": os.fspath(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        return {"bytes": value.get("bytes"), "path": value.get("path")}


class DatasetSource(RecordSource):
    """A `Dataset` or an `IterableDataset`; `audio` of its records is the number of the row, from 0.

    The audio is in the Audio column (the one named audio, if there are several), or in a column `audio` of paths,
    bytes, or dicts of both. Without such a column there are records, but no audio. `id` is the column of that name; in
    a dataset that has none it is the number of the row.

    Args:
        dataset: with at least one of the columns title, text, caption, captions, label, or `json` (WebDataset).
        name: for people.
        fingerprint: a digest of the content; by default one of the columns, the number of rows if it is known, and the
            first 100 records.
        token: to read files of a private dataset on the Hub.

    Raises:
        TypeError: `dataset` is none.
        ValueError: there is no column with text, or several with audio and none named so.
    """

    def __init__(
        self,
        dataset: Dataset | IterableDataset,
        name: str = "dataset",
        fingerprint: str | None = None,
        token: str | bool | None = None,
    ) -> None:
        if isinstance(dataset, (DatasetDict, IterableDatasetDict)):
            raise TypeError(f"Records came as a {type(dataset).__name__}; pass one of its splits {sorted(dataset)}.")
        if not isinstance(dataset, (Dataset, IterableDataset)):
            raise TypeError(
                f"Records are read from a folder, a tar, a Hub id or a dataset, got {type(dataset).__name__}."
            )
        self.name = name
        self._dataset = dataset.with_format(None)
        self._fingerprint = fingerprint
        self._token = token
        # A stream may not know its features; then its first row shows them.
        self._features = dataset.features or {}
        self._columns = list(self._features or next(iter(self._dataset), {}))
        self._audio_column = self._find_audio_column()
        if not set(self._columns) & {JSON_COLUMN, *TEXT_COLUMNS}:
            raise ValueError(
                f"{name} needs a column {', '.join(TEXT_COLUMNS[:-1])} or {TEXT_COLUMNS[-1]}; its columns are "
                f"{self._columns}. Rename one with `rename_column` and pass the dataset."
            )

    def fingerprint(self) -> str:
        if self._fingerprint is not None:
            return self._fingerprint
        count = len(self._dataset) if isinstance(self._dataset, Dataset) else None
        records = [record.to_row() for record in islice(self.read(), FINGERPRINT_ROWS)]
        return hashlib.sha256(json.dumps([self._columns, count, records]).encode()).hexdigest()

    def read(self) -> Iterator[Record]:
        known = (*TEXT_COLUMNS, *OTHER_COLUMNS, JSON_COLUMN)
        # Without the other columns no audio, image or video is read in vain.
        columns = [name for name in self._columns if name in known]
        has_ids = "id" in columns or JSON_COLUMN in columns
        for number, row in enumerate(self._rows(self._dataset.select_columns(columns))):
            row = {name: self._value(name, value) for name, value in row.items()}
            # Other rows may have numbers for ids.
            identity = f"row-{number}" if has_ids else str(number)
            if isinstance(row.get(JSON_COLUMN), dict):
                yield record_of_mapping(row[JSON_COLUMN], identity, str(number), self.name)
            else:
                yield record_of_columns(row, identity, str(number), self.name)

    def audio_of(self, rows: Iterable[dict]) -> Iterator[tuple[dict, str | bytes | None]]:
        if self._audio_column is None:
            yield from ((row, None) for row in rows)
            return
        dataset = self._dataset.select_columns([self._audio_column])
        if isinstance(self._features.get(self._audio_column), Audio):
            dataset = dataset.cast_column(self._audio_column, StoredAudio())
        if isinstance(dataset, Dataset):
            for row in rows:
                yield row, self._content(dataset[int(row["audio"])][self._audio_column])
            return
        stream = enumerate(self._rows(dataset))
        number, example = -1, None
        for row in rows:
            wanted = int(row["audio"])
            if wanted < number:
                raise ValueError(f"{self.name} is read as a stream: row {wanted} was asked for after row {number}.")
            while number < wanted:
                # A stream that has become shorter: the audio is gone.
                number, example = next(stream, (wanted, None))
            yield row, None if example is None else self._content(example[self._audio_column])

    def _rows(self, dataset: Dataset | IterableDataset) -> Iterator[dict]:
        number = 0
        try:
            for row in dataset:
                yield row
                number += 1
        except Exception as error:
            raise OSError(f"{self.name} cannot be read at row {number}: {error}") from error

    def _find_audio_column(self) -> str | None:
        columns = [name for name in self._columns if isinstance(self._features.get(name), Audio)]
        if "audio" in self._columns:
            return "audio"
        if len(columns) > 1:
            raise ValueError(f"{self.name} has several Audio columns, {columns}; name the one to use `audio`.")
        return columns[0] if columns else None

    def _value(self, name: str, value: Any) -> Any:
        feature = self._features.get(name)
        if isinstance(feature, ClassLabel) and isinstance(value, int):
            # -1 stands for a label that is not known.
            return feature.int2str(value) if value >= 0 else None
        return value

    def _content(self, value: Any) -> str | bytes | None:
        if isinstance(value, dict) and ("bytes" in value or "path" in value):
            value = value.get("bytes") or value.get("path")
        if value is None or isinstance(value, bytes):
            return value
        if not isinstance(value, str):
            raise ValueError(
                f"The column {self._audio_column} of {self.name} has to hold encoded audio or its path, got "
                f"{type(value).__name__}; cast it to `datasets.Audio(decode=False)`."
            )
        if "://" in value:
            return download(value, self._token)
        return value if os.path.isfile(value) else None


def open_dataset(name_or_folder: str | Path, split: str, config: str | None, token: str | bool | None) -> DatasetSource:
    """Streams a dataset of the Hub, in the version that it has now, or a folder that `datasets` reads."""
    name = name_or_folder.resolve().name if isinstance(name_or_folder, Path) else name_or_folder
    name = ", ".join(part for part in (name, config, split) if part)
    if isinstance(name_or_folder, Path):
        state = fingerprint_of_files(name_or_folder, files_below(name_or_folder), {".parquet", ".jsonl", ".json"})
        dataset = load_dataset(str(name_or_folder), config, split=split, streaming=True)
    else:
        # The audio is read later than the words: of the same commit.
        state = commit_of(name_or_folder, token)
        dataset = load_dataset(name_or_folder, config, split=split, streaming=True, revision=state, token=token)
    fingerprint = hashlib.sha256(json.dumps([name, state]).encode()).hexdigest()
    return DatasetSource(dataset, name, fingerprint, token)


def commit_of(dataset_id: str, token: str | bool | None) -> str:
    from huggingface_hub import HfApi

    try:
        # The Hub names the commit of whatever it has.
        return str(HfApi(token=token).dataset_info(dataset_id).sha)
    except Exception as error:
        raise OSError(
            f"{dataset_id!r} is no file or folder here, and no dataset of that name was found on the Hub: {error}"
        ) from error


def download(url: str, token: str | bool | None) -> bytes | None:
    """The content of a file that a stream names by its address, which may point into an archive; None if it is gone."""
    import fsspec

    try:
        with fsspec.open(url, "rb", hf={"token": token}) as file:
            return file.read()
    except FileNotFoundError:
        return None

"""Which source of records a path, a name or an object is.

LAION-Audio-630K's layout (JSON beside FLAC, loose or in WebDataset tars), a folder with `metadata.csv`, and any
`datasets` dataset.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...sounds.recordings import METADATA_NAME
from .folders import MetadataFolder, RecordingsFolder, holds_dataset
from .records import RecordSource

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def open_source(
    metadata: str | os.PathLike | Dataset | IterableDataset,
    *,
    split: str = "train",
    config: str | None = None,
    token: str | bool | None = None,
) -> RecordSource:
    """Finds out what kind of source `metadata` is; nothing but its beginning is read here.

    Args:
        metadata: one of

            - a folder with `metadata.csv`: the columns `file_name` and one or more of title, text, caption and label;
              optional are tags (separated by commas or semicolons), description, source, license and id;
            - a folder that holds, at any depth, audio with JSON of the same stem beside it (LAION-Audio-630K), or
              WebDataset tars of such pairs, or both; or one such tar;
            - a folder of Parquet files or with `metadata.jsonl`, or the id of a dataset on the Hub: streamed by
              `datasets.load_dataset`; columns as those of `metadata.csv`, without `file_name`;
            - a `datasets.Dataset` or `IterableDataset`.
        split, config, token: for `datasets.load_dataset` alone.

    Raises:
        OSError: there is no such file, folder or dataset, or the Hub cannot be reached.
        ValueError: nothing in the folder is known, or a column is missing.
        TypeError: `metadata` is none of these, such as a `DatasetDict`.
    """
    # `datasets`, which takes its time, is imported for datasets alone.
    if not isinstance(metadata, (str, os.PathLike)):
        from .datasets import DatasetSource

        return DatasetSource(metadata)
    path = Path(metadata)
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or path.suffix in (".tar", ".csv")):
        raise FileNotFoundError(f"There is no file or folder {path}.")
    if not path.exists() or (path.is_dir() and holds_dataset(path)):
        from .datasets import open_dataset

        return open_dataset(path if path.exists() else os.fspath(metadata), split, config, token)
    if config is not None:
        raise ValueError(f"`config` belongs to datasets; {path} is a folder or file of recordings and has none.")
    if path.is_dir():
        return MetadataFolder(path) if (path / METADATA_NAME).is_file() else RecordingsFolder(path)
    if path.name == METADATA_NAME:
        return MetadataFolder(path.parent)
    if path.suffix.lower() == ".tar":
        return RecordingsFolder(path.parent, archive=path.name)
    raise ValueError(
        f"{path} is no source of records; give a folder, a {METADATA_NAME}, an uncompressed tar or a Hub id."
    )

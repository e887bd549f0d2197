"""Records out of folders: a `metadata.csv`, or JSON beside audio, loose or in tars, at any depth."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ...files import sha256_of
from ...sounds.recordings import (
    BAD_NAME,
    DOUBLE_NAME,
    METADATA_NAME,
    MISFIT,
    find_recording,
    read_metadata,
)
from .records import (
    DAMAGED_ARCHIVE,
    DOUBLE_ID,
    NO_AUDIO,
    NO_METADATA,
    TEXT_COLUMNS,
    UNREADABLE_METADATA,
    Record,
    RecordSource,
    encoded,
    record_of_columns,
    record_of_json,
)
from .webdataset import AUDIO_EXTENSIONS, METADATA_EXTENSION, Archive, DamagedArchiveError, samples_of

# What is wrong with a row of metadata, in the words that are counted.
REFUSALS = {MISFIT: UNREADABLE_METADATA, BAD_NAME: NO_AUDIO, DOUBLE_NAME: DOUBLE_ID}
ARCHIVE_EXTENSION = ".tar"
# Between the path of a tar and the name of a member.
ARCHIVE_MARK = f"{ARCHIVE_EXTENSION}::"
# LAION's tars have the list of their sizes beside them.
SIZES_NAME = "sizes.json"
SPLIT_FOLDERS = {"train", "training", "valid", "validation", "val", "dev", "test", "eval"}


class MetadataFolder(RecordSource):
    """A folder whose `metadata.csv` names the recordings, as `datasets` reads an audiofolder.

    `id` is the column of that name, or else the `file_name`, as it is in knowledge bases.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.resolve().name
        self._path = root / METADATA_NAME
        # A missing column is told at once, not after a model server was started.
        first = next(read_metadata(root), None)
        if first is None:
            raise ValueError(f"{self._path} names no recordings.")
        if not set(first.cells) & set(TEXT_COLUMNS):
            raise ValueError(
                f"{self._path} needs a column {', '.join(TEXT_COLUMNS[:-1])} or {TEXT_COLUMNS[-1]}; "
                f"its columns are {list(first.cells)}."
            )

    def fingerprint(self) -> str:
        return sha256_of(self._path)

    def read(self) -> Iterator[Record]:
        for row in read_metadata(self.root):
            identity = row.file_name or f"line {row.line}"
            if row.fault is not None:
                detail = f"line {row.line}: {row.detail}"
                yield Record(identity, row.file_name, refusal=REFUSALS[row.fault], detail=detail)
                continue
            record = record_of_columns(row.cells, identity, row.file_name, self.name)
            if file_within(self.root, row.file_name) is None:
                detail = f"line {row.line}: there is no file {row.file_name!r}"
                record = replace(record, refusal=NO_AUDIO, detail=detail)
            yield record

    def audio_of(self, rows: Iterable[dict]) -> Iterator[tuple[dict, str | bytes | None]]:
        return ((row, file_within(self.root, row["audio"])) for row in rows)


class RecordingsFolder(RecordSource):
    """A folder, read to any depth, of audio with JSON of the same stem beside it, and of tars of such pairs.

    Folders, and in them stems and then tars, are read in the order of their names; hidden ones are passed over.
    Symbolic links are followed, each folder is read once. Memory grows with the names in a single folder.

    A tar that is damaged gives the records before the damage and one refused record that names it; the next tar is
    read as if nothing had been.
    """

    def __init__(self, root: Path, archive: str | None = None) -> None:
        self.root = root
        self.name = archive or root.resolve().name
        self._archive = archive
        if next(self._places(), None) is None:
            raise ValueError(
                f"{root} holds no recordings: neither {METADATA_NAME} nor, at any depth, audio files or uncompressed "
                f"{ARCHIVE_EXTENSION} files."
            )

    def fingerprint(self) -> str:
        return fingerprint_of_files(
            self.root, self._folders(), {*AUDIO_EXTENSIONS, METADATA_EXTENSION, ARCHIVE_EXTENSION}
        )

    def read(self) -> Iterator[Record]:
        for folder, names in self._folders():
            yield from self._loose_records(folder, names)
            for name in names:
                if extension_of(name) == ARCHIVE_EXTENSION:
                    yield from self._archive_records(folder / name)

    def audio_of(self, rows: Iterable[dict]) -> Iterator[tuple[dict, str | bytes | None]]:
        archive = None
        try:
            for row in rows:
                path, mark, member = row["audio"].partition(ARCHIVE_MARK)
                if not mark:
                    yield row, file_within(self.root, row["audio"])
                    continue
                file = file_within(self.root, f"{path}{ARCHIVE_EXTENSION}")
                if file is None:
                    yield row, None
                    continue
                if archive is None or str(archive.path) != file:
                    if archive is not None:
                        archive.close()
                    archive = Archive(Path(file))
                yield row, archive.find(member)
        finally:
            if archive is not None:
                archive.close()

    def _folders(self) -> Iterator[tuple[Path, list[str]]]:
        return files_below(self.root) if self._archive is None else iter([(self.root, [self._archive])])

    def _places(self) -> Iterator[Path]:
        for folder, names in self._folders():
            for name in names:
                if extension_of(name) == ARCHIVE_EXTENSION or extension_of(name) in AUDIO_EXTENSIONS:
                    yield folder / name

    def _loose_records(self, folder: Path, names: list[str]) -> Iterator[Record]:
        audio = defaultdict(list)
        metadata = {}
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() in AUDIO_EXTENSIONS:
                audio[stem].append(name)
            elif extension.lower() == METADATA_EXTENSION and name != SIZES_NAME:
                metadata[stem] = name
        for stem in sorted({*audio, *metadata}):
            identity = self._locator(folder / stem)
            source = self._collection(folder)
            if stem not in audio:
                detail = f"no audio beside {metadata[stem]}"
                yield Record(identity, "", source=source, refusal=NO_AUDIO, detail=detail)
            for name in audio.get(stem, ()):
                locator = self._locator(folder / name)
                if stem not in metadata:
                    detail = f"no {stem}{METADATA_EXTENSION} beside {name}"
                    yield Record(identity, locator, source=source, refusal=NO_METADATA, detail=detail)
                    continue
                try:
                    content = (folder / metadata[stem]).read_bytes()
                except OSError as error:
                    detail = error.strerror or str(error)
                    yield Record(identity, locator, source=source, refusal=UNREADABLE_METADATA, detail=detail)
                else:
                    yield record_of_json(content, identity, locator, source)

    def _archive_records(self, path: Path) -> Iterator[Record]:
        locator = self._locator(path)
        source = self._collection(path.parent)
        try:
            for stem, audio, metadata in samples_of(path):
                identity = f"{locator}::{stem}"
                if audio is None:
                    detail = f"no audio beside {stem}{METADATA_EXTENSION} in {locator}"
                    yield Record(identity, "", source=source, refusal=NO_AUDIO, detail=detail)
                elif metadata is None:
                    detail = f"no {stem}{METADATA_EXTENSION} beside {audio} in {locator}"
                    yield Record(identity, f"{locator}::{audio}", source=source, refusal=NO_METADATA, detail=detail)
                else:
                    yield record_of_json(metadata, identity, f"{locator}::{audio}", source)
        except DamagedArchiveError as error:
            detail = f"{locator}: {error.reason}"
            yield Record(locator, "", source=source, refusal=DAMAGED_ARCHIVE, detail=detail)

    def _locator(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _collection(self, folder: Path) -> str:
        """The first folder below the root that is no split, as in `freesound/train/1.flac`, or else the root's name."""
        parts = folder.relative_to(self.root).parts
        return next((part for part in parts if part.lower() not in SPLIT_FOLDERS), self.root.resolve().name)


def file_within(folder: Path, name: str) -> str | None:
    """The path of a file by its name within a folder; None where it is gone, or would lie elsewhere."""
    try:
        return str(find_recording(folder, name))
    except (FileNotFoundError, ValueError):
        return None


def holds_dataset(folder: Path) -> bool:
    """Whether the folder is one that only `datasets.load_dataset` reads: Parquet files, or other metadata than CSV."""
    if (folder / METADATA_NAME).is_file():
        return False
    if (folder / "metadata.jsonl").is_file() or (folder / "metadata.parquet").is_file():
        return True
    return any(folder.glob("*.parquet")) or any(folder.glob("data/*.parquet"))


def files_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with the names of its files, all in order, without hidden ones."""

    def fail(error: OSError) -> None:
        raise error

    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        place = os.path.realpath(folder)
        if place in visited:
            folders.clear()
            continue
        visited.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), sorted(name for name in names if not name.startswith("."))


def fingerprint_of_files(root: Path, folders: Iterable[tuple[Path, list[str]]], extensions: set[str]) -> str:
    """A digest over the names, relative to `root`, and the sizes of the files with these extensions."""
    digest = hashlib.sha256()
    for folder, names in folders:
        for name in names:
            if extension_of(name) in extensions:
                path = folder / name
                size = path.stat().st_size if path.exists() else -1
                digest.update(encoded(f"{path.relative_to(root).as_posix()}\0{size}\0"))
    return digest.hexdigest()


def extension_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()

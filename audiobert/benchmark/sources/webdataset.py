"""Tars in the WebDataset layout: the members of one sample share their name up to the extension."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

# What libsndfile reads, and with it `audiobert.sounds.decoding.load_audio`.
AUDIO_EXTENSIONS = {".flac", ".wav", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"}
METADATA_EXTENSION = ".json"


class DamagedArchiveError(ValueError):
    """A tar that is cut off or broken: `reason` says how, without its name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is damaged: {reason}")
        self.reason = reason


class Sample(NamedTuple):
    """A recording in a tar: the name of its member and the content of the JSON; None for the one that is missing."""

    stem: str
    audio: str | None
    metadata: bytes | None


def samples_of(path: Path) -> Iterator[Sample]:
    """Pairs audio and JSON in one pass over the tar, in the order in which the pairs are complete.

    In tars made for WebDataset a sample's members are neighbours; in others, those that wait for their other half take
    memory. Samples without one come last.

    Raises:
        DamagedArchiveError: after all samples before the damage.
        OSError: the file cannot be opened.
    """
    waiting: dict[str, tuple[tarfile.TarInfo, bool]] = {}
    damage = None
    with closing(Archive(path)) as archive:
        try:
            for member in archive.members():
                stem, extension = os.path.splitext(member.name)
                is_audio = extension.lower() in AUDIO_EXTENSIONS
                if not is_audio and extension.lower() != METADATA_EXTENSION:
                    continue
                other, other_is_audio = waiting.get(stem, (None, is_audio))
                if other is None:
                    waiting[stem] = member, is_audio
                elif other_is_audio != is_audio:
                    del waiting[stem]
                    audio, metadata = (member, other) if is_audio else (other, member)
                    yield Sample(stem, audio.name, archive.content(metadata))
                elif is_audio:
                    # Two recordings of one name: the JSON will go to the first.
                    yield Sample(stem, member.name, None)
        except DamagedArchiveError as error:
            damage = error
        except OSError as error:
            # A bad sector; a disk that is gone fails at the next tar.
            damage = DamagedArchiveError(path, error.strerror or str(error))
        for stem, (member, is_audio) in waiting.items():
            yield Sample(stem, member.name, None) if is_audio else Sample(stem, None, archive.content(member))
    if damage is not None:
        raise damage


class Archive:
    """An uncompressed tar that is open for reading. Members are found by their headers alone, never by their content.

    tarfile takes a damaged header in the middle for the end; here it is a DamagedArchiveError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "rb")
        self._offsets: dict[str, tuple[int, int]] | None = None

    def close(self) -> None:
        self._file.close()

    def members(self) -> Iterator[tarfile.TarInfo]:
        """The files in the tar, up to its end or to where it is damaged, without hidden ones."""
        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        try:
            archive = tarfile.open(fileobj=self._file, mode="r:")
            while (member := archive.next()) is not None:
                # tarfile keeps all members; only the last one is needed to go on.
                archive.members = []  # type: ignore[attr-defined]  # typeshed leaves it out
                if member.offset_data + member.size > size:
                    raise DamagedArchiveError(self.path, f"it is cut off within {member.name}")
                if member.isfile() and not os.path.basename(member.name).startswith("."):
                    yield member
        except DamagedArchiveError:
            raise
        except (tarfile.TarError, ValueError, EOFError) as error:
            raise DamagedArchiveError(self.path, str(error)) from error
        self._file.seek(archive.offset)
        if self._file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            reason = f"there is neither a file nor the mark of the end at byte {archive.offset:,} of {size:,}"
            raise DamagedArchiveError(self.path, reason)

    def content(self, member: tarfile.TarInfo) -> bytes:
        return self._read(member.offset_data, member.size)

    def find(self, name: str) -> bytes | None:
        """The content of a file in the tar by its name; None if it is not there."""
        if self._offsets is None:
            self._offsets = {}
            try:
                for member in self.members():
                    self._offsets.setdefault(member.name, (member.offset_data, member.size))
            except DamagedArchiveError:
                # What stands behind the damage counts as gone.
                pass
        place = self._offsets.get(name)
        return None if place is None else self._read(*place)

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

"""Records: what is known in words about each recording that a benchmark is built from (paper, section II-A).

All sources are streamed: memory grows with the number of ids alone (some 70 bytes each, to find double ones), never
with texts or audio.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

# Why a record is not used; each is counted by these words.
NO_TEXT = "no text"
NO_METADATA = "no metadata"
NO_AUDIO = "no audio"
UNREADABLE_METADATA = "unreadable metadata"
DAMAGED_ARCHIVE = "damaged archive"
DOUBLE_ID = "double id"

TEXT_COLUMNS = ("title", "text", "caption", "captions", "label")

_MARKUP = re.compile(r"<!--.*?-->|</?([a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>", re.DOTALL)
_TAGS_WITHIN_WORDS = {"a", "abbr", "b", "code", "em", "font", "i", "s", "small", "span", "strong", "sub", "sup", "u"}


@dataclass(frozen=True)
class Record:
    """The words on one recording.

    Attributes:
        id: unique within its source.
        audio: where the audio stands in its source: a path relative to the folder, `name.tar::member.flac`, or the row
            of a dataset. Empty where there is none.
        text: the title first, if there is one, then the captions; at least one in a record that is used.
        tags: as the uploader chose them.
        description: free text, without HTML.
        source: the collection that the recording is from, such as "freesound.org".
        license: as the source states it.
        refusal: None for a record that is used, else the reason why it is not.
        detail: what is particular about that reason.
    """

    id: str
    audio: str
    text: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str = ""
    source: str = ""
    license: str = ""
    refusal: str | None = None
    detail: str = ""

    def to_row(self) -> dict[str, Any]:
        """The record as JSON knows it, with lists for tuples."""
        return {**asdict(self), "text": list(self.text), "tags": list(self.tags)}


class RecordSource(ABC):
    """Where records come from. `name` says it to people, without a path of this machine."""

    name: str

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest that changes with the content of the source; cheap, so that it sees names and sizes at least."""

    @abstractmethod
    def read(self) -> Iterator[Record]:
        """All records in an order that stays; those that cannot be used have a `refusal`."""

    @abstractmethod
    def audio_of(self, rows: Iterable[dict]) -> Iterator[tuple[dict, str | bytes | None]]:
        """Each row with its audio, as `audiobert.sounds.decoding.load_audio` takes it; None where the audio is gone.

        The rows are some or all of `Record.to_row()`, in the order of `records`.
        """

    def records(self) -> Iterator[Record]:
        """All records, in an order that stays; one is refused if it has no text, or an id that stood before.

        Where there is neither title nor caption, the description is the text, or else the tags are.
        """
        seen: set[int] = set()
        for record in self.read():
            if record.refusal is None:
                record = replace(record, text=record.text or texts_of(record.description or ", ".join(record.tags)))
                # 64 bits take less memory than the ids; among 630,000, a false alarm has a chance of 1e-8.
                key = int.from_bytes(hashlib.blake2b(encoded(record.id), digest_size=8).digest(), "big")
                if not record.text:
                    record = replace(record, refusal=NO_TEXT)
                elif key in seen:
                    record = replace(record, refusal=DOUBLE_ID, detail=f"{record.id!r} at {record.audio} stood before")
                else:
                    seen.add(key)
            yield record


def record_of_json(content: bytes, identity: str, audio: str, source: str) -> Record:
    """Reads the JSON beside a recording; where that fails, the record is refused.

    Args:
        content: `{"text": [captions] or caption, "tag": [...], "original_data": {"title", "description", "id", ...}}`.
        identity: the id, unless the JSON states one.
        audio: where the audio stands in the source.
        source: the collection, unless the JSON states it.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Record(identity, audio, source=source, refusal=UNREADABLE_METADATA, detail=str(error))
    if not isinstance(value, dict):
        detail = f"the JSON is no object but of the type {type(value).__name__}"
        return Record(identity, audio, source=source, refusal=UNREADABLE_METADATA, detail=detail)
    return record_of_mapping(value, identity, audio, source)


def record_of_mapping(value: dict[str, Any], identity: str, audio: str, source: str) -> Record:
    """The same as `record_of_json` for JSON that was parsed."""
    original = value.get("original_data")
    if not isinstance(original, dict):
        original = {}
    title = original.get("title") or value.get("title")
    return Record(
        id=identity_of(original.get("id")) or identity,
        audio=audio,
        text=texts_of(title, value.get("text")),
        tags=tags_of(value.get("tag") or value.get("tags") or original.get("tags")),
        description=clean_text(original.get("description") or value.get("description")),
        source=clean_text(original.get("source")) or host_of(original.get("download_url")) or source,
        license=clean_text(original.get("license") or value.get("license")),
    )


def record_of_columns(row: dict[str, Any], identity: str, audio: str, source: str) -> Record:
    """A row of `metadata.csv` or of a dataset as a record."""
    return Record(
        id=identity_of(row.get("id")) or identity,
        audio=audio,
        text=texts_of(*(row.get(name) for name in TEXT_COLUMNS)),
        tags=tags_of(row.get("tags")),
        description=clean_text(row.get("description")),
        source=clean_text(row.get("source")) or source,
        license=clean_text(row.get("license")),
    )


def clean_text(value: Any) -> str:
    """Text without HTML, on one line; empty for what is neither text nor a number."""
    if not isinstance(value, (str, int, float)) or value != value:
        return ""
    # Descriptions that were cut off can end in half a surrogate pair, which no file in UTF-8 can hold.
    text = str(value).encode("utf-8", "ignore").decode("utf-8")
    text = _MARKUP.sub(lambda tag: "" if (tag[1] or "").lower() in _TAGS_WITHIN_WORDS else " ", text)
    return " ".join(html.unescape(text).split())


def texts_of(*values: Any) -> tuple[str, ...]:
    """The texts of all values, each of them a text or a list of texts, without empty and equal ones."""
    listed = [text for value in values for text in (value if isinstance(value, (list, tuple)) else [value])]
    return tuple(dict.fromkeys(text for text in map(clean_text, listed) if text))


def tags_of(value: Any) -> tuple[str, ...]:
    return texts_of(re.split("[,;]", value) if isinstance(value, str) else value)


def identity_of(value: Any) -> str:
    return "" if isinstance(value, bool) or not isinstance(value, (str, int)) else clean_text(value)


def host_of(url: Any) -> str:
    try:
        return urlsplit(url).hostname or "" if isinstance(url, str) else ""
    except ValueError:
        return ""


def encoded(text: str) -> bytes:
    # Names of files need not be valid text.
    return text.encode("utf-8", "surrogatepass")

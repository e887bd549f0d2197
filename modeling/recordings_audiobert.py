"""The recordings of a knowledge base, and the table that describes them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .knowledge_files_audiobert import METADATA_FILE, REBUILD

METADATA_COLUMNS = ("id", "label", "source", "license", "seconds")
# Columns that a knowledge base may have, null where a recording has no such property.
MEASURED_COLUMNS = ("pitch_hz", "voiced_seconds", "brightness_hz")
# What a row says of its sound, and not of the name under which the sound is found.
SOUND_COLUMNS = ("seconds", *MEASURED_COLUMNS)


@dataclass(frozen=True)
class Recording:
    """One recording of a knowledge base.

    Attributes:
        id: names it among the recordings of its knowledge base.
        label: what is heard in it.
        source, license: where it comes from, and under which license.
        seconds: its length.
        similarity: the cosine of the query to what it was found by; None where there was no query.
        pitch_hz: the note that its source names, or its average pitch as measured, in Hz; None where it has none, or
            none was measured.
        voiced_seconds: for how long it has a pitch; None where that was not measured.
        brightness_hz: its mean spectral centroid in Hz where it sounds; None if silent, or not measured.
        found_by: "audio" or "label": whether a query was near to its sound or to its label; None without a query.
    """

    id: str
    label: str
    source: str
    license: str
    seconds: float
    similarity: float | None = None
    pitch_hz: float | None = None
    voiced_seconds: float | None = None
    brightness_hz: float | None = None
    found_by: str | None = None


@dataclass(frozen=True)
class Retrieval:
    """What a query found, best first: row numbers for `audio_embeds` and the recordings they stand for."""

    query: str
    indices: tuple[int, ...]
    recordings: tuple[Recording, ...]


def columns_of(metadata: Any) -> dict[str, list[Any]]:
    """The columns of a `pyarrow.Table` that are fields of `Recording`, by name.

    Raises:
        ValueError: a column is missing, or a measured one holds what is no number.
    """
    missing = [name for name in METADATA_COLUMNS if name not in metadata.column_names]
    if missing:
        raise ValueError(f"{METADATA_FILE} lacks the columns {missing}; it has {metadata.column_names}. {REBUILD}")
    measured = [name for name in MEASURED_COLUMNS if name in metadata.column_names]
    columns = {name: metadata.column(name).to_pylist() for name in (*METADATA_COLUMNS, *measured)}
    for name in measured:
        bad = [value for value in columns[name] if value is not None and not is_number(value)]
        if bad:
            raise ValueError(f"the column {name} of {METADATA_FILE} holds {bad[0]!r} where a number is due. {REBUILD}")
    return columns


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def with_rows(metadata: Any, recordings: Sequence[Recording]) -> Any:
    """A table with rows added, in the types of its columns; a measured column that only they have is added as well.

    Raises:
        ValueError: two rows would have the same id, a row has no label, or its numbers are no numbers.
    """
    import pyarrow

    seen = set(metadata.column("id").to_pylist())
    for recording in recordings:
        if recording.id in seen:
            raise ValueError(f"the recording {recording.id!r} is there already: give the new one another id.")
        if not recording.label.strip():
            raise ValueError(f"the recording {recording.id!r} has no label.")
        for name in SOUND_COLUMNS:
            value = getattr(recording, name)
            if not (is_number(value) or (value is None and name in MEASURED_COLUMNS)):
                raise ValueError(f"`{name}` of the recording {recording.id!r} has to be a number, got {value!r}.")
        seen.add(recording.id)
    for name in MEASURED_COLUMNS:
        if name not in metadata.column_names and any(getattr(recording, name) is not None for recording in recordings):
            metadata = metadata.append_column(name, pyarrow.nulls(metadata.num_rows, pyarrow.float64()))
    fields = {field.name for field in dataclasses.fields(Recording)}
    rows = [
        {name: getattr(recording, name) if name in fields else None for name in metadata.column_names}
        for recording in recordings
    ]
    # Without the notes that other programs leave in a schema: the rows of the two have to agree in types alone.
    schema = metadata.schema.remove_metadata()
    added = pyarrow.Table.from_pylist(rows, schema=schema)
    return pyarrow.concat_tables([metadata.cast(schema), added]).combine_chunks()


def with_sounds_exchanged(metadata: Any, rows: Sequence[int]) -> Any:
    """A table whose row i keeps its names, and says of its sound what row `rows[i]` says."""
    moved = metadata.take(list(rows))
    for number, name in enumerate(metadata.column_names):
        if name in SOUND_COLUMNS:
            metadata = metadata.set_column(number, metadata.schema.field(name), moved.column(name))
    return metadata.combine_chunks()


__all__ = ["MEASURED_COLUMNS", "METADATA_COLUMNS", "SOUND_COLUMNS", "Recording", "Retrieval"]

"""What the results of a reproduction depend on, kept beside them: results of two kinds never meet in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.auditorybench import SPLITS, TASKS
from ..files import sha256_of, whole_file
from ..modeling.knowledge_audiobert import TEXT_ENCODER_FOLDER
from ..modeling.modeling_audiobert import KNOWLEDGE_BASE_FOLDER

CONFIGURATION_FILE = "configuration.json"
RUNS_FOLDER = "runs"
TEXT_FILES = ("valid.txt", "test.txt")
# Of a checkpoint, what is loaded: not its card, nor the weights of frameworks that are not used here.
_LOADED = {".safetensors", ".bin", ".json", ".txt", ".model", ".faiss", ".parquet"}
# Of a checkpoint's folders, those with a part of it; a report of its results may lie in another.
_LOADED_FOLDERS = (
    "",
    KNOWLEDGE_BASE_FOLDER,
    TEXT_ENCODER_FOLDER,
    f"{KNOWLEDGE_BASE_FOLDER}/{TEXT_ENCODER_FOLDER}",
)
_SHOWN_DIFFERENCES = 5
_SHOWN_DIGITS = 12


def configuration_of(
    preset: Mapping[str, Any],
    data: str | Path,
    *,
    checkpoints: Mapping[str, str | Path] | None = None,
    text: str | Path | None = None,
    audio: str | Path | None = None,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """
    Everything that a result depends on, but its seed; where things lie is no part of it, only what they hold.

    Args:
        preset: the values of the preset by name, such as `dataclasses.asdict` gives them.
        data: the folder of AuditoryBench's CSV files.
        checkpoints: by their part (bert, ast, ...), what the runs start from: a folder, which counts by the sha256 of
            each of its files that are loaded, or a Hub id, which counts by its name.
        text: folder of WikiText's valid.txt and test.txt; counts by the sha256 of both.
        audio: the folder of the recordings; counts by the sha256 of its metadata.csv, and by the names and sizes of the
            files in it, as there may be more of them than can be read at each start.
        max_steps: at which each training is cut short.

    Returns:
        Plain JSON: preset, data, checkpoints, text, audio, max_steps, and the versions of what computes the results.

    Raises:
        OSError: a file is not there, or cannot be read.
        TypeError: the preset has a value that JSON does not know.
    """
    configuration = {
        "preset": dict(preset),
        "data": {name: _digest_of_file(Path(data) / name) for name in auditorybench_files()},
        "checkpoints": {part: _digest_of_checkpoint(name) for part, name in (checkpoints or {}).items()},
        "text": None if text is None else {name: _digest_of_file(Path(text) / name) for name in TEXT_FILES},
        "audio": None if audio is None else _digests_of_audio(Path(audio)),
        "max_steps": max_steps,
        "versions": {
            "audiobert": __version__,
            # Without the part after the plus, the build for a device: runs may be shared out among machines.
            **{name: version(name).partition("+")[0] for name in ("torch", "transformers", "peft")},
        },
    }
    # As it is read back: JSON has no tuples.
    return json.loads(json.dumps(configuration))


def auditorybench_files() -> Iterator[str]:
    return (f"{task}_{split}.csv" for task in TASKS for split in SPLITS)


def settle_configuration(out: str | Path, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """
    Keeps the configuration in `out/configuration.json`, or makes sure that it is the one that is kept there.

    Where no run was begun yet the file is written anew. Recordings that are given in one of the two alone are no
    difference, as Table III alone needs them; the file then keeps them.

    Args:
        out: the folder of the reproduction, made if it is not there.
        configuration: see `configuration_of`.

    Returns:
        What is in the file now.

    Raises:
        ValueError: what lies in `out` was made with another configuration, or it is not known with which.
        OSError: the folder or the file cannot be read or written.
    """
    out = Path(out)
    path = out / CONFIGURATION_FILE
    runs = out / RUNS_FOLDER
    has_runs = runs.is_dir() and any(entry.is_dir() for entry in runs.iterdir())
    if has_runs and not path.is_file():
        raise ValueError(
            f"{out} holds runs, but no {CONFIGURATION_FILE} that says how they were made: name another OUT."
        )
    settled = dict(configuration)
    if has_runs:
        kept = _read(path)
        _refuse_another(path, kept, configuration)
        settled["audio"] = configuration["audio"] or kept["audio"]
        if settled == kept:
            return settled
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(json.dumps(settled, indent=2) + "\n")
    return settled


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): name another OUT.") from error
    if not isinstance(kept, dict):
        raise ValueError(f"{path} is no configuration: name another OUT.")
    return kept


def _refuse_another(path: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    optional = {"audio"} if kept.get("audio") is None or now.get("audio") is None else set()
    before, after = (
        dict(_flat({name: value for name, value in configuration.items() if name not in optional}))
        for configuration in (kept, now)
    )
    absent = object()
    changed = [name for name in {**before, **after} if before.get(name, absent) != after.get(name, absent)]
    if not changed:
        return
    differences = [f"{name} {_shown(before, name)}, now {_shown(after, name)}" for name in changed]
    more = len(differences) - _SHOWN_DIFFERENCES
    raise ValueError(
        f"{path.parent} holds results of another configuration: {'; '.join(differences[:_SHOWN_DIFFERENCES])}"
        f"{f'; and {more} more' if more > 0 else ''}. Name another OUT, or go back to what {path.name} says."
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; an empty mapping is a leaf."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    text = str(values[name])
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:_SHOWN_DIGITS] if is_digest else json.dumps(values[name])


def _digest_of_file(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return sha256_of(path)


def _digest_of_checkpoint(name_or_path: str | Path) -> str | dict[str, str]:
    folder = Path(name_or_path)
    if not folder.is_dir():
        return str(name_or_path)
    places = [folder / place for place in _LOADED_FOLDERS]
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _LOADED and path.parent in places]
    if not files:
        raise FileNotFoundError(f"{folder} holds no checkpoint.")
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _digests_of_audio(folder: Path) -> dict[str, str]:
    metadata = folder / "metadata.csv"
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != metadata
    }
    return {
        "metadata.csv": _digest_of_file(metadata),
        "names and sizes": hashlib.sha256(json.dumps(sizes).encode()).hexdigest(),
    }

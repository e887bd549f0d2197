"""What a reproduction is made of, by the digests of the files: where they lie is no part of it, only what they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.auditorybench import SPLITS, TASKS
from ..evaluation.sound_swap.questions import SOUND_SWAP_FOLDER
from ..files import sha256_of
from ..modeling.knowledge_files_audiobert import TEXT_ENCODER_FOLDER
from ..modeling.modeling_audiobert import KNOWLEDGE_BASE_FOLDER

TEXT_FILES = ("valid.txt", "test.txt")
# Of a checkpoint, what is loaded: not its card, nor the weights of frameworks that are not used here.
_LOADED = {".safetensors", ".bin", ".json", ".jsonl", ".txt", ".model", ".faiss", ".parquet"}
# Of a checkpoint's folders, those with a part of it, or questions about it; a report may lie in another.
_LOADED_FOLDERS = (
    "",
    KNOWLEDGE_BASE_FOLDER,
    TEXT_ENCODER_FOLDER,
    f"{KNOWLEDGE_BASE_FOLDER}/{TEXT_ENCODER_FOLDER}",
    SOUND_SWAP_FOLDER,
)


def contents_of(
    data: str | Path,
    *,
    checkpoints: Mapping[str, str | Path] | None = None,
    text: str | Path | None = None,
    audio: str | Path | None = None,
) -> dict[str, Any]:
    """
    Args:
        data: the folder of AuditoryBench's CSV files.
        checkpoints: by their part (bert, ast, ...), what the runs start from: a folder, which counts by the sha256 of
            each of its files that are loaded, or a Hub id, which counts by its name.
        text: folder of WikiText's valid.txt and test.txt; counts by the sha256 of both.
        audio: the folder of the recordings; counts by the sha256 of its metadata.csv, and by the names and sizes of the
            files in it, as there may be more of them than can be read at each start.

    Returns:
        Plain JSON: data, checkpoints, text, audio, and the versions of what computes the results.

    Raises:
        OSError: a file is not there, or cannot be read.
    """
    auditorybench_files = [f"{task}_{split}.csv" for task in TASKS for split in SPLITS]
    return {
        "data": {name: _digest_of_file(Path(data) / name) for name in auditorybench_files},
        "checkpoints": {part: _digest_of_checkpoint(name) for part, name in (checkpoints or {}).items()},
        "text": None if text is None else {name: _digest_of_file(Path(text) / name) for name in TEXT_FILES},
        "audio": None if audio is None else _digests_of_audio(Path(audio)),
        "versions": {
            "audiobert": __version__,
            # Without the part after the plus, the build for a device: runs may be shared out among machines.
            **{name: version(name).partition("+")[0] for name in ("torch", "transformers", "peft")},
        },
    }


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

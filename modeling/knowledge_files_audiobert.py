"""The files of a knowledge base: what each is, and that what is loaded is what `config.json` describes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub import is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

CONFIG_FILE = "config.json"
INDEX_FILE = "index.faiss"
EMBEDDINGS_FILE = "audio_embeddings.safetensors"
METADATA_FILE = "metadata.parquet"
LABEL_VECTORS_FILE = "label_vectors.safetensors"
TEXT_ENCODER_FOLDER = "text_encoder"
AUDIO_ENCODER_FOLDER = "audio_encoder"
# One of these holds the words of a tokenizer; without any, Transformers makes one that knows none.
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
EXTRACTOR_FILE = "preprocessor_config.json"

FORMAT_VERSION = 1
METRIC = "inner_product"
POOLINGS = ("mean", "sounding")
RETRIEVALS = ("audio", "label", "both")

REBUILD = "Download the knowledge base again, or build it again with `audiobert build-knowledge-base`."


@dataclass(frozen=True)
class EncoderReference:
    """A checkpoint by name. `revision` is the commit of a Hub checkpoint, None for one that was a local folder."""

    name: str
    revision: str | None = None


@dataclass(frozen=True)
class KnowledgeBaseConfig:
    """What `config.json` says about a knowledge base, apart from the digests of its files.

    Attributes:
        clap: the checkpoint whose text tower encodes queries and whose audio tower filled the index.
        ast: the checkpoint that gave the stored audio embeddings.
        clap_width: width of CLAP's shared space, `projection_dim`.
        audio_hidden_size: width of the stored audio embeddings.
        count: number of recordings.
        query_template: text sent to CLAP, with `{span}` where the span goes.
        audio_pooling: over what of AST's last hidden states an audio embedding is the mean: "mean" for all of them, as
            in the paper, "sounding" for those of the frames that hold sound and not the padding. Knowledge bases from
            before there was a choice do not name it: they are of the first kind.
        retrieval: by what a query finds recordings where the caller does not say: "audio", their CLAP audio embeddings,
            as in the paper; "label", the CLAP text embeddings of their labels; "both", whichever is nearer. The last
            two need label vectors. `config.json` names it where it is not "audio".
    """

    clap: EncoderReference
    ast: EncoderReference
    clap_width: int
    audio_hidden_size: int
    count: int
    query_template: str = "{span} sound"
    audio_pooling: str = "mean"
    retrieval: str = "audio"

    def __post_init__(self) -> None:
        for name in ("clap", "ast"):
            if not isinstance(getattr(self, name), EncoderReference):
                raise TypeError(f"`{name}` has to be an EncoderReference, got {getattr(self, name)!r}.")
        for name in ("clap_width", "audio_hidden_size", "count"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"`{name}` has to be a positive integer, got {value!r}.")
        if not isinstance(self.query_template, str) or "{span}" not in self.query_template:
            raise ValueError(f"`query_template` has to contain {{span}}, got {self.query_template!r}.")
        if self.audio_pooling not in POOLINGS:
            raise ValueError(f"`audio_pooling` has to be one of {list(POOLINGS)}, got {self.audio_pooling!r}.")
        check_retrieval(self.retrieval)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> KnowledgeBaseConfig:
        """Reads the content of `config.json`; unknown versions and missing fields are a ValueError naming them."""
        if not isinstance(values, dict):
            raise ValueError(f"a JSON object was expected, got {type(values).__name__}.")
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"`format_version` is {version!r}, this version of audiobert reads {FORMAT_VERSION}.")
        if values.get("metric") != METRIC:
            raise ValueError(f"`metric` is {values.get('metric')!r}, only {METRIC!r} is supported.")
        values = {"audio_pooling": "mean", "retrieval": "audio", **values}
        fields = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in fields if name not in values]
        if missing:
            raise ValueError(f"the fields {missing} are missing.")
        arguments = {name: values[name] for name in fields}
        for name in ("clap", "ast"):
            if not isinstance(arguments[name], dict) or not isinstance(arguments[name].get("name"), str):
                raise ValueError(f"`{name}` has to be an object with a name and a revision, got {arguments[name]!r}.")
            arguments[name] = EncoderReference(arguments[name]["name"], arguments[name].get("revision"))
        return cls(**arguments)

    def to_dict(self) -> dict[str, Any]:
        values = {"format_version": FORMAT_VERSION, "metric": METRIC, **dataclasses.asdict(self)}
        if self.retrieval == "audio":
            # As before there was a choice: a knowledge base that has no other way is written as it was.
            del values["retrieval"]
        return values


def check_retrieval(retrieval: str) -> str:
    """Raises ValueError unless this is a way to find recordings."""
    if retrieval not in RETRIEVALS:
        raise ValueError(f"`retrieval` has to be one of {list(RETRIEVALS)}, got {retrieval!r}.")
    return retrieval


def find_folder(path_or_id: str | os.PathLike, subfolder: str, **hub: Any) -> Path:
    """Returns the local folder of a knowledge base, downloaded first if `path_or_id` is a Hub id.

    Raises:
        OSError: there is no such place, or the Hub gave no answer and the cache has not all of it: the message says
            which.
    """
    if os.path.isdir(path_or_id):
        return Path(path_or_id, subfolder)
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    files = (CONFIG_FILE, INDEX_FILE, EMBEDDINGS_FILE, METADATA_FILE, LABEL_VECTORS_FILE)
    names = (*files, f"{TEXT_ENCODER_FOLDER}/*", f"{AUDIO_ENCODER_FOLDER}/*")
    try:
        snapshot = snapshot_download(str(path_or_id), allow_patterns=[prefix + name for name in names], **hub)
    except (OSError, ValueError, EntryNotFoundError) as error:
        offline = hub.get("local_files_only") or is_offline_mode()
        if isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError)):
            reason = "the Hub has none that may be read"
        elif isinstance(error, LocalEntryNotFoundError) and offline:
            reason = "the cache has none"
        else:
            raise OSError(
                f"the knowledge base {str(path_or_id)!r} could not be loaded from the Hub ({error}). Try again, or "
                "pass `local_files_only=True` if it is in the cache."
            ) from error
        raise OSError(
            f"no knowledge base at {str(path_or_id)!r}: it is not a folder here, and {reason} ({error})."
        ) from error
    return Path(snapshot, subfolder)


def read_config(folder: Path) -> tuple[KnowledgeBaseConfig, dict[str, dict[str, Any]]]:
    """Reads `config.json` and returns the description and the table of files with their sizes and digests."""
    path = folder / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OSError(f"{folder} holds no knowledge base: {CONFIG_FILE} is missing.") from error
    except ValueError as error:
        raise OSError(f"{path} is not valid JSON ({error}). {REBUILD}") from error
    try:
        config = KnowledgeBaseConfig.from_dict(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error} {REBUILD}") from error
    files = values.get("files")
    if not isinstance(files, dict):
        raise ValueError(f"{path}: `files` has to list the files with their digests, got {files!r}. {REBUILD}")
    if unlisted := [name for name in (INDEX_FILE, EMBEDDINGS_FILE, METADATA_FILE) if name not in files]:
        raise ValueError(f"{path}: `files` does not list {unlisted}. {REBUILD}")
    if config.clap.revision is None:
        check_encoder(folder, files, TEXT_ENCODER_FOLDER, TOKENIZER_FILES)
    if (folder / AUDIO_ENCODER_FOLDER).is_dir() or any(name.startswith(f"{AUDIO_ENCODER_FOLDER}/") for name in files):
        check_encoder(folder, files, AUDIO_ENCODER_FOLDER, (EXTRACTOR_FILE,))
    for name, entry in files.items():
        outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if outside or not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
            raise ValueError(f"{path}: the entry of {name!r} in `files` is malformed. {REBUILD}")
    return config, files


def check_encoder(folder: Path, files: dict[str, dict[str, Any]], tower: str, beside: tuple[str, ...]) -> None:
    """Raises ValueError unless `files` lists all that Transformers may load from the folder of one of CLAP's towers.

    `beside` names the files of which one has to stand beside the weights.
    """
    inside = f"{tower}/"
    listed = {name.removeprefix(inside) for name in files if name.startswith(inside)}
    missing = [] if CONFIG_FILE in listed else [CONFIG_FILE]
    if not any(name.endswith(".safetensors") for name in listed):
        missing.append("*.safetensors")
    if not listed.intersection(beside):
        missing.append(beside[0])
    there = Path(folder, tower)
    names = {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
    # What the system leaves in folders is hidden, and none of it is loaded.
    unlisted = missing + sorted(name for name in names - listed if not name.startswith("."))
    if unlisted:
        raise ValueError(
            f"{folder / CONFIG_FILE}: `files` does not list {[inside + name for name in unlisted]}: what is not listed "
            f"is not checked, and not loaded. {REBUILD}"
        )


def write_config(folder: Path, config: KnowledgeBaseConfig) -> None:
    """Writes `config.json` for the files that are in `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in paths
    }
    content = json.dumps({**config.to_dict(), "files": files}, indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")


def check_file(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Raises OSError unless the file has the size and sha256 of its entry in `config.json`."""
    path = folder / name
    if not path.is_file():
        raise OSError(f"{path} is missing. {REBUILD}")
    size = path.stat().st_size
    if size != entry["size"]:
        raise OSError(f"{path} has {size} bytes where {CONFIG_FILE} says {entry['size']}. {REBUILD}")
    if sha256_of(path) != entry["sha256"]:
        raise OSError(f"{path} is not the file that {CONFIG_FILE} describes: its sha256 differs. {REBUILD}")


# `audiobert.files` has this as well: the rooms that only hash files do without the libraries that a model needs, and
# this file travels with checkpoints, where there is no `audiobert.files`.
def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(path: Path) -> Any:
    import faiss

    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise OSError(f"{path} is not a FAISS index. {REBUILD}") from error


def write_index(index: Any, path: Path) -> None:
    import faiss

    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"{path} could not be written ({error}).") from error


def read_tensors(path: Path, *names: str) -> dict[str, torch.Tensor]:
    """Maps the file into memory: a row is read when it is used. `names` have to be among its tensors."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is not a safetensors file ({error}). {REBUILD}") from error
    for name in names:
        if name not in tensors:
            raise ValueError(f"{path} lacks the tensor `{name}`; it has {sorted(tensors)}. {REBUILD}")
    return tensors


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({error}).") from error


def read_metadata(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise OSError(f"{path} is not a parquet file ({error}). {REBUILD}") from error

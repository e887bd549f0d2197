"""The knowledge base of AudioBERT: recordings found by text, with the audio embedding of each ready to inject.

A knowledge base is a folder that can live on disk, inside a model's folder, or on the Hub:

| file                         | content                                                                            |
|------------------------------|------------------------------------------------------------------------------------|
| `config.json`                | encoders and revisions, widths, metric, query template, count, sha256 of each file |
| `index.faiss`                | inner-product index over the L2-normalised CLAP audio embeddings                   |
| `audio_embeddings.safetensors` | mean AST hidden state of each recording, fp16, read memory-mapped                |
| `metadata.parquet`           | id, label, source, license and length of each recording                            |
| `text_encoder/`              | CLAP's text tower and tokenizer, when CLAP is not a Hub checkpoint                 |

A query (section 4 of the AudioBERT paper: a detected span put into "{span} sound") goes through CLAP's text tower and
the index; no audio file is opened and no audio encoder runs.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ClapTextModelWithProjection

from .hub_audiobert import upload

CONFIG_FILE = "config.json"
INDEX_FILE = "index.faiss"
EMBEDDINGS_FILE = "audio_embeddings.safetensors"
METADATA_FILE = "metadata.parquet"
TEXT_ENCODER_FOLDER = "text_encoder"

FORMAT_VERSION = 1
METRIC = "inner_product"
METADATA_COLUMNS = ("id", "label", "source", "license", "seconds")
# More than all spans of AuditoryBench, at about a kilobyte each.
CACHED_QUERIES = 32768

REBUILD = "Download the knowledge base again, or build it again with `audiobert build-knowledge-base`."


@dataclass(frozen=True)
class Recording:
    """One recording of a knowledge base; `similarity` is the cosine to the query, None where there was no query."""

    id: str
    label: str
    source: str
    license: str
    seconds: float
    similarity: float | None = None


@dataclass(frozen=True)
class Retrieval:
    """What a query found, best first: row numbers for `audio_embeds` and the recordings they stand for."""

    query: str
    indices: tuple[int, ...]
    recordings: tuple[Recording, ...]


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
    """

    clap: EncoderReference
    ast: EncoderReference
    clap_width: int
    audio_hidden_size: int
    count: int
    query_template: str = "{span} sound"

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
        return {"format_version": FORMAT_VERSION, "metric": METRIC, **dataclasses.asdict(self)}


class ClapTextTower(ClapTextModelWithProjection):
    """CLAP's text tower out of a whole CLAP checkpoint, whose other weights are not worth a warning."""

    _keys_to_ignore_on_load_unexpected = [r"^audio_model\.", r"^audio_projection\.", r"^logit_scale_"]


class QueryEncoder:
    """CLAP's text tower and its tokenizer: text in, a unit vector of CLAP's shared space out.

    The weights are computed with in fp32 and saved in the dtype they were stored in.
    """

    def __init__(self, model: ClapTextModelWithProjection, tokenizer: Any) -> None:
        self.stored_dtype = model.dtype
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        # CLAP counts positions from the padding index on, as RoBERTa does.
        positions = model.config.max_position_embeddings - (model.config.pad_token_id or 0) - 1
        self.max_length = min(tokenizer.model_max_length, positions)

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **kwargs: Any) -> QueryEncoder:
        """Loads the text tower alone, from a saved text tower or from a whole CLAP checkpoint.

        Args:
            name_or_path: local folder or Hub id.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.
        """
        model = ClapTextTower.from_pretrained(name_or_path, dtype="auto", use_safetensors=True, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **kwargs)
        # Transformers notes how it found the files and would save that along, so that a saved copy differs.
        for name in ("is_local", "local_files_only"):
            tokenizer.init_kwargs.pop(name, None)
        return cls(model, tokenizer)

    @property
    def width(self) -> int:
        return self.model.config.projection_dim

    @torch.no_grad()
    def __call__(self, text: str) -> np.ndarray:
        """Returns the unit vector of `text`, fp32 of shape (1, width).

        One text at a time: padding and the size of a batch change the last bits of a result, and what a span
        retrieves may not depend on the other prompts of its batch.
        """
        encoded = self.tokenizer(text, truncation=True, max_length=self.max_length, return_tensors="pt")
        device = self.model.device
        output = self.model(
            input_ids=encoded["input_ids"].to(device), attention_mask=encoded["attention_mask"].to(device)
        )
        return torch.nn.functional.normalize(output.text_embeds, dim=-1).cpu().numpy()

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        # Without weights of its own: what is drawn for them would be drawn from the caller's random numbers.
        with torch.device("meta"):
            model = ClapTextModelWithProjection(copy.deepcopy(self.model.config))
        stored = {name: value.to(self.stored_dtype) for name, value in self.model.state_dict().items()}
        model.load_state_dict(stored, assign=True)
        model.save_pretrained(folder)
        if self.tokenizer.is_fast:
            # Encoding leaves its settings in the tokenizer; what is saved may not depend on what was asked before.
            self.tokenizer.backend_tokenizer.no_truncation()
            self.tokenizer.backend_tokenizer.no_padding()
        self.tokenizer.save_pretrained(folder)


class AudioBertKnowledgeBase:
    """Recordings that are found by the text of a span, with their audio embeddings.

    Read-only once made, so models may share one and it may be used from several threads.

    Args:
        config: the description; widths and count have to fit the other arguments, else ValueError.
        index: FAISS inner-product index over `count` L2-normalised CLAP audio embeddings of width `clap_width`.
        audio_embeddings: fp16 tensor (count, audio_hidden_size).
        metadata: `pyarrow.Table` with the columns id, label, source, license and seconds, one row per recording.
        query_encoder: CLAP's text tower.
    """

    def __init__(
        self,
        config: KnowledgeBaseConfig,
        index: Any,
        audio_embeddings: torch.Tensor,
        metadata: Any,
        query_encoder: QueryEncoder,
    ) -> None:
        check_parts(config, index, audio_embeddings, metadata, query_encoder)
        self.config = config
        self.index = index
        self.audio_embeddings = audio_embeddings
        self.metadata = metadata
        self.query_encoder = query_encoder
        self._columns = {name: metadata.column(name).to_pylist() for name in METADATA_COLUMNS}
        # The tokenizer keeps state while it encodes, and a span that two threads ask for is encoded once.
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, int], Retrieval] = OrderedDict()

    def __len__(self) -> int:
        return self.config.count

    def __deepcopy__(self, memo: dict[int, Any]) -> AudioBertKnowledgeBase:
        return self

    def to(self, device: str | torch.device) -> AudioBertKnowledgeBase:
        """Moves CLAP's text tower; index and audio embeddings stay in main memory."""
        with self._lock:
            self.query_encoder.model.to(device)
        return self

    def search(self, spans: Sequence[str], top_k: int = 1) -> list[Retrieval]:
        """Finds the recordings closest to each span; results are cached by the exact text of the span.

        Args:
            spans: the text of each span, without the query template.
            top_k: number of recordings per span; fewer come back when the knowledge base holds fewer.

        Returns:
            One `Retrieval` per span, in order.
        """
        if isinstance(spans, str):
            raise TypeError(f"`spans` has to be a sequence of strings, got the string {spans!r}.")
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise ValueError(f"`top_k` has to be a positive integer, got {top_k!r}.")
        return [self._search_one(span, top_k) for span in spans]

    def _search_one(self, span: str, top_k: int) -> Retrieval:
        key = (span, top_k)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            query = self.config.query_template.replace("{span}", span)
            similarities, indices = self.index.search(self.query_encoder(query), top_k)
            # FAISS fills up with -1 when there are fewer recordings than asked for.
            found = [(int(i), float(s)) for i, s in zip(indices[0], similarities[0], strict=True) if i >= 0]
            recordings = tuple(dataclasses.replace(self.recording(i), similarity=s) for i, s in found)
            self._cache[key] = Retrieval(query, tuple(i for i, _ in found), recordings)
            if len(self._cache) > CACHED_QUERIES:
                self._cache.popitem(last=False)
            return self._cache[key]

    def audio_embeds(self, indices: Sequence[int]) -> torch.Tensor:
        """Returns the audio embeddings of recordings, fp32 of shape (len(indices), audio_hidden_size), on the CPU."""
        rows = torch.tensor([self._checked(index) for index in indices], dtype=torch.long)
        return self.audio_embeddings[rows].float()

    def recording(self, index: int) -> Recording:
        """Describes the recording at a row number, without a similarity."""
        row = self._checked(index)
        return Recording(**{name: values[row] for name, values in self._columns.items()})

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"recording {index} asked of a knowledge base that holds 0 to {len(self) - 1}.")
        return int(index)

    def with_audio_embeddings(self, embeddings: torch.Tensor, ast_name: str | None = None) -> AudioBertKnowledgeBase:
        """Returns a knowledge base with the same index and other audio embeddings, as after training the encoder.

        Args:
            embeddings: floating tensor (count, audio_hidden_size), stored as fp16; the width may be another one.
            ast_name: name of the encoder that made them; the old name is kept without its revision if None.
        """
        if embeddings.dim() != 2:
            raise ValueError(f"`embeddings` has to be of shape (recordings, width), got {tuple(embeddings.shape)}.")
        config = dataclasses.replace(
            self.config,
            ast=EncoderReference(ast_name or self.config.ast.name),
            audio_hidden_size=embeddings.shape[1],
        )
        embeddings = embeddings.detach().to("cpu", torch.float16)
        return AudioBertKnowledgeBase(config, self.index, embeddings, self.metadata, self.query_encoder)

    def subset(self, indices: Sequence[int]) -> AudioBertKnowledgeBase:
        """Returns a knowledge base of these recordings alone, in this order."""
        rows = [self._checked(index) for index in indices]
        if not rows:
            raise ValueError("a knowledge base needs at least one recording, `indices` is empty.")
        vectors = self.index.reconstruct_batch(np.array(rows, dtype=np.int64))
        config = dataclasses.replace(self.config, count=len(rows))
        metadata = self.metadata.take(rows).combine_chunks()
        return AudioBertKnowledgeBase(
            config, inner_product_index(vectors), self.audio_embeddings[rows].clone(), metadata, self.query_encoder
        )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike,
        *,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> AudioBertKnowledgeBase:
        """Loads a knowledge base from a local folder or from the Hub and checks every file against its digest.

        Raises:
            OSError: a file is missing, truncated, or not the one that `config.json` describes.
            ValueError: the files do not fit together (widths, counts, columns), or `config.json` is not understood.
        """
        hub = {
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        folder = find_folder(path_or_id, subfolder, revision=revision, **hub)
        config, files = read_config(folder)
        for name, entry in files.items():
            check_file(folder, name, entry)
        if config.clap.revision is None:
            query_encoder = QueryEncoder.from_pretrained(folder / TEXT_ENCODER_FOLDER)
        else:
            query_encoder = QueryEncoder.from_pretrained(config.clap.name, revision=config.clap.revision, **hub)
        return cls(
            config,
            read_index(folder / INDEX_FILE),
            read_embeddings(folder / EMBEDDINGS_FILE),
            read_metadata(folder / METADATA_FILE),
            query_encoder,
        )

    def save_pretrained(self, save_directory: str | os.PathLike) -> None:
        """Writes the folder; the same knowledge base gives the same bytes. Its own folder may be the target."""
        import faiss
        import pyarrow.parquet

        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        # Complete before anything is replaced: the target may be the folder that the embeddings are mapped from.
        with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as scratch_name:
            scratch = Path(scratch_name)
            faiss.write_index(self.index, str(scratch / INDEX_FILE))
            save_file({"audio_embeddings": self.audio_embeddings.contiguous()}, scratch / EMBEDDINGS_FILE)
            pyarrow.parquet.write_table(self.metadata, scratch / METADATA_FILE)
            if self.config.clap.revision is None:
                with self._lock:
                    self.query_encoder.save_pretrained(scratch / TEXT_ENCODER_FOLDER)
            write_config(scratch, self.config)
            shutil.rmtree(target / TEXT_ENCODER_FOLDER, ignore_errors=True)
            for path in sorted(scratch.iterdir(), key=lambda path: path.name == CONFIG_FILE):
                os.replace(path, target / path.name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload AudioBERT knowledge base",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> CommitInfo:
        """Uploads the folder to a model repository on the Hub, which is made if it is not there."""
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return upload(
                folder,
                repo_id,
                commit_message=commit_message,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )


def inner_product_index(vectors: np.ndarray) -> Any:
    """Returns a FAISS index over fp32 vectors (count, width), which have to be L2-normalised for cosine similarity."""
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return index


def check_parts(
    config: KnowledgeBaseConfig, index: Any, embeddings: torch.Tensor, metadata: Any, query_encoder: QueryEncoder
) -> None:
    import faiss

    missing = [name for name in METADATA_COLUMNS if name not in metadata.column_names]
    if missing:
        raise ValueError(f"{METADATA_FILE} lacks the columns {missing}; it has {metadata.column_names}. {REBUILD}")
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ValueError(f"{INDEX_FILE} is not an inner-product index. {REBUILD}")
    expected_and_found = (
        (f"width of CLAP's text tower ({config.clap.name})", config.clap_width, query_encoder.width),
        (f"width of {INDEX_FILE}", config.clap_width, index.d),
        (f"number of vectors in {INDEX_FILE}", config.count, index.ntotal),
        (f"number of rows in {METADATA_FILE}", config.count, metadata.num_rows),
        (f"shape of {EMBEDDINGS_FILE}", (config.count, config.audio_hidden_size), tuple(embeddings.shape)),
        (f"dtype of {EMBEDDINGS_FILE}", torch.float16, embeddings.dtype),
    )
    for what, expected, found in expected_and_found:
        if expected != found:
            raise ValueError(f"{what} is {found}, the knowledge base's config says {expected}. {REBUILD}")


def find_folder(path_or_id: str | os.PathLike, subfolder: str, **hub: Any) -> Path:
    """Returns the local folder of a knowledge base, downloaded first if `path_or_id` is a Hub id."""
    if os.path.isdir(path_or_id):
        return Path(path_or_id, subfolder)
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    names = (CONFIG_FILE, INDEX_FILE, EMBEDDINGS_FILE, METADATA_FILE, f"{TEXT_ENCODER_FOLDER}/*")
    try:
        snapshot = snapshot_download(str(path_or_id), allow_patterns=[prefix + name for name in names], **hub)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        raise OSError(
            f"no knowledge base at {str(path_or_id)!r}: it is not a folder here, and the Hub gave none ({error})."
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
    required = [INDEX_FILE, EMBEDDINGS_FILE, METADATA_FILE]
    if config.clap.revision is None:
        required.append(f"{TEXT_ENCODER_FOLDER}/{CONFIG_FILE}")
    unlisted = required if not isinstance(files, dict) else [name for name in required if name not in files]
    if unlisted:
        raise ValueError(f"{path}: `files` does not list {unlisted}. {REBUILD}")
    for name, entry in files.items():
        outside = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
        if outside or not isinstance(entry, dict) or not {"size", "sha256"} <= entry.keys():
            raise ValueError(f"{path}: the entry of {name!r} in `files` is malformed. {REBUILD}")
    return config, files


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


def read_embeddings(path: Path) -> torch.Tensor:
    """Maps the file into memory: a row is read when it is used."""
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise OSError(f"{path} is not a safetensors file ({error}). {REBUILD}") from error
    if "audio_embeddings" not in tensors:
        raise ValueError(f"{path} lacks the tensor `audio_embeddings`; it has {sorted(tensors)}. {REBUILD}")
    return tensors["audio_embeddings"]


def read_metadata(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise OSError(f"{path} is not a parquet file ({error}). {REBUILD}") from error


__all__ = [
    "AudioBertKnowledgeBase",
    "EncoderReference",
    "KnowledgeBaseConfig",
    "QueryEncoder",
    "Recording",
    "Retrieval",
    "inner_product_index",
]

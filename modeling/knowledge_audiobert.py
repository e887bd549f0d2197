"""The knowledge base of AudioBERT: recordings found by text, with the audio embedding of each ready to inject.

A knowledge base is a folder that can live on disk, inside a model's folder, or on the Hub:

| file                         | content                                                                            |
|------------------------------|------------------------------------------------------------------------------------|
| `config.json`                | encoders and revisions, widths, metric, query template, count, sha256 of each file |
| `index.faiss`                | inner-product index over the L2-normalised CLAP audio embeddings                   |
| `audio_embeddings.safetensors` | AST's hidden states of each recording, pooled, fp16, read memory-mapped            |
| `metadata.parquet`           | id, label, source, license and length of each recording                            |
| `text_encoder/`              | CLAP's text tower and tokenizer, when CLAP is not a Hub checkpoint                 |

A query (section 4 of the AudioBERT paper: a detected span put into "{span} sound") goes through CLAP's text tower and
the index; no audio file is opened and no audio encoder runs.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo

from .hub_audiobert import upload
from .knowledge_files_audiobert import (
    CONFIG_FILE,
    EMBEDDINGS_FILE,
    INDEX_FILE,
    METADATA_FILE,
    REBUILD,
    TEXT_ENCODER_FOLDER,
    EncoderReference,
    KnowledgeBaseConfig,
    check_file,
    find_folder,
    read_config,
    read_embeddings,
    read_index,
    read_metadata,
    write_config,
    write_embeddings,
    write_index,
)
from .query_audiobert import QueryEncoder

METADATA_COLUMNS = ("id", "label", "source", "license", "seconds")
# More than all spans of AuditoryBench, at about a kilobyte each.
CACHED_QUERIES = 32768


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

    def __getstate__(self) -> dict[str, Any]:
        # For other processes: a lock is no one else's, and what is cached is found again.
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock(), _cache=OrderedDict())

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

        Any text is a query, put into the template as it stands: an empty or blank one finds what is closest to the
        template alone, and one longer than CLAP reads is cut.

        Args:
            spans: the text of each span, without the query template.
            top_k: number of recordings per span; fewer come back when the knowledge base holds fewer.

        Returns:
            One `Retrieval` per span, in order; every one of them holds a recording.

        Raises:
            ValueError: a query has no finite similarity to what is in the index, as where one of both is damaged.
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
            if not found or not np.isfinite([similarity for _, similarity in found]).all():
                raise ValueError(f"the query {query!r} has no finite similarity to the recordings. {REBUILD}")
            recordings = tuple(dataclasses.replace(self.recording(i), similarity=s) for i, s in found)
            self._cache[key] = Retrieval(query, tuple(i for i, _ in found), recordings)
            if len(self._cache) > CACHED_QUERIES:
                self._cache.popitem(last=False)
            return self._cache[key]

    def audio_embeds(self, indices: Sequence[int]) -> torch.Tensor:
        """Returns the audio embeddings of recordings, fp32 of shape (len(indices), audio_hidden_size), on the CPU.

        Raises:
            IndexError: there is no such row.
            ValueError: an embedding is not finite.
        """
        rows = torch.tensor([self._checked(index) for index in indices], dtype=torch.long)
        embeddings = self.audio_embeddings[rows].float()
        if not embeddings.isfinite().all():
            bad = [self.recording(row).id for row in rows[~embeddings.isfinite().all(dim=1)].tolist()]
            raise ValueError(f"the audio embeddings of {bad[:5]} are not finite. {REBUILD}")
        return embeddings

    def recording(self, index: int) -> Recording:
        """Describes the recording at a row number, without a similarity."""
        row = self._checked(index)
        return Recording(**{name: values[row] for name, values in self._columns.items()})

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"recording {index} asked of a knowledge base that holds 0 to {len(self) - 1}.")
        return int(index)

    def with_audio_embeddings(
        self, embeddings: torch.Tensor, ast_name: str | None = None, audio_pooling: str = "mean"
    ) -> AudioBertKnowledgeBase:
        """Returns a knowledge base with the same index and other audio embeddings, as after training the encoder.

        Args:
            embeddings: floating tensor (count, audio_hidden_size), stored as fp16; the width may be another one.
            ast_name: name of the encoder that made them; the old name is kept without its revision if None.
            audio_pooling: how they were pooled, see `KnowledgeBaseConfig`.

        Raises:
            ValueError: they are of another shape, or not finite as fp16.
        """
        if embeddings.dim() != 2:
            raise ValueError(f"`embeddings` has to be of shape (recordings, width), got {tuple(embeddings.shape)}.")
        config = dataclasses.replace(
            self.config,
            ast=EncoderReference(ast_name or self.config.ast.name),
            audio_hidden_size=embeddings.shape[1],
            audio_pooling=audio_pooling,
        )
        embeddings = embeddings.detach().to("cpu", torch.float16)
        if not embeddings.isfinite().all():
            raise ValueError("`embeddings` holds numbers that are not finite, or too large for fp16.")
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
        import pyarrow.parquet

        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        # Complete before anything is replaced: the target may be the folder that the embeddings are mapped from.
        with tempfile.TemporaryDirectory(dir=target, prefix=".saving-") as scratch_name:
            scratch = Path(scratch_name)
            write_index(self.index, scratch / INDEX_FILE)
            write_embeddings(self.audio_embeddings, scratch / EMBEDDINGS_FILE)
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


__all__ = [
    "CONFIG_FILE",
    "EMBEDDINGS_FILE",
    "INDEX_FILE",
    "METADATA_FILE",
    "TEXT_ENCODER_FOLDER",
    "AudioBertKnowledgeBase",
    "EncoderReference",
    "KnowledgeBaseConfig",
    "QueryEncoder",
    "Recording",
    "Retrieval",
    "inner_product_index",
]

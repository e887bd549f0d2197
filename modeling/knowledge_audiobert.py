"""The knowledge base of AudioBERT: recordings found by text, with the audio embedding of each ready to inject.

A knowledge base is a folder that can live on disk, inside a model's folder, or on the Hub:

| file                         | content                                                                            |
|------------------------------|------------------------------------------------------------------------------------|
| `config.json`                | encoders and revisions, widths, metric, query template, count, sha256 of each file |
| `index.faiss`                | inner-product index over the L2-normalised CLAP audio embeddings                   |
| `audio_embeddings.safetensors` | AST's hidden states of each recording, pooled, fp16, read memory-mapped            |
| `metadata.parquet`           | id, label, source, license and length of each recording; its pitch and brightness  |
|                              | where they were measured                                                           |
| `label_vectors.safetensors`  | CLAP's text vector of each distinct label, where recordings are found by name too  |
| `text_encoder/`              | CLAP's text tower and tokenizer, when CLAP is not a Hub checkpoint                 |
| `audio_encoder/`             | CLAP's audio tower and feature extractor, where it was built to grow where it lies |

A query (section 4 of the AudioBERT paper: a detected span put into "{span} sound") goes through CLAP's text tower and
the index; no audio file is opened and no audio encoder runs. Where there are label vectors, it may find a recording by
its label as well; what is injected is the recording's sound either way.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import CommitInfo

from .audio_tower_audiobert import AudioEncoder, CarriedAudioEncoder
from .hub_audiobert import upload
from .knowledge_files_audiobert import (
    AUDIO_ENCODER_FOLDER,
    CONFIG_FILE,
    EMBEDDINGS_FILE,
    INDEX_FILE,
    LABEL_VECTORS_FILE,
    METADATA_FILE,
    REBUILD,
    TEXT_ENCODER_FOLDER,
    EncoderReference,
    KnowledgeBaseConfig,
    check_file,
    check_retrieval,
    find_folder,
    read_config,
    read_index,
    read_metadata,
    write_config,
    write_index,
)
from .labels_audiobert import LabelVectors, cosines_of
from .parts_audiobert import (
    check_optional_parts,
    check_parts,
    checked_additions,
    inner_product_index,
    read_embeddings,
    statistics_of,
    write_embeddings,
)
from .query_audiobert import QueryEncoder
from .recordings_audiobert import Recording, Retrieval, columns_of, with_rows, with_sounds_exchanged

# More than all spans of AuditoryBench, at about a kilobyte each.
CACHED_QUERIES = 32768


class AudioBertKnowledgeBase:
    """Recordings that are found by the text of a span, with their audio embeddings.

    Read-only once made, so models may share one and it may be used from several threads.

    Args:
        config: the description; widths and count have to fit the other arguments, else ValueError.
        index: FAISS inner-product index over `count` L2-normalised CLAP audio embeddings of width `clap_width`.
        audio_embeddings: fp16 tensor (count, audio_hidden_size).
        metadata: `pyarrow.Table` with the columns id, label, source, license and seconds, one row per recording, and
            as many of the columns pitch_hz, voiced_seconds and brightness_hz as were measured.
        query_encoder: CLAP's text tower.
        audio_statistics: mean and deviation of the audio embeddings of the recordings that it was built from, fp32
            tensors (audio_hidden_size,); None where these are the recordings it holds.
        label_vectors: by which recordings are found by name; None where they are found by sound alone.
        carried: CLAP's audio tower, where it travels with the knowledge base.
    """

    def __init__(
        self,
        config: KnowledgeBaseConfig,
        index: Any,
        audio_embeddings: torch.Tensor,
        metadata: Any,
        query_encoder: QueryEncoder,
        *,
        audio_statistics: tuple[torch.Tensor, torch.Tensor] | None = None,
        label_vectors: LabelVectors | None = None,
        carried: AudioEncoder | CarriedAudioEncoder | None = None,
    ) -> None:
        check_parts(config, index, audio_embeddings, metadata, query_encoder)
        check_optional_parts(config, audio_statistics, label_vectors)
        self.config = config
        self.index = index
        self.audio_embeddings = audio_embeddings
        self.metadata = metadata
        self.query_encoder = query_encoder
        self.label_vectors = label_vectors
        self.carried = carried
        self._columns = columns_of(metadata)
        self._given_statistics = audio_statistics
        self._check_has(config.retrieval)
        # The tokenizer keeps state while it encodes, and a span that two threads ask for is encoded once.
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[str, int, str], Retrieval] = OrderedDict()

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

    @property
    def audio_mean(self) -> torch.Tensor:
        """Mean of the audio embeddings of the recordings that it was built from: fp32 (audio_hidden_size,)."""
        return self._statistics[0]

    @property
    def audio_deviation(self) -> torch.Tensor:
        """Their standard deviation (of the whole: divided by their number): fp32 (audio_hidden_size,)."""
        return self._statistics[1]

    @cached_property
    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._given_statistics or statistics_of(self.audio_embeddings)

    def search(self, spans: Sequence[str], top_k: int = 1, retrieval: str | None = None) -> list[Retrieval]:
        """Finds the recordings closest to each span; results are cached by the exact text of the span.

        Any text is a query, put into the template as it stands: an empty or blank one finds what is closest to the
        template alone, and one longer than CLAP reads is cut.

        Args:
            spans: the text of each span, without the query template.
            top_k: number of recordings per span; fewer come back when the knowledge base holds fewer, or by label when
                fewer have the label.
            retrieval: "audio" finds the recordings whose sound is nearest to the query, as the paper does; "label"
                those of the label that is nearest, the ones first whose sound is nearest; "both" goes by whichever is
                nearer, the nearest sound or the nearest label. None: `config.retrieval`.

        Returns:
            One `Retrieval` per span, in order; every one of them holds a recording. `found_by` of a recording says by
            what it was found, and `similarity` how near that is to the query. What is equally near comes in the order
            of the rows.

        Raises:
            ValueError: there are no label vectors to find anything by label, or a query has no finite similarity to
                what is in the index, as where one of both is damaged.
        """
        if isinstance(spans, str):
            raise TypeError(f"`spans` has to be a sequence of strings, got the string {spans!r}.")
        if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
            raise ValueError(f"`top_k` has to be a positive integer, got {top_k!r}.")
        mode = self._check_has(check_retrieval(retrieval or self.config.retrieval))
        return [self._search_one(span, top_k, mode) for span in spans]

    def _check_has(self, retrieval: str) -> str:
        if retrieval != "audio" and self.label_vectors is None:
            raise ValueError(
                f"retrieval {retrieval!r} finds recordings by their labels, and this knowledge base has no label "
                "vectors: build it with `--retrieval both`, or give it some with `with_retrieval`."
            )
        return retrieval

    def _search_one(self, span: str, top_k: int, mode: str) -> Retrieval:
        key = (span, top_k, mode)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            text = self.config.query_template.replace("{span}", span)
            query = self.query_encoder(text)
            found, found_by = [], "audio"
            if mode != "label":
                similarities, indices = self.index.search(query, top_k)
                # FAISS fills up with -1 when there are fewer recordings than asked for.
                found = [(int(i), float(s)) for i, s in zip(indices[0], similarities[0], strict=True) if i >= 0]
            if mode != "audio" and self.label_vectors is not None:
                similarity, rows = self.label_vectors.nearest(query[0])
                if not found or similarity > found[0][1]:
                    nearest_first = np.argsort(-cosines_of(self._vectors(rows), query[0]), kind="stable")[:top_k]
                    found, found_by = [(rows[i], similarity) for i in nearest_first], "label"
            if not found or not np.isfinite([similarity for _, similarity in found]).all():
                raise ValueError(f"the query {text!r} has no finite similarity to the recordings. {REBUILD}")
            recordings = tuple(
                dataclasses.replace(self.recording(i), similarity=s, found_by=found_by) for i, s in found
            )
            self._cache[key] = Retrieval(text, tuple(i for i, _ in found), recordings)
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
        return self._with(config=config, audio_embeddings=embeddings, audio_statistics=None)

    def subset(self, indices: Sequence[int]) -> AudioBertKnowledgeBase:
        """Returns a knowledge base of these recordings alone, in this order."""
        rows = [self._checked(index) for index in indices]
        if not rows:
            raise ValueError("a knowledge base needs at least one recording, `indices` is empty.")
        metadata = self.metadata.take(rows).combine_chunks()
        return self._with(
            config=dataclasses.replace(self.config, count=len(rows)),
            index=inner_product_index(self._vectors(rows)),
            audio_embeddings=self.audio_embeddings[rows].clone(),
            metadata=metadata,
            label_vectors=None if self.label_vectors is None else self._label_vectors_of(metadata),
        )

    def with_recordings(
        self, vectors: np.ndarray, embeddings: torch.Tensor, recordings: Sequence[Recording]
    ) -> AudioBertKnowledgeBase:
        """Returns a knowledge base with recordings added behind those it holds, and all else as it was: the mean and
        the deviation are still those of the recordings that it was built from. Where recordings are found by label, so
        are the new ones. `audiobert.add_recordings` makes the arguments out of audio files.

        Args:
            vectors: CLAP audio embeddings, fp32 (recordings, clap_width), unit vectors.
            embeddings: floating tensor (recordings, audio_hidden_size), stored as fp16; pooled as
                `config.audio_pooling` says.
            recordings: what describes them; their `similarity` and `found_by` are not kept.

        Raises:
            ValueError: there are none, shapes do not fit, numbers are not finite, a vector is no unit vector, or an id
                is double.
        """
        vectors, embeddings = checked_additions(self.config, vectors, embeddings, recordings)
        metadata = with_rows(self.metadata, recordings)
        return self._with(
            config=dataclasses.replace(self.config, count=len(self) + len(recordings)),
            index=inner_product_index(np.concatenate([self._vectors(range(len(self))), vectors])),
            audio_embeddings=torch.cat([self.audio_embeddings, embeddings]),
            metadata=metadata,
            label_vectors=None if self.label_vectors is None else self._label_vectors_of(metadata),
        )

    def with_sounds_of(self, rows: Sequence[int]) -> AudioBertKnowledgeBase:
        """Returns a knowledge base in which sounds are exchanged under the names: recording i keeps its id, label,
        source and license, and what is heard of it is recording `rows[i]`. Its audio embedding, its place among the
        CLAP audio embeddings, and its length, pitch and brightness are those of `rows[i]`.

        Raises:
            ValueError: `rows` has not one row number for each recording.
            IndexError: there is no such row.
        """
        sounds = [self._checked(row) for row in rows]
        if len(sounds) != len(self):
            raise ValueError(f"`rows` has to name a row for each of the {len(self)} recordings, got {len(sounds)}.")
        return self._with(
            index=inner_product_index(self._vectors(sounds)),
            audio_embeddings=self.audio_embeddings[sounds].clone(),
            metadata=with_sounds_exchanged(self.metadata, sounds),
        )

    def with_retrieval(self, retrieval: str) -> AudioBertKnowledgeBase:
        """Returns a knowledge base that finds recordings this way where the caller of `search` does not say; label
        vectors are made where it needs them and there are none.

        Raises:
            ValueError: there is no such way.
        """
        vectors = self.label_vectors
        if check_retrieval(retrieval) != "audio" and vectors is None:
            vectors = self._label_vectors_of(self.metadata)
        return self._with(config=dataclasses.replace(self.config, retrieval=retrieval), label_vectors=vectors)

    def _with(self, **changed: Any) -> AudioBertKnowledgeBase:
        """One with other parts, and the mean and deviation of this one."""
        parts: dict[str, Any] = {
            "config": self.config,
            "index": self.index,
            "audio_embeddings": self.audio_embeddings,
            "metadata": self.metadata,
            "query_encoder": self.query_encoder,
            "audio_statistics": self._statistics if "audio_embeddings" in changed else self._given_statistics,
            "label_vectors": self.label_vectors,
            "carried": self.carried,
        }
        return AudioBertKnowledgeBase(**{**parts, **changed})

    def _vectors(self, rows: Sequence[int]) -> np.ndarray:
        return np.asarray(self.index.reconstruct_batch(np.array(rows, dtype=np.int64)))

    def _label_vectors_of(self, metadata: Any) -> LabelVectors:
        def encode(label: str) -> np.ndarray:
            return self.query_encoder(self.config.query_template.replace("{span}", label))

        with self._lock:
            return LabelVectors.made_by(encode, metadata.column("label").to_pylist(), self.label_vectors)

    def audio_encoder(self, **hub: Any) -> AudioEncoder:
        """Loads CLAP's audio tower, which is in memory only where it is asked for.

        Args:
            hub: `token`, `cache_dir`, `local_files_only` and `force_download`, where CLAP is a Hub checkpoint.

        Raises:
            ValueError: the knowledge base does not carry it, and CLAP is no Hub checkpoint either.
            OSError: a file of it is missing, truncated or changed, or the Hub gives no answer.
        """
        if isinstance(self.carried, AudioEncoder):
            return self.carried
        if self.carried is not None:
            return self.carried.load()
        if self.config.clap.revision is None:
            raise ValueError(
                f"this knowledge base does not carry the audio tower of its CLAP ({self.config.clap.name}), which new "
                "recordings are embedded with: build it with `--carry-clap`."
            )
        return AudioEncoder.from_pretrained(self.config.clap.name, revision=self.config.clap.revision, **hub)

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
        carried = CarriedAudioEncoder.listed_in(folder, files)
        for name, entry in files.items():
            if carried is None or name not in carried.files:
                check_file(folder, name, entry)
        if config.clap.revision is None:
            query_encoder = QueryEncoder.from_pretrained(folder / TEXT_ENCODER_FOLDER)
        else:
            query_encoder = QueryEncoder.from_pretrained(config.clap.name, revision=config.clap.revision, **hub)
        embeddings, statistics = read_embeddings(folder)
        metadata = read_metadata(folder / METADATA_FILE)
        return cls(
            config,
            read_index(folder / INDEX_FILE),
            embeddings,
            metadata,
            query_encoder,
            audio_statistics=statistics,
            label_vectors=LabelVectors.load(folder, metadata) if LABEL_VECTORS_FILE in files else None,
            carried=carried,
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
            write_embeddings(scratch, self.audio_embeddings, self._given_statistics)
            pyarrow.parquet.write_table(self.metadata, scratch / METADATA_FILE)
            if self.label_vectors is not None:
                self.label_vectors.save(scratch)
            if self.config.clap.revision is None:
                with self._lock:
                    self.query_encoder.save_pretrained(scratch / TEXT_ENCODER_FOLDER)
            if self.carried is not None:
                self.carried.save_pretrained(scratch / AUDIO_ENCODER_FOLDER)
            write_config(scratch, self.config)
            for folder in (TEXT_ENCODER_FOLDER, AUDIO_ENCODER_FOLDER):
                shutil.rmtree(target / folder, ignore_errors=True)
            (target / LABEL_VECTORS_FILE).unlink(missing_ok=True)
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


__all__ = [
    "CONFIG_FILE",
    "EMBEDDINGS_FILE",
    "INDEX_FILE",
    "METADATA_FILE",
    "TEXT_ENCODER_FOLDER",
    "AudioBertKnowledgeBase",
    "AudioEncoder",
    "EncoderReference",
    "KnowledgeBaseConfig",
    "QueryEncoder",
    "Recording",
    "Retrieval",
    "inner_product_index",
]

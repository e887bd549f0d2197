"""Builds a knowledge base out of recordings: CLAP audio embeddings to search by, AST embeddings to inject."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm.auto import tqdm

from ..files import sha256_of, whole_file
from ..locks import locked
from ..modeling.knowledge_audiobert import (
    AudioBertKnowledgeBase,
    KnowledgeBaseConfig,
    QueryEncoder,
    inner_product_index,
)
from ..modeling.knowledge_files_audiobert import POOLINGS
from .decoding import AudioDecodingError
from .encoders import AudioEncoders, EmbeddingError, with_revision
from .recordings import SourceRecording, read_recordings

if TYPE_CHECKING:
    from datasets import Dataset

SHARD_RECORDINGS = 64
SKIPPED_FILE = "skipped.csv"
FINGERPRINT_FILE = "fingerprint.json"
LOCK_FILE = "lock"


@dataclass(frozen=True)
class BuildReport:
    """What a build did.

    Attributes:
        folder: the knowledge base.
        count: recordings it holds.
        resumed: recordings taken over from a build that was cut off.
        skipped: id of each recording that could not be decoded or embedded, with the reason.
    """

    folder: Path
    count: int
    resumed: int
    skipped: tuple[tuple[str, str], ...]


def build_knowledge_base(
    source: str | os.PathLike | Dataset,
    out: str | os.PathLike,
    *,
    clap: str | os.PathLike,
    ast: str | os.PathLike,
    clap_revision: str | None = None,
    ast_revision: str | None = None,
    sources: Sequence[str] | None = None,
    query_template: str = "{span} sound",
    max_seconds: float = 60.0,
    pooling: str = "mean",
    device: str | torch.device = "cpu",
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> BuildReport:
    """Embeds recordings with CLAP and AST and writes a knowledge base.

    Recordings are embedded one at a time, so that the numbers of one never depend on the others. Finished shards are
    kept in the folder `<out>.partial`; a build that was cut off goes on from there when it is started again with the
    same arguments, and gives the same bytes as one that was not. Recordings that cannot be decoded or embedded are left
    out and listed in `skipped.csv` inside `out`.

    Args:
        source: folder with `metadata.csv`, or a `datasets.Dataset`; see `audiobert.sounds.recordings.read_recordings`.
        out: folder of the knowledge base; may not exist yet.
        clap: CLAP checkpoint, Hub id or local folder; the text tower of a local one is saved in the knowledge base.
        ast: AST checkpoint, Hub id or local folder.
        clap_revision, ast_revision: branch, tag or commit of Hub checkpoints.
        sources: keep only the recordings whose `source` is one of these.
        query_template: text sent to CLAP's text tower, with `{span}` where the span goes.
        max_seconds: CLAP hears the first `max_seconds` of a recording; AST hears as much as its input holds.
        pooling: "mean" embeds a recording as the paper does, as the mean of all that AST gives, also for the zeros that
            fill its input up behind a short recording; "sounding" as the mean over the part that holds sound. The
            knowledge base's `audio_pooling` says which.
        device: where the encoders run.
        token, local_files_only: for the Hub, as in `from_pretrained`.

    Raises:
        ValueError: nothing to build from, columns missing, ids double, `out` cannot be replaced, or `out.partial`
            belongs to another build.
        OSError: `out` is there already or is being built by another process, the source or a checkpoint is not there,
            or the disk is full: what was done is kept then.
    """
    out = Path(out)
    check_out(out)
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` has to be one of {list(POOLINGS)}, got {pooling!r}.")
    recordings = read_recordings(source, sources)
    hub: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
    work = out.parent / f"{out.name}.partial"
    with work_folder(work, out):
        encoders = AudioEncoders(clap, ast, clap_revision, ast_revision, max_seconds, pooling, device, hub)
        query_encoder = QueryEncoder.from_pretrained(clap, **with_revision(clap, clap_revision, hub))
        config = KnowledgeBaseConfig(
            clap=encoders.clap_reference,
            ast=encoders.ast_reference,
            clap_width=encoders.clap.config.projection_dim,
            audio_hidden_size=encoders.ast.config.hidden_size,
            count=len(recordings),
            query_template=query_template,
            audio_pooling=pooling,
        )
        settle_fingerprint(work, fingerprint(config, encoders, recordings, max_seconds))
        shards, resumed = embed_shards(work, recordings, encoders)

        skipped = tuple((recording_id, reason) for shard in shards for recording_id, reason in shard.skipped)
        for recording_id, reason in skipped:
            tqdm.write(f"skipped {recording_id}: {reason}")
        if len(skipped) == len(recordings):
            raise ValueError(
                f"none of the {len(recordings)} recordings could be decoded and embedded; the first: {skipped[0][1]}"
            )
        finished = work / "knowledge_base"
        shutil.rmtree(finished, ignore_errors=True)
        assemble(config, recordings, shards, query_encoder).save_pretrained(finished)
        if skipped:
            write_skipped(finished / SKIPPED_FILE, skipped)
        os.replace(finished, out)
        shutil.rmtree(work)
    return BuildReport(out, len(recordings) - len(skipped), resumed, skipped)


def check_out(out: Path) -> None:
    """Raises ValueError or FileExistsError unless a new folder can take the place of `out`."""
    if out.name in ("", "..") or out.resolve() == Path.cwd():
        raise ValueError(f"{out} cannot become a knowledge base: name a new folder.")
    if out.is_symlink() or os.path.ismount(out):
        raise FileExistsError(f"{out} is a link or a disk of its own: name a new folder inside it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; remove it, or name another folder.")


@contextmanager
def work_folder(work: Path, out: Path) -> Iterator[None]:
    """Makes the folder of finished shards, or takes over what an earlier build left, and keeps other processes away."""
    if work.exists() and not (work / FINGERPRINT_FILE).exists():
        if not work.is_dir() or {path.name for path in work.iterdir()} - {LOCK_FILE, f"{FINGERPRINT_FILE}.unfinished"}:
            raise FileExistsError(f"{work} is there and no build left it; remove it, or name another folder.")
    with locked(work / LOCK_FILE, f"{out} is being built by another process; wait for it, or name another folder."):
        # Another process may have finished it meanwhile.
        check_out(out)
        try:
            yield
        finally:
            if work.exists() and not (work / FINGERPRINT_FILE).exists():
                shutil.rmtree(work)


@dataclass(frozen=True)
class Shard:
    """The embeddings of some successive recordings: `rows` says which of all recordings they belong to."""

    rows: np.ndarray
    clap: np.ndarray
    ast: np.ndarray
    seconds: np.ndarray
    skipped: list[tuple[str, str]]


def embed_shards(work: Path, recordings: list[SourceRecording], encoders: AudioEncoders) -> tuple[list[Shard], int]:
    """Returns the embeddings of all recordings and the number of recordings whose shards were there already."""
    shards = []
    resumed = 0
    with tqdm(total=len(recordings), desc="Embedding recordings", unit="rec") as progress:
        for number, start in enumerate(range(0, len(recordings), SHARD_RECORDINGS)):
            stop = min(start + SHARD_RECORDINGS, len(recordings))
            path = work / f"shard-{number:05d}.safetensors"
            shard = read_shard(path)
            if shard is None:
                shard = embed_shard(recordings, range(start, stop), encoders, progress)
                write_shard(path, shard)
            else:
                resumed += stop - start
                progress.update(stop - start)
            shards.append(shard)
    return shards, resumed


def embed_shard(recordings: list[SourceRecording], rows: range, encoders: AudioEncoders, progress: tqdm) -> Shard:
    embedded = []
    skipped = []
    for row in rows:
        try:
            embedded.append((row, *encoders(recordings[row])))
        except (AudioDecodingError, EmbeddingError) as error:
            skipped.append((recordings[row].id, error.reason))
        progress.update()
    return Shard(
        rows=np.array([row for row, *_ in embedded], dtype=np.int64),
        clap=np.array([clap for _, clap, _, _ in embedded], dtype=np.float32),
        ast=np.array([ast for _, _, ast, _ in embedded], dtype=np.float16),
        seconds=np.array([seconds for *_, seconds in embedded], dtype=np.float64),
        skipped=skipped,
    )


def write_shard(path: Path, shard: Shard) -> None:
    """Writes under another name first, so that a shard is there as a whole or not at all."""
    arrays = {"rows": shard.rows, "clap": shard.clap, "ast": shard.ast, "seconds": shard.seconds}
    unfinished = path.with_suffix(".unfinished")
    try:
        unfinished.write_bytes(save(arrays, metadata={"skipped": json.dumps(shard.skipped)}))
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); what was done before it is kept, and the same "
            "build goes on from there."
        ) from error


def read_shard(path: Path) -> Shard | None:
    """Returns None for a shard that is not there or was damaged when the machine went down."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            skipped = [tuple(entry) for entry in json.loads(file.metadata()["skipped"])]
            arrays = {name: file.get_tensor(name) for name in ("rows", "clap", "ast", "seconds")}
    except SafetensorError:
        return None
    return Shard(skipped=skipped, **arrays)


def assemble(
    config: KnowledgeBaseConfig, recordings: list[SourceRecording], shards: list[Shard], query_encoder: QueryEncoder
) -> AudioBertKnowledgeBase:
    kept = [shard for shard in shards if len(shard.rows)]
    described = [recordings[row] for shard in kept for row in shard.rows]
    metadata = pyarrow.table(
        {
            "id": [recording.id for recording in described],
            "label": [recording.label for recording in described],
            "source": [recording.source for recording in described],
            "license": [recording.license for recording in described],
            "seconds": pyarrow.array(np.concatenate([shard.seconds for shard in kept])),
        }
    )
    return AudioBertKnowledgeBase(
        KnowledgeBaseConfig(**{**vars(config), "count": len(described)}),
        inner_product_index(np.concatenate([shard.clap for shard in kept])),
        torch.from_numpy(np.concatenate([shard.ast for shard in kept])),
        metadata,
        query_encoder,
    )


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "reason"])
        writer.writerows(skipped)


def settle_fingerprint(work: Path, expected: str) -> None:
    """Keeps the fingerprint of a build; raises ValueError if that of another one is kept there."""
    path = work / FINGERPRINT_FILE
    if path.exists():
        if path.read_text(encoding="utf-8") != json.dumps(expected):
            raise ValueError(
                f"{work} belongs to a build of other recordings, encoders or settings; remove it to start anew."
            )
        return
    with whole_file(path) as file:
        file.write(json.dumps(expected))


def fingerprint(
    config: KnowledgeBaseConfig, encoders: AudioEncoders, recordings: list[SourceRecording], max_seconds: float
) -> str:
    """Returns a digest of everything that the result depends on: settings, weights, and each recording's bytes."""
    digest = hashlib.sha256(json.dumps([config.to_dict(), max_seconds, SHARD_RECORDINGS]).encode())
    for extractor in (encoders.clap_extractor, encoders.ast_extractor):
        digest.update(extractor.to_json_string().encode())
    for model in (encoders.clap, encoders.ast):
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for recording in recordings:
        fields = [recording.id, recording.label, recording.source, recording.license, recording.seconds]
        digest.update(json.dumps(fields).encode())
        digest.update(digest_of(recording.open()))
    return digest.hexdigest()


def digest_of(file: str | bytes) -> bytes:
    """Returns the sha256 of a recording's content; a file that cannot be read counts as empty and is skipped later."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).digest()
    try:
        return bytes.fromhex(sha256_of(Path(file)))
    except (OSError, ValueError):
        return hashlib.sha256(b"").digest()

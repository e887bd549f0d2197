"""Builds a knowledge base out of recordings: CLAP audio embeddings to search by, AST embeddings to inject."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
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
    AudioEncoder,
    KnowledgeBaseConfig,
    QueryEncoder,
    Recording,
    inner_product_index,
)
from ..modeling.knowledge_files_audiobert import POOLINGS, check_retrieval
from ..modeling.recordings_audiobert import MEASURED_COLUMNS, METADATA_COLUMNS, SOUND_COLUMNS
from .decoding import AudioDecodingError
from .encoders import AudioEncoders, Clap, EmbeddingError, reference_of
from .measuring import check_notes
from .measuring import measure as measure_recording
from .pitch import PitchSettings
from .recordings import SourceRecording, read_recordings

if TYPE_CHECKING:
    from datasets import Dataset

SHARD_RECORDINGS = 64
SKIPPED_FILE = "skipped.csv"
FINGERPRINT_FILE = "fingerprint.json"
LOCK_FILE = "lock"
# What a model that gets more recordings is written as, in the work folder, until it is whole.
GROWN_FOLDER = "grown_model"


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
    source: str | os.PathLike | Dataset | Sequence[str | os.PathLike | Dataset],
    out: str | os.PathLike,
    *,
    clap: str | os.PathLike,
    ast: str | os.PathLike,
    clap_revision: str | None = None,
    ast_revision: str | None = None,
    sources: Sequence[str] | None = None,
    without_sources: Sequence[str] = (),
    query_template: str = "{span} sound",
    max_seconds: float = 60.0,
    pooling: str = "mean",
    retrieval: str = "audio",
    measure: bool = False,
    carry_clap: bool = False,
    untrained_clap: bool = False,
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
        source: folder with `metadata.csv`, or a `datasets.Dataset`, or several of them; see
            `audiobert.sounds.recordings.read_recordings`.
        out: folder of the knowledge base; may not exist yet.
        clap: CLAP checkpoint, Hub id, local folder, or a `.pt` of laion-clap, see `audiobert.sounds.laion_clap`; the
            text tower of a local one is saved in the knowledge base.
        ast: AST checkpoint, Hub id or local folder.
        clap_revision, ast_revision: branch, tag or commit of Hub checkpoints.
        sources: keep only the recordings whose `source` is one of these.
        without_sources: keep none of these.
        query_template: text sent to CLAP's text tower, with `{span}` where the span goes.
        max_seconds: CLAP hears the first `max_seconds` of a recording; AST hears as much as its input holds.
        pooling: "mean" embeds a recording as the paper does, as the mean of all that AST gives, also for the zeros that
            fill its input up behind a short recording; "sounding" as the mean over the part that holds sound. The
            knowledge base's `audio_pooling` says which.
        retrieval: how recordings are found: "audio", by sound, as in the paper; "label", by name; "both". The last two
            store CLAP's text vectors of the labels; see `AudioBertKnowledgeBase.search`.
        measure: whether to measure pitch, voiced seconds and brightness of each recording into the metadata; where its
            source names the note (`pitch_note`), that is its pitch. Takes longer than the embeddings.
        carry_clap: whether CLAP's audio tower is saved along, so that recordings can be added later without the CLAP
            checkpoint; for a local CLAP, as one of the Hub is loaded from there.
        untrained_clap: whether CLAP may be one that does not tell texts apart, for a knowledge base that is not asked.
        device: where the encoders run.
        token, local_files_only: for the Hub, as in `from_pretrained`.

    Raises:
        ValueError: nothing to build from, columns missing, ids double, a `pitch_note` that is no note, `carry_clap`
            with a CLAP of the Hub, a CLAP that does not tell texts apart, a `.pt` that is not laion-clap's, `out`
            cannot be replaced, or `out.partial` belongs to another build.
        OSError: `out` is there already or is being built by another process, the source or a checkpoint is not there,
            or the disk is full: what was done is kept then.
    """
    out = Path(out)
    check_out(out)
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` has to be one of {list(POOLINGS)}, got {pooling!r}.")
    check_retrieval(retrieval)
    if carry_clap and not os.path.exists(clap):
        raise ValueError(f"{clap} is a checkpoint of the Hub and is loaded from there: `carry_clap` is for one here.")
    recordings = read_recordings(source, sources, without_sources)
    if measure:
        check_notes(recordings)
    hub: dict[str, Any] = {"token": token, "local_files_only": local_files_only}
    work = out.parent / f"{out.name}.partial"
    with work_folder(work, out):
        towers = Clap.from_pretrained(clap, clap_revision, hub)
        if not untrained_clap:
            towers.check_tells_apart(query_template)
        encoders = AudioEncoders.from_pretrained(towers.audio, ast, ast_revision, max_seconds, pooling, device, hub)
        config = KnowledgeBaseConfig(
            clap=towers.reference,
            ast=reference_of(ast, encoders.ast),
            clap_width=encoders.clap.width,
            audio_hidden_size=encoders.ast.config.hidden_size,
            count=len(recordings),
            query_template=query_template,
            audio_pooling=pooling,
        )
        settings = PitchSettings() if measure else None
        settle_fingerprint(work, fingerprint(config, encoders, towers.text, recordings, max_seconds, settings))
        shards, resumed = embed_shards(work, recordings, encoders, settings)

        skipped = tuple((recording_id, reason) for shard in shards for recording_id, reason in shard.skipped)
        report_skipped(skipped, len(recordings))
        finished = work / "knowledge_base"
        shutil.rmtree(finished, ignore_errors=True)
        carried = encoders.clap if carry_clap else None
        knowledge_base = assemble(config, recordings, shards, towers.text, carried).with_retrieval(retrieval)
        knowledge_base.save_pretrained(finished)
        if skipped:
            write_skipped(finished / SKIPPED_FILE, skipped)
        os.replace(finished, out)
        shutil.rmtree(work)
    return BuildReport(out, len(recordings) - len(skipped), resumed, skipped)


def check_out(out: Path, what: str = "knowledge base") -> None:
    """Raises ValueError or FileExistsError unless a new folder, `what` it is to be, can take the place of `out`."""
    if out.name in ("", "..") or out.resolve() == Path.cwd():
        raise ValueError(f"{out} cannot become a {what}: name a new folder.")
    if out.is_symlink() or os.path.ismount(out):
        raise FileExistsError(f"{out} is a link or a disk of its own: name a new folder inside it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already; remove it, or name another folder.")


@contextmanager
def work_folder(work: Path, out: Path) -> Iterator[None]:
    """Makes the folder of finished shards, or takes over what an earlier build left, and keeps other processes away."""
    if work.exists() and not (work / FINGERPRINT_FILE).exists():
        known = {LOCK_FILE, f"{FINGERPRINT_FILE}.unfinished", GROWN_FOLDER}
        if not work.is_dir() or {path.name for path in work.iterdir()} - known:
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
    """The embeddings of some successive recordings: `rows` says which of all recordings they belong to, and `measured`
    has what was measured of each, NaN for what it has not, fp64 (recordings, 3); None where nothing was."""

    rows: np.ndarray
    clap: np.ndarray
    ast: np.ndarray
    seconds: np.ndarray
    skipped: list[tuple[str, str]]
    measured: np.ndarray | None = None


def embed_shards(
    work: Path, recordings: list[SourceRecording], encoders: AudioEncoders, settings: PitchSettings | None
) -> tuple[list[Shard], int]:
    """Returns the embeddings of all recordings and the number of recordings whose shards were there already."""
    shards = []
    resumed = 0
    with tqdm(total=len(recordings), desc="Embedding recordings", unit="rec") as progress:
        for number, start in enumerate(range(0, len(recordings), SHARD_RECORDINGS)):
            stop = min(start + SHARD_RECORDINGS, len(recordings))
            path = work / f"shard-{number:05d}.safetensors"
            shard = read_shard(path)
            if shard is None:
                shard = embed_shard(recordings, range(start, stop), encoders, settings, progress)
                write_shard(path, shard)
            else:
                resumed += stop - start
                progress.update(stop - start)
            shards.append(shard)
    return shards, resumed


def embed_shard(
    recordings: Sequence[SourceRecording],
    rows: range,
    encoders: AudioEncoders,
    settings: PitchSettings | None,
    progress: tqdm,
) -> Shard:
    """Embeds some of the recordings, and measures them by these settings, if there are any."""
    embedded = []
    measured = []
    skipped = []
    for row in rows:
        try:
            embeddings = encoders(recordings[row])
            if settings is not None:
                measured.append(astuple(measure_recording(recordings[row], settings)))
            embedded.append((row, *embeddings))
        except (AudioDecodingError, EmbeddingError) as error:
            skipped.append((recordings[row].id, error.reason))
        progress.update()
    return Shard(
        rows=np.array([row for row, *_ in embedded], dtype=np.int64),
        clap=np.array([clap for _, clap, _, _ in embedded], dtype=np.float32),
        ast=np.array([ast for _, _, ast, _ in embedded], dtype=np.float16),
        seconds=np.array([seconds for *_, seconds in embedded], dtype=np.float64),
        skipped=skipped,
        measured=None if settings is None else np.array(measured, dtype=np.float64),
    )


def write_shard(path: Path, shard: Shard) -> None:
    """Writes under another name first, so that a shard is there as a whole or not at all."""
    arrays = {"rows": shard.rows, "clap": shard.clap, "ast": shard.ast, "seconds": shard.seconds}
    if shard.measured is not None:
        arrays["measured"] = shard.measured
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
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError:
        return None
    return Shard(skipped=skipped, **arrays)


def assemble(
    config: KnowledgeBaseConfig,
    recordings: list[SourceRecording],
    shards: list[Shard],
    query_encoder: QueryEncoder,
    carried: AudioEncoder | None,
) -> AudioBertKnowledgeBase:
    kept = [shard for shard in shards if len(shard.rows)]
    described = [recording for shard in kept for recording in described_by(shard, recordings)]
    names = [*METADATA_COLUMNS, *(MEASURED_COLUMNS if kept[0].measured is not None else ())]
    columns = {name: [getattr(recording, name) for recording in described] for name in names}
    numbers = {name: pyarrow.array(columns[name], pyarrow.float64()) for name in names if name in SOUND_COLUMNS}
    return AudioBertKnowledgeBase(
        KnowledgeBaseConfig(**{**vars(config), "count": len(described)}),
        inner_product_index(np.concatenate([shard.clap for shard in kept])),
        torch.from_numpy(np.concatenate([shard.ast for shard in kept])),
        pyarrow.table({**columns, **numbers}),
        query_encoder,
        carried=carried,
    )


def described_by(shard: Shard, recordings: Sequence[SourceRecording]) -> list[Recording]:
    """What a knowledge base says of the recordings of a shard, which are numbered as in `recordings`."""
    described = []
    for number, row in enumerate(shard.rows):
        source = recordings[row]
        seconds = float(shard.seconds[number])
        measured: dict[str, Any] = {}
        if shard.measured is not None:
            values = (None if np.isnan(value) else float(value) for value in shard.measured[number])
            measured = dict(zip(MEASURED_COLUMNS, values, strict=True))
        described.append(Recording(source.id, source.label, source.source, source.license, seconds, **measured))
    return described


def report_skipped(skipped: Sequence[tuple[str, str]], count: int) -> None:
    """Tells which of `count` recordings were left out; raises ValueError if that is all of them."""
    for recording_id, reason in skipped:
        tqdm.write(f"skipped {recording_id}: {reason}")
    if len(skipped) == count:
        raise ValueError(f"none of the {count} recordings could be decoded and embedded; the first: {skipped[0][1]}")


def write_skipped(path: Path, skipped: Sequence[tuple[str, str]]) -> None:
    """Lists recordings that were left out, behind those of an earlier build."""
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
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
    config: KnowledgeBaseConfig,
    encoders: AudioEncoders,
    query_encoder: QueryEncoder,
    recordings: list[SourceRecording],
    max_seconds: float,
    settings: PitchSettings | None,
) -> str:
    """Returns a digest of everything that the result depends on: settings, weights, and each recording's bytes."""
    measured = [] if settings is None else [asdict(settings)]
    digest = hashlib.sha256(json.dumps([config.to_dict(), max_seconds, SHARD_RECORDINGS, *measured]).encode())
    for extractor in (encoders.clap.extractor, encoders.ast_extractor):
        digest.update(extractor.to_json_string().encode())
    for model in (encoders.clap.model, query_encoder.model, encoders.ast):
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for recording in recordings:
        fields = [recording.id, recording.label, recording.source, recording.license, recording.seconds]
        digest.update(json.dumps([*fields, *([recording.pitch_note] if measured else [])]).encode())
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

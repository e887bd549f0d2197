"""Recordings added to a model: its knowledge base grows where it lies, and nothing is built anew."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from tqdm.auto import tqdm

from ..modeling.companions_audiobert import KNOWLEDGE_BASE_FOLDER
from ..modeling.knowledge_audiobert import AudioBertKnowledgeBase
from ..modeling.modeling_audiobert import AudioBertForMaskedLM
from ..modeling.recordings_audiobert import MEASURED_COLUMNS
from .building import (
    FINGERPRINT_FILE,
    GROWN_FOLDER,
    SKIPPED_FILE,
    check_out,
    described_by,
    embed_shard,
    report_skipped,
    work_folder,
    write_skipped,
)
from .encoders import AudioEncoders
from .measuring import check_notes
from .pitch import PitchSettings
from .recordings import SourceRecording, read_recordings

# What lies in a checkpoint's folder and is no part of it.
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", ".git", ".cache")


@dataclass(frozen=True)
class AddedRecordings:
    """What was added to a model.

    Attributes:
        added: ids of the recordings that its knowledge base now holds as well, in their order.
        count: recordings that it holds in all.
        skipped: id of each recording that could not be decoded or embedded, with the reason.
    """

    added: tuple[str, ...]
    count: int
    skipped: tuple[tuple[str, str], ...]


def add_recordings(
    model: AudioBertForMaskedLM, audio_dir: str | os.PathLike, *, max_seconds: float = 60.0
) -> AddedRecordings:
    """Adds recordings to the knowledge base of a model; from then on it finds and hears them.

    They are embedded by CLAP's audio tower, which the knowledge base carries or the Hub has, and by the model's own
    AST, and are to the last bit what a build of the knowledge base with them would have given. Their pitch and
    brightness are measured where those of the others are. The model's old knowledge base stays as it is for whoever
    else has it.

    Args:
        model: with a knowledge base and the feature extractor of its AST.
        audio_dir: folder with `metadata.csv`; see `audiobert.sounds.recordings.read_recordings`. The `file_name` of a
            recording becomes its id.
        max_seconds: CLAP hears the first `max_seconds` of a recording, as in `build_knowledge_base`.

    Raises:
        OSError: the folder is not there, or a file of CLAP's audio tower is damaged.
        ValueError: the model lacks a part, the knowledge base does not carry CLAP's audio tower, an id is double or
            there already, a row of `metadata.csv` is at fault, or none of the recordings could be decoded.
    """
    knowledge_base = check_grows(model)
    recordings = read_recordings(audio_dir)
    check_new(knowledge_base, recordings)
    settings = PitchSettings() if set(MEASURED_COLUMNS) & set(knowledge_base.metadata.column_names) else None
    if settings is not None:
        check_notes(recordings)
    encoders = encoders_of(model, knowledge_base, max_seconds)
    with tqdm(total=len(recordings), desc="Embedding recordings", unit="rec") as progress:
        shard = embed_shard(recordings, range(len(recordings)), encoders, settings, progress)
    report_skipped(shard.skipped, len(recordings))
    described = described_by(shard, recordings)
    grown = knowledge_base.with_recordings(shard.clap, torch.from_numpy(shard.ast), described)
    model.set_knowledge_base(grown)
    return AddedRecordings(tuple(recording.id for recording in described), len(grown), tuple(shard.skipped))


def check_grows(model: AudioBertForMaskedLM) -> AudioBertKnowledgeBase:
    """The knowledge base of a model; raises ValueError if recordings cannot be added to it."""
    if model.knowledge_base is None:
        raise ValueError("The model has no knowledge base to add recordings to: give it one with `set_knowledge_base`.")
    if model.feature_extractor is None:
        raise ValueError("The model has no feature extractor of its AST: set `model.feature_extractor`.")
    return model.knowledge_base


def check_new(knowledge_base: AudioBertKnowledgeBase, recordings: list[SourceRecording]) -> None:
    there = {knowledge_base.recording(row).id for row in range(len(knowledge_base))}
    if known := [recording.id for recording in recordings if recording.id in there]:
        raise ValueError(f"The knowledge base holds recordings of the ids {known[:5]} already: rename the new files.")


def encoders_of(
    model: AudioBertForMaskedLM, knowledge_base: AudioBertKnowledgeBase, max_seconds: float
) -> AudioEncoders:
    """The encoders by which recordings are added, as those of a build: in fp32, AST where the model is."""
    assert model.feature_extractor is not None  # checked before
    ast = copy.deepcopy(model.audio_model).float().eval()
    clap = knowledge_base.audio_encoder()
    return AudioEncoders(clap, ast, model.feature_extractor, max_seconds, knowledge_base.config.audio_pooling)


def grow_checkpoint(
    checkpoint: str | os.PathLike, audio_dir: str | os.PathLike, out: str | os.PathLike, *, max_seconds: float = 60.0
) -> AddedRecordings:
    """Writes a checkpoint with more recordings: everything of it is copied, its knowledge base with them added.

    `out` is there as a whole or not at all. Recordings that were left out stand in the knowledge base's `skipped.csv`.

    Args:
        checkpoint: an AudioBERT, a folder or a Hub id.
        audio_dir, max_seconds: see `add_recordings`.
        out: folder to write; may not exist yet.

    Raises:
        OSError: `out` is there already or is being written by another process, the checkpoint or `audio_dir` is not
            there or damaged, or the disk is full.
        ValueError: as `add_recordings`, or `out` cannot be written.
    """
    out = Path(out)
    check_out(out, "model")
    read_recordings(audio_dir)
    folder = Path(checkpoint if os.path.isdir(checkpoint) else snapshot_download(str(checkpoint)))
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies inside the model that is copied, {folder}: name a folder outside.")
    with _aside(out) as grown:
        model = AudioBertForMaskedLM.from_pretrained(folder)
        report = add_recordings(model, audio_dir, max_seconds=max_seconds)
        assert model.knowledge_base is not None  # or nothing could have been added
        shutil.copytree(folder, grown, ignore=_LEFT_BEHIND, copy_function=shutil.copyfile)
        model.knowledge_base.save_pretrained(grown / KNOWLEDGE_BASE_FOLDER)
        if report.skipped:
            write_skipped(grown / KNOWLEDGE_BASE_FOLDER / SKIPPED_FILE, report.skipped)
    return report


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A place for what becomes `out` when it was written without an error."""
    work = out.parent / f"{out.name}.partial"
    if (work / FINGERPRINT_FILE).exists():
        raise FileExistsError(f"{work} belongs to the build of a knowledge base; finish it, or name another folder.")
    with work_folder(work, out):
        grown = work / GROWN_FOLDER
        # Of a process that was killed.
        shutil.rmtree(grown, ignore_errors=True)
        yield grown
        os.replace(grown, out)

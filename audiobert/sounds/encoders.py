"""CLAP's audio tower and AST: a recording in, the embeddings of a knowledge base out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioModelWithProjection,
    ClapModel,
    ClapTextModelWithProjection,
    PreTrainedModel,
)

from ..modeling.audio_tower_audiobert import AudioEncoder
from ..modeling.knowledge_audiobert import EncoderReference
from ..modeling.query_audiobert import QueryEncoder, move_into_memory
from .decoding import audio_seconds
from .features import ast_values, ast_waveform, clap_features, sounding_frames
from .laion_clap import find_checkpoint, load_laion_clap
from .recordings import SourceRecording

# Sounds that have nothing to do with each other, and how alike their queries may be in the mean. A CLAP that works has
# 0.1 to 0.3, one whose text tower was not learned or not loaded 0.99.
UNRELATED = (
    *("dog", "rain", "piano", "car engine", "thunder", "baby crying", "church bell", "typing", "frying food", "violin"),
    *("airplane", "cat", "applause", "glass", "waves", "gunshot", "sneeze", "owl", "train whistle", "chainsaw"),
)
ALIKE = 0.95

Tower = TypeVar("Tower", ClapAudioModelWithProjection, ClapTextModelWithProjection)


class EmbeddingError(ValueError):
    """A recording that can be decoded and not embedded. `reason` says why, without the recording's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot embed {name}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Clap:
    """CLAP's two towers.

    Attributes:
        reference: what a knowledge base calls the checkpoint.
        audio: what embeds recordings.
        text: what embeds queries.
    """

    reference: EncoderReference
    audio: AudioEncoder
    text: QueryEncoder

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, revision: str | None, hub: dict[str, Any]) -> Clap:
        """
        Loads both.

        Args:
            name_or_path: checkpoint, a Hub id, a local folder, or a file of laion-clap's, see `load_laion_clap`.
            revision: branch, tag or commit of a Hub checkpoint.
            hub: `token` and `local_files_only`, as for `from_pretrained`.
        """
        hub = with_revision(name_or_path, revision, hub)
        checkpoint = find_checkpoint(name_or_path)
        if checkpoint is None:
            audio = AudioEncoder.from_pretrained(name_or_path, **hub)
            text = QueryEncoder.from_pretrained(name_or_path, **hub)
            return cls(reference_of(name_or_path, audio.model), audio, text)
        model, extractor, tokenizer = load_laion_clap(checkpoint, **hub)
        audio = AudioEncoder(_tower(ClapAudioModelWithProjection, model, "audio"), extractor)
        text = QueryEncoder(_tower(ClapTextModelWithProjection, model, "text"), tokenizer)
        return cls(EncoderReference(checkpoint.name), audio, text)

    def check_tells_apart(self, query_template: str) -> None:
        """Raises ValueError if unrelated queries are all but the same to the text tower, as to one that is broken."""
        vectors = np.concatenate([self.text(query_template.replace("{span}", span)) for span in UNRELATED])
        cosines = vectors @ vectors.T
        mean = (cosines.sum() - np.trace(cosines)) / (cosines.size - len(cosines))
        if mean > ALIKE:
            raise ValueError(
                f"CLAP {self.reference.name} does not tell texts apart: {len(UNRELATED)} unrelated queries have a mean "
                f"cosine of {mean:.3f}, so that all would find the same recordings. Its text tower is untrained or "
                "broken, as that of laion/larger_clap_music on the Hub is; name another, laion/larger_clap_general say."
            )


def _tower(kind: type[Tower], clap: ClapModel, part: str) -> Tower:
    """One tower of a CLAP, "audio" or "text", with its projection; the weights are the same, not copies."""
    own = (f"{part}_model.", f"{part}_projection.")
    weights = {name: value for name, value in clap.state_dict().items() if name.startswith(own)}
    with torch.device("meta"):
        tower = kind(getattr(clap.config, f"{part}_config"))
    tower.load_state_dict(weights, assign=True)
    return tower


class AudioEncoders:
    """CLAP's audio tower and AST, each with its feature extractor, in fp32.

    Args:
        clap: CLAP's audio tower.
        ast: AST, in eval mode.
        ast_extractor: its feature extractor.
        max_seconds: CLAP hears the first `max_seconds` of a recording.
        pooling: over what of AST's last hidden states an audio embedding is the mean, see `sounding_states`.
    """

    def __init__(
        self, clap: AudioEncoder, ast: ASTModel, ast_extractor: ASTFeatureExtractor, max_seconds: float, pooling: str
    ) -> None:
        self.clap = clap
        self.ast = ast
        self.ast_extractor = ast_extractor
        self.max_seconds = max_seconds
        self.pooling = pooling

    @classmethod
    def from_pretrained(
        cls,
        clap: AudioEncoder,
        ast: str | os.PathLike,
        ast_revision: str | None,
        max_seconds: float,
        pooling: str,
        device: str | torch.device,
        hub: dict[str, Any],
    ) -> AudioEncoders:
        """
        Loads AST, to work beside an audio tower of CLAP.

        Args:
            clap: moved to `device`.
            ast: checkpoint, a Hub id or a local folder.
            ast_revision: branch, tag or commit of a Hub checkpoint.
            max_seconds, pooling: see above.
            device: where they run.
            hub: `token` and `local_files_only`, as for `from_pretrained`.
        """
        ast_hub = with_revision(ast, ast_revision, hub)
        model = ASTModel.from_pretrained(ast, dtype=torch.float32, use_safetensors=True, **ast_hub).eval()
        move_into_memory(model)
        extractor = ASTFeatureExtractor.from_pretrained(ast, **ast_hub)
        clap.model.to(device)
        model.to(device)
        return cls(clap, model, extractor, max_seconds, pooling)

    @torch.no_grad()
    def __call__(self, recording: SourceRecording) -> tuple[np.ndarray, np.ndarray, float]:
        """Embeds one recording.

        Returns:
            The CLAP audio embedding (a unit vector, fp32), the pooled last hidden states of AST (fp16), and the
            recording's length in seconds.

        Raises:
            AudioDecodingError: it cannot be decoded.
            EmbeddingError: an embedding is not finite, as of samples near the largest number there is.
        """
        file = recording.open()
        with np.errstate(over="ignore", invalid="ignore"):
            features = clap_features(self.clap.extractor, file, recording.id, self.max_seconds)
            waveform = ast_waveform(self.ast_extractor, file)
            values = torch.from_numpy(ast_values(self.ast_extractor, waveform))[None]
        clap_embedding = self.clap({name: torch.from_numpy(value)[None] for name, value in features.items()})[0]

        hidden = self.ast(values.to(self.ast.device)).last_hidden_state
        if self.pooling == "sounding":
            sounding = sounding_states(self.ast.config, sounding_frames(self.ast_extractor, waveform))
            hidden = hidden[:, sounding.to(hidden.device)]
        ast_embedding = hidden.mean(dim=1)[0].half()
        for name, embedding in (("CLAP", clap_embedding), ("AST", ast_embedding)):
            if not embedding.isfinite().all():
                raise EmbeddingError(recording.id, f"{name} gives it an embedding that is not finite")
        seconds = audio_seconds(file) if recording.seconds is None else recording.seconds
        return clap_embedding.cpu().numpy(), ast_embedding.cpu().numpy(), seconds


def sounding_states(config: ASTConfig, frames: int) -> torch.Tensor:
    """Which of AST's last hidden states belong to the first `frames` frames of its input: bool of shape (sequence,).

    A state belongs to a patch of the spectrogram, and is taken if the patch covers one of those frames at least. The
    class and the distillation token stand before the patches and hear the whole input; they are always taken, so that
    a recording which fills the input has the mean of all states, as with the paper's pooling.
    """
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    rows = (config.num_mel_bins - patch) // config.frequency_stride + 1
    columns = (config.max_length - patch) // config.time_stride + 1
    covered = torch.arange(columns) * config.time_stride < frames
    # The patches stand row by row, one row for each stretch of frequencies.
    return torch.cat([torch.ones(2, dtype=torch.bool), covered.repeat(rows)])


def reference_of(name_or_path: str | os.PathLike, model: PreTrainedModel) -> EncoderReference:
    """Names a checkpoint: a local folder by its last part alone, a Hub id with the commit it was resolved to."""
    if os.path.isdir(name_or_path):
        return EncoderReference(Path(name_or_path).resolve().name)
    return EncoderReference(str(name_or_path), model.config._commit_hash)


def with_revision(name_or_path: str | os.PathLike, revision: str | None, hub: dict[str, Any]) -> dict[str, Any]:
    """Returns the Hub arguments for one checkpoint; a revision of a local one is refused."""
    if revision is None:
        return hub
    if os.path.exists(name_or_path):
        raise ValueError(f"{name_or_path} is a local file or folder; the revision {revision!r} has no meaning for it.")
    return {**hub, "revision": revision}

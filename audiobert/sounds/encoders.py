"""CLAP's audio tower and AST: a recording in, the embeddings of a knowledge base out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, PreTrainedModel

from ..modeling.audio_tower_audiobert import AudioEncoder
from ..modeling.knowledge_audiobert import EncoderReference
from ..modeling.query_audiobert import move_into_memory
from .decoding import audio_seconds
from .features import ast_values, ast_waveform, clap_features, sounding_frames
from .recordings import SourceRecording


class EmbeddingError(ValueError):
    """A recording that can be decoded and not embedded. `reason` says why, without the recording's name."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot embed {name}: {reason}")
        self.reason = reason


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
        clap: str | os.PathLike,
        ast: str | os.PathLike,
        clap_revision: str | None,
        ast_revision: str | None,
        max_seconds: float,
        pooling: str,
        device: str | torch.device,
        hub: dict[str, Any],
    ) -> AudioEncoders:
        """
        Loads both.

        Args:
            clap, ast: checkpoints, Hub ids or local folders.
            clap_revision, ast_revision: branch, tag or commit of Hub checkpoints.
            max_seconds, pooling: see above.
            device: where they run.
            hub: `token` and `local_files_only`, as for `from_pretrained`.
        """
        ast_hub = with_revision(ast, ast_revision, hub)
        audio_encoder = AudioEncoder.from_pretrained(clap, **with_revision(clap, clap_revision, hub))
        model = ASTModel.from_pretrained(ast, dtype=torch.float32, use_safetensors=True, **ast_hub).eval()
        move_into_memory(model)
        extractor = ASTFeatureExtractor.from_pretrained(ast, **ast_hub)
        audio_encoder.model.to(device)
        model.to(device)
        return cls(audio_encoder, model, extractor, max_seconds, pooling)

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
    """Returns the Hub arguments for one checkpoint; a revision of a local folder is refused."""
    if revision is None:
        return hub
    if os.path.isdir(name_or_path):
        raise ValueError(f"{name_or_path} is a local folder; the revision {revision!r} has no meaning for it.")
    return {**hub, "revision": revision}

"""CLAP's audio tower: what puts recordings into the index, and lets a knowledge base grow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

from .knowledge_files_audiobert import AUDIO_ENCODER_FOLDER, check_file
from .query_audiobert import move_into_memory, save_weights


class ClapAudioTower(ClapAudioModelWithProjection):
    """CLAP's audio tower out of a whole CLAP checkpoint, whose other weights are not worth a warning."""

    _keys_to_ignore_on_load_unexpected = [r"^text_model\.", r"^text_projection\.", r"^logit_scale_"]


class AudioEncoder:
    """CLAP's audio tower and its feature extractor.

    The weights are computed with in fp32 and saved in the dtype they were stored in.
    """

    def __init__(self, model: ClapAudioModelWithProjection, extractor: ClapFeatureExtractor) -> None:
        self.stored_dtype = model.dtype
        self.model = model.float().eval().requires_grad_(False)
        self.extractor = extractor

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, **kwargs: Any) -> AudioEncoder:
        """Loads the audio tower alone, from a saved audio tower or from a whole CLAP checkpoint.

        Args:
            name_or_path: local folder or Hub id.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`.
        """
        model = ClapAudioTower.from_pretrained(name_or_path, dtype="auto", use_safetensors=True, **kwargs)
        move_into_memory(model)
        return cls(model, ClapFeatureExtractor.from_pretrained(name_or_path, **kwargs))

    @property
    def width(self) -> int:
        return self.model.config.projection_dim

    @torch.no_grad()
    def __call__(self, features: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Returns the unit vectors of recordings, fp32 of shape (batch, width), on the tower's device.

        Args:
            features: what the feature extractor makes of them: `input_features` (batch, channels, frames, mel bins) and
                `is_longer` (batch, 1).
        """
        device = self.model.device
        with torch.autocast(device.type, enabled=False):
            output = self.model(**{name: value.to(device) for name, value in features.items()})
            return torch.nn.functional.normalize(output.audio_embeds, dim=-1)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        weights = self.model.state_dict().items()
        # Indices and counts stay what they are.
        stored = {name: w.to(self.stored_dtype) if w.is_floating_point() else w for name, w in weights}
        save_weights(ClapAudioModelWithProjection, self.model.config, stored, folder)
        self.extractor.save_pretrained(folder)


class CarriedAudioEncoder:
    """An audio tower that lies in the folder of a knowledge base, and is read when it is asked for.

    Args:
        folder: that of the knowledge base.
        files: the entries of `config.json` for the files of the audio tower, by their names within `folder`.
    """

    def __init__(self, folder: Path, files: Mapping[str, dict[str, Any]]) -> None:
        self.folder = folder.absolute()
        self.files = dict(files)

    @classmethod
    def listed_in(cls, folder: Path, files: Mapping[str, dict[str, Any]]) -> CarriedAudioEncoder | None:
        """That of a knowledge base whose `config.json` lists these files; None if no audio tower is among them."""
        own = {name: entry for name, entry in files.items() if PurePosixPath(name).parts[0] == AUDIO_ENCODER_FOLDER}
        return cls(folder, own) if own else None

    def load(self) -> AudioEncoder:
        self.check()
        return AudioEncoder.from_pretrained(self.folder / AUDIO_ENCODER_FOLDER)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        self.check()
        for name in self.files:
            path = Path(folder, PurePosixPath(name).relative_to(AUDIO_ENCODER_FOLDER))
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / name, path)

    def check(self) -> None:
        """Raises OSError unless the files are those that `config.json` described when the knowledge base was loaded."""
        for name, entry in self.files.items():
            check_file(self.folder, name, entry)


__all__ = ["AudioEncoder", "CarriedAudioEncoder"]

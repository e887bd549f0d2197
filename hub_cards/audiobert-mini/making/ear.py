"""
The AST of the mini model: a small one, taught by labels, by pitch and brightness, and by what YAMNet hears.

AST's mean state is all that AudioBERT is told of a recording, so it is that state, over the frames that sound, from
which single linear layers have to tell what was sounding and how high. Recordings are heard at several transpositions,
whose pitch is known from that of the original. Nothing that is held out is heard.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm
from transformers import ASTConfig, ASTFeatureExtractor, ASTModel, set_seed

from audiobert.files import sha256_of
from audiobert.listening.held_out import HeldOut
from audiobert.modeling import AudioBertKnowledgeBase
from audiobert.modeling.injection_audiobert import pooled
from audiobert.sounds.decoding import load_audio
from audiobert.sounds.encoders import sounding_states
from audiobert.sounds.features import AST_HOP_SAMPLES, AST_WINDOW_SAMPLES, ast_values, sounding_frames
from audiobert.sounds.recordings import SourceRecording
from audiobert.training.arguments import recipe_arguments
from audiobert.training.settings import digest_of_json, digest_of_model, run_settings
from audiobert.training.trainer import RecipeTrainer, train_or_resume

SEMITONES = (-5, -2, 0, 2, 5)
# Farther from the original a recording is no longer what YAMNet heard.
MILD = 2
# What AST hears, and what is kept of a recording, so that it can begin later.
FRAMES, KEPT_FRAMES = 256, 320
EPOCHS = 40
BATCH = 32
# Pitch in octaves above 1 Hz, about zero and one.
MEAN_OCTAVE, OCTAVES = 8.6, 1.4
# Classes of pitch: semitones from 32 Hz on.
LOWEST_OCTAVE, PITCH_CLASSES = 5.0, 96


def new_extractor() -> ASTFeatureExtractor:
    return ASTFeatureExtractor(num_mel_bins=128, max_length=FRAMES)


def new_ast() -> ASTModel:
    """1.1 million weights: 2.56 s of sound at 16 kHz in 128 patches."""
    return ASTModel(
        ASTConfig(
            hidden_size=160,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=480,
            hidden_dropout_prob=0.05,
            frequency_stride=16,
            time_stride=16,
            max_length=FRAMES,
            num_mel_bins=128,
        )
    )


def write_features(out: Path, recordings: Sequence[SourceRecording]) -> None:
    """
    Writes what AST would hear of each recording at each transposition, into a folder.

    - `features.npy`: float16 `(recordings, transpositions, 320, 128)`.
    - `frames.npy`: int32 `(recordings, transpositions)`, how many of the frames hold the recording.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    extractor = new_extractor()
    extractor.max_length = KEPT_FRAMES
    shape = (len(recordings), len(SEMITONES), KEPT_FRAMES, extractor.num_mel_bins)
    features = np.lib.format.open_memmap(out / "features.npy", mode="w+", dtype=np.float16, shape=shape)
    frames = np.zeros(shape[:2], dtype=np.int32)
    rate = extractor.sampling_rate
    # Of a recording that is played slower less is heard.
    seconds = (AST_WINDOW_SAMPLES + AST_HOP_SAMPLES * KEPT_FRAMES) / rate * 2 ** (max(SEMITONES) / 12)
    for row, recording in enumerate(tqdm(recordings, desc="Features", unit="rec")):
        waveform = load_audio(recording.open(), rate, seconds)
        for column, semitones in enumerate(SEMITONES):
            played = soxr.resample(waveform, rate, rate * 2 ** (-semitones / 12)).astype(np.float32)
            features[row, column] = ast_values(extractor, played)
            frames[row, column] = sounding_frames(extractor, played)
    features.flush()
    np.save(out / "frames.npy", frames)


@dataclass(frozen=True)
class Lessons:
    """
    What is told of each recording that may be heard.

    Attributes:
        rows: int64 `(n,)`, which of the recordings.
        labels: int64 `(n,)`, numbers of their labels.
        octaves: float32 `(n,)`, pitch in octaves above 1 Hz, NaN where there is none.
        embeddings: float32 `(n, 1024)`, YAMNet's, standardised.
        scores: float32 `(n, 521)`, YAMNet's, from 0 to 1.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    octaves: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, sounds: AudioBertKnowledgeBase, ids: Sequence[str], held_out: HeldOut, yamnet: Path) -> Lessons:
        """
        Args:
            sounds: a knowledge base with pitches of all the recordings.
            ids: of the recordings whose features there are, in their order.
            held_out: what is not heard.
            yamnet: an .npz file with `names` (FOLDER/ID), `embeddings` and `scores`.

        Raises:
            ValueError: a recording is not in the knowledge base, or YAMNet has not heard it.
        """
        told = {sounds.recording(row).id: sounds.recording(row) for row in range(len(sounds))}
        teacher = dict(np.load(yamnet))
        heard = {str(name).partition("/")[2]: row for row, name in enumerate(teacher["names"])}
        if unknown := [one for one in ids if one not in told or one not in heard]:
            raise ValueError(
                f"{len(unknown)} recordings have no entry in the knowledge base or in {yamnet}: {unknown[:3]}"
            )
        silent = {sounds.recording(row).id for row in held_out.rows(sounds)}
        rows = np.array([row for row, one in enumerate(ids) if one not in silent])
        chosen = [told[ids[row]] for row in rows]
        names = sorted({one.label for one in chosen})
        number = {name: place for place, name in enumerate(names)}
        taught = [heard[ids[row]] for row in rows]
        embeddings = teacher["embeddings"][taught].astype(np.float32)
        embeddings = (embeddings - embeddings.mean(0)) / (embeddings.std(0) + 1e-3)
        return cls(
            rows,
            np.array([number[one.label] for one in chosen]),
            np.log2(np.array([one.pitch_hz or np.nan for one in chosen], dtype=np.float32)),
            embeddings.clip(-4, 4),
            teacher["scores"][taught].astype(np.float32).clip(0, 1),
        )


class HeardRecordings(torch.utils.data.Dataset):
    """
    Recordings as they are heard in an epoch: transposed, louder or softer, with noise, begun later, a band missing. All
    draws depend on the seed, the epoch and the row alone.
    """

    def __init__(self, folder: Path, lessons: Lessons, extractor: ASTFeatureExtractor, seed: int = 0) -> None:
        self.features = np.load(folder / "features.npy", mmap_mode="r")
        self.frames = np.load(folder / "frames.npy")
        self.lessons = lessons
        self.mean, self.scale = float(extractor.mean), 2 * float(extractor.std)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lessons.rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        draw = np.random.default_rng([self.seed, self.epoch, place])
        row, column = int(self.lessons.rows[place]), int(draw.integers(len(SEMITONES)))
        values, frames = self._varied(row, column, draw)
        semitones = SEMITONES[column]
        return {
            "input_values": torch.from_numpy(values),
            "frames": frames,
            "labels": int(self.lessons.labels[place]),
            "octave": float(self.lessons.octaves[place]) + semitones / 12,
            "shape": torch.from_numpy(self._shape(values[:frames])),
            "embedding": torch.from_numpy(self.lessons.embeddings[place]),
            "scores": torch.from_numpy(self.lessons.scores[place]),
            "is_mild": abs(semitones) <= MILD,
        }

    def _varied(self, row: int, column: int, draw: np.random.Generator) -> tuple[NDArray[np.float32], int]:
        kept = int(self.frames[row, column])
        start = int(draw.integers(kept - FRAMES + 1)) if kept > FRAMES else 0
        values = np.array(self.features[row, column, start : start + FRAMES], dtype=np.float32)
        frames = min(kept - start, FRAMES)
        heard = values[:frames]
        heard += draw.normal(0, 0.25)
        if draw.random() < 0.5:
            # In the logarithm of power, where what is louder wins.
            noise = draw.uniform(-1.4, -0.4) + 0.15 * draw.standard_normal(heard.shape)
            heard[:] = np.logaddexp(heard * self.scale, noise * self.scale) / self.scale
        if draw.random() < 0.3:
            band, low = int(draw.integers(1, 17)), int(draw.integers(values.shape[1] - 17))
            heard[:, low : low + band] = heard.mean()
        return values, frames

    def _shape(self, heard: NDArray[np.float32]) -> NDArray[np.float32]:
        """Where the middle of the spectrum is and how wide it is, in mel bins, about zero and one."""
        power = np.exp(np.clip(heard, -3, 3) * self.scale + self.mean).mean(0)
        bins = np.arange(len(power))
        middle = (power * bins).sum() / power.sum()
        width = np.sqrt((power * (bins - middle) ** 2).sum() / power.sum())
        return np.array([(middle - 64) / 30, (width - 20) / 10], dtype=np.float32)


class Pupil(nn.Module):
    """AST and the linear layers that it learns by, each over its mean state."""

    def __init__(self, ast: ASTModel, labels: int) -> None:
        super().__init__()
        self.ast = ast
        width = ast.config.hidden_size
        self.label = nn.Linear(width, labels)
        self.octave = nn.Linear(width, 1)
        self.semitone = nn.Linear(width, PITCH_CLASSES)
        self.shape = nn.Linear(width, 2)
        self.embedding = nn.Linear(width, 1024)
        self.score = nn.Linear(width, 521)

    def forward(
        self,
        input_values: torch.Tensor,
        frames: torch.Tensor,
        labels: torch.Tensor,
        octave: torch.Tensor,
        shape: torch.Tensor,
        embedding: torch.Tensor,
        scores: torch.Tensor,
        is_mild: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        states = self.ast(input_values).last_hidden_state
        sounding = torch.stack([sounding_states(self.ast.config, int(count)) for count in frames])
        state = pooled(states, sounding)
        loss = 0.5 * nn.functional.cross_entropy(self.label(state), labels, label_smoothing=0.1)
        loss = loss + 0.5 * nn.functional.mse_loss(self.shape(state), shape)
        has_pitch = ~octave.isnan()
        if has_pitch.any():
            loss = loss + self._pitch_loss(state[has_pitch], octave[has_pitch])
        if is_mild.any():
            loss = loss + nn.functional.mse_loss(self.embedding(state[is_mild]), embedding[is_mild])
            heard = nn.functional.binary_cross_entropy_with_logits(self.score(state[is_mild]), scores[is_mild])
            loss = loss + 10 * heard
        return {"loss": loss}

    def _pitch_loss(self, state: torch.Tensor, octave: torch.Tensor) -> torch.Tensor:
        height = ((octave - MEAN_OCTAVE) / OCTAVES).float()
        loss = 3 * nn.functional.smooth_l1_loss(self.octave(state)[:, 0], height, beta=0.2)
        # As a class too, a semitone wide: where it is unsure between octaves a mean would be neither.
        semitones = torch.arange(PITCH_CLASSES, device=state.device) - 12 * (octave[:, None] - LOWEST_OCTAVE)
        near = torch.softmax(-(semitones.float() ** 2) / 2, dim=1)
        return loss + 0.3 * nn.functional.cross_entropy(self.semitone(state), near)


def train_ear(out: Path, run: Path, features: Path, lessons: Lessons, **values: Any) -> None:
    """
    Trains the AST and saves it, in half precision, with its feature extractor.

    Args:
        out: the folder of the trained model.
        run: where checkpoints are kept while it is trained; a run that was stopped goes on from there.
        features: the folder that [`write_features`] wrote.
        lessons: what is told of the recordings.
        values: fields of `TrainingArguments` in place of the recipe's.
    """
    set_seed(0)
    extractor = new_extractor()
    pupil = Pupil(new_ast(), int(lessons.labels.max()) + 1)
    defaults: dict[str, Any] = {
        "num_train_epochs": EPOCHS,
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "adam_beta2": 0.98,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "eval_strategy": "no",
        "seed": 0,
    }
    args = recipe_arguments(run, **{"batch_size": BATCH, **defaults, **values})
    told = {name: value.tolist() for name, value in vars(lessons).items()}
    settings = run_settings(
        "ear",
        args,
        model=digest_of_model(pupil),
        data=sha256_of(features / "features.npy"),
        lessons=digest_of_json(told),
    )
    train_or_resume(RecipeTrainer(pupil, args, train_dataset=HeardRecordings(features, lessons, extractor)), settings)
    pupil.ast.half().save_pretrained(out)
    extractor.save_pretrained(out)

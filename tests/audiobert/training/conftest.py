"""What the recipes' tests start from, made once: a tiny AudioBERT, its recordings, and rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from datasets import DatasetDict
from transformers import ASTFeatureExtractor, TrainerCallback

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import load_auditorybench
from audiobert.training.trainer import RecipeTrainer

from audio_fixtures import save_tiny_clap, write_recordings
from model_fixtures import untrained_audiobert
from text_fixtures import write_auditorybench


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a detector that finds the vocabulary's words for sounds, and all else untrained."""
    folder = tmp_path_factory.mktemp("start")
    model = untrained_audiobert()
    model.feature_extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=32)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def model(start: Path) -> AudioBertForMaskedLM:
    return AudioBertForMaskedLM.from_pretrained(start)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_auditorybench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="session")
def data(bench: Path) -> DatasetDict:
    return load_auditorybench(bench)


@pytest.fixture(scope="session")
def audio_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings of the knowledge base of `start`."""
    rows = [{"file_name": f"sounds/{number}.ogg", "label": "x"} for number in range(12)]
    return write_recordings(tmp_path_factory.mktemp("audio"), rows)


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clap(tmp_path_factory.mktemp("clap"))


class _Stop(TrainerCallback):
    def __init__(self, epoch: float) -> None:
        self.epoch = epoch

    def on_save(self, args: object, state: object, control: object, **kwargs: object) -> None:
        if state.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], object]:
    """`with stopping(epoch):` what trains in it is interrupted when the checkpoint after that epoch was written."""

    @contextmanager
    def stop(epoch: float) -> Iterator[None]:
        original = RecipeTrainer.__init__

        def init(self: RecipeTrainer, *args: object, **kwargs: object) -> None:
            original(self, *args, **kwargs)
            self.add_callback(_Stop(epoch))

        with monkeypatch.context() as patch:
            patch.setattr(RecipeTrainer, "__init__", init)
            with pytest.raises(KeyboardInterrupt):
                yield

    return stop

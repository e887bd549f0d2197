"""The embeddings of one recording: which path of CLAP it takes, and over what of AST it is pooled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTConfig, ClapConfig, ClapFeatureExtractor, ClapModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from audiobert.modeling.knowledge_audiobert import AudioBertKnowledgeBase
from audiobert.sounds.building import build_knowledge_base
from audiobert.sounds.encoders import AudioEncoders, Clap, EmbeddingError, sounding_states
from audiobert.sounds.features import clap_features
from audiobert.sounds.recordings import SourceRecording

from audio_fixtures import save_tiny_ast, save_tiny_clap, tone, write_recordings

# Of the tiny encoders' input: CLAP hears one second, AST 0.64 seconds.
SHORT, LONG = 0.25, 1.5


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clap(tmp_path_factory.mktemp("clap") / "fused", fusion=True)


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_ast(tmp_path_factory.mktemp("ast") / "ast")


@pytest.fixture
def recording(tmp_path: Path) -> Callable[[float], SourceRecording]:
    def make(seconds: float) -> SourceRecording:
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, tone(440, seconds, 16000), 16000)
        return SourceRecording(path.name, "tone", "", "", None, lambda: str(path))

    return make


def encoders(clap: Path, ast: Path, pooling: str = "mean") -> AudioEncoders:
    towers = Clap.from_pretrained(clap, None, {})
    return AudioEncoders.from_pretrained(towers.audio, ast, None, 60.0, pooling, "cpu", {})


def test_only_what_is_longer_than_the_input_is_marked(clap: Path, recording: Callable) -> None:
    extractor = ClapFeatureExtractor.from_pretrained(clap)
    for seconds, longer in ((SHORT, False), (1.0, False), (LONG, True)):
        features = clap_features(extractor, recording(seconds).open(), "id")
        assert features["is_longer"].tolist() == [longer]
        assert features["is_longer"].dtype == bool


def test_ten_seconds_fit_and_a_sample_more_does_not(tmp_path: Path) -> None:
    extractor = ClapFeatureExtractor(truncation="fusion")
    for samples, longer in ((480_000, False), (480_001, True)):
        soundfile.write(tmp_path / "tone.wav", tone(440, samples / 48_000, 48_000), 48_000)
        features = clap_features(extractor, str(tmp_path / "tone.wav"), "id")
        assert features["is_longer"].tolist() == [longer]


def test_a_short_clip_has_one_embedding_alone_and_among_long_ones(clap: Path, recording: Callable) -> None:
    tower = Clap.from_pretrained(clap, None, {}).audio

    def embeddings(*all_seconds: float) -> torch.Tensor:
        heard = [clap_features(tower.extractor, recording(seconds).open(), str(seconds)) for seconds in all_seconds]
        return tower({name: torch.from_numpy(np.stack([one[name] for one in heard])) for name in heard[0]})

    alone, batch = embeddings(SHORT), embeddings(LONG, SHORT, 2 * LONG)
    torch.testing.assert_close(batch[1:2], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(batch[:1], embeddings(LONG), rtol=0, atol=1e-6)
    # By the extractor's own flags a clip that is alone is taken for a long one.
    theirs = tower.extractor(tone(440, SHORT, 8000), sampling_rate=8000, return_tensors="pt")
    assert theirs["is_longer"].tolist() == [[True]]
    assert (tower(theirs) - alone).abs().max() > 1e-5


def test_a_short_clip_has_the_embedding_of_the_unfused_path(clap: Path, ast: Path, recording: Callable) -> None:
    fused = encoders(clap, ast)
    weights = fused.clap.model.state_dict()
    config = ClapConfig.from_pretrained(clap)
    config.audio_config.enable_fusion = False
    unfused = ClapModel(config).eval()
    own = unfused.state_dict()
    unfused.load_state_dict({**own, **{name: value for name, value in weights.items() if name in own}})

    def unfused_embedding(seconds: float) -> np.ndarray:
        features = clap_features(fused.clap.extractor, recording(seconds).open(), f"{seconds}.wav")
        # The first of the four is the whole of the recording.
        whole = torch.from_numpy(features["input_features"][None, :1])
        with torch.no_grad():
            return unfused.get_audio_features(input_features=whole).pooler_output[0].numpy()

    np.testing.assert_allclose(fused(recording(SHORT))[0], unfused_embedding(SHORT), atol=1e-6)
    assert np.abs(fused(recording(LONG))[0] - unfused_embedding(LONG)).max() > 1e-5


def test_pooling_over_what_sounds_changes_short_clips_alone(clap: Path, ast: Path, recording: Callable) -> None:
    mean, sounding = encoders(clap, ast), encoders(clap, ast, "sounding")
    assert (mean(recording(SHORT))[1] != sounding(recording(SHORT))[1]).any()
    for seconds in (0.65, LONG):
        np.testing.assert_array_equal(mean(recording(seconds))[1], sounding(recording(seconds))[1])
    for seconds in (SHORT, LONG):
        np.testing.assert_array_equal(mean(recording(seconds))[0], sounding(recording(seconds))[0])


def test_pooling_over_what_sounds_is_the_mean_of_the_patches_that_cover_it(
    clap: Path, ast: Path, recording: Callable
) -> None:
    found = encoders(clap, ast, "sounding")
    values = []
    hook = found.ast.register_forward_hook(lambda _module, _inputs, output: values.append(output.last_hidden_state))
    # 24 frames: of four columns of 16 frames in two rows, the first two of each row.
    _, embedding, _ = found(recording(SHORT))
    hook.remove()
    expected = values[0][0, [0, 1, 2, 3, 6, 7]].mean(dim=0).half()
    np.testing.assert_array_equal(embedding, expected.numpy())


def test_patches_that_overlap() -> None:
    config = ASTConfig(max_length=1024, num_mel_bins=128, patch_size=16, frequency_stride=10, time_stride=10)
    assert len(sounding_states(config, 1)) == 2 + 12 * 101
    assert sounding_states(config, 1024).all()
    # A recording of 5 s has 498 frames: the columns that begin at frames 0, 10, ..., 490.
    assert sounding_states(config, 498).sum() == 2 + 12 * 50
    assert sounding_states(config, 1).sum() == 2 + 12


@pytest.mark.parametrize("factor", [1e6, float("nan")], ids=["too large for fp16", "nan"])
def test_an_embedding_that_is_not_finite_is_an_error_of_its_recording(
    clap: Path, ast: Path, recording: Callable, factor: float
) -> None:
    found = encoders(clap, ast)

    def spoil(_module: object, _inputs: object, output: BaseModelOutputWithPooling) -> None:
        output.last_hidden_state.mul_(factor)

    found.ast.register_forward_hook(spoil)
    with pytest.raises(EmbeddingError, match="0.25.wav: AST .* not finite") as raised:
        found(recording(SHORT))
    assert "0.25.wav" not in raised.value.reason


def test_the_knowledge_base_says_how_it_was_pooled(clap: Path, ast: Path, tmp_path: Path) -> None:
    audio = write_recordings(tmp_path / "audio", [{"file_name": "a.wav", "label": "tone"}])
    for pooling in ("mean", "sounding"):
        build_knowledge_base(audio, tmp_path / pooling, clap=clap, ast=ast, pooling=pooling)
        assert AudioBertKnowledgeBase.from_pretrained(tmp_path / pooling).config.audio_pooling == pooling

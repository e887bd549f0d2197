"""The contrastive loss, direction by direction, and the CLAP recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from audiobert.sounds.recordings import read_recordings
from audiobert.training.clap import (
    CaptionedRecordings,
    ClapCollator,
    LabelRetrieval,
    audio_to_text_loss,
    clap_arguments,
    contrastive_loss,
    hold_out,
    make_captions,
    text_to_audio_loss,
    train_clap,
)

from audio_fixtures import write_recordings

# Both texts are closest to the first recording; each recording is closest to its own text.
TEXTS = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
AUDIO = torch.tensor([[0.9, 0.1], [0.5, 0.5]])


def by_hand(similarities: torch.Tensor) -> float:
    """Minus the mean log-probability of the diagonal, one row at a time."""
    losses = [-(row[i].exp() / row.exp().sum()).log() for i, row in enumerate(similarities)]
    return float(sum(losses) / len(losses))


def test_text_to_audio_chooses_among_recordings() -> None:
    expected = by_hand(2.0 * torch.tensor([[0.9, 0.5], [0.78, 0.7]]))
    assert text_to_audio_loss(TEXTS, AUDIO, 2.0).item() == pytest.approx(expected)


def test_audio_to_text_chooses_among_texts() -> None:
    expected = by_hand(3.0 * torch.tensor([[0.9, 0.78], [0.5, 0.7]]))
    assert audio_to_text_loss(TEXTS, AUDIO, 3.0).item() == pytest.approx(expected)


def test_the_directions_differ_and_are_averaged() -> None:
    one, other = text_to_audio_loss(TEXTS, AUDIO, 2.0), audio_to_text_loss(TEXTS, AUDIO, 3.0)
    assert abs(one - other) > 0.05
    torch.testing.assert_close(contrastive_loss(TEXTS, AUDIO, 2.0, 3.0), (one + other) / 2)


def test_positives_share_the_probability() -> None:
    audio = torch.cat([AUDIO, AUDIO[:1]])
    positives = torch.tensor([[True, False, True], [False, True, False]])
    text_rows = (TEXTS @ audio.T).log_softmax(1)
    expected = -((text_rows[0, 0] + text_rows[0, 2]) / 2 + text_rows[1, 1]) / 2
    torch.testing.assert_close(text_to_audio_loss(TEXTS, audio, 1.0, positives), expected)
    audio_rows = (audio @ TEXTS.T).log_softmax(1)
    expected = -(audio_rows[0, 0] + audio_rows[1, 1] + audio_rows[2, 0]) / 3
    torch.testing.assert_close(audio_to_text_loss(TEXTS, audio, 1.0, positives), expected)


def test_pairs_are_the_default_positives() -> None:
    positives = torch.eye(2, dtype=torch.bool)
    torch.testing.assert_close(
        contrastive_loss(TEXTS, AUDIO, 2.0, 3.0, positives), contrastive_loss(TEXTS, AUDIO, 2.0, 3.0)
    )
    with pytest.raises(ValueError, match="positives"):
        contrastive_loss(TEXTS, AUDIO[:1], 2.0, 3.0)


def test_captions_come_from_answers_and_from_spans_that_name_the_label() -> None:
    rows = {
        "answer": ["dog", "Dogs", "cat", "birds", "higher", "dog", "rooster"],
        "spans": [["woof"], ["barking"], ["meow"], ["tweet"], ["sound of a train", "dogma"], [""], ["crowing"]],
    }
    captions = make_captions(["dog", "cat", "chirping birds", "train", "cat"], Dataset.from_dict(rows))
    assert captions == {
        "dog": ["woof", "barking"],
        "cat": ["meow"],
        "chirping birds": ["tweet"],
        "train": ["sound of a train"],
    }


def test_label_retrieval() -> None:
    scores = LabelRetrieval().compute(predictions=[[1, 2, 3], [1, 2, 3], [2, 1, 1]], references=[1, 2, 4])
    assert scores == {"precision_at_1": pytest.approx(1 / 3), "mean_reciprocal_rank": pytest.approx(0.5)}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list:
    rows = [{"file_name": f"{i}.wav", "label": "low" if i < 6 else "high"} for i in range(12)]
    return read_recordings(write_recordings(tmp_path_factory.mktemp("recordings"), rows))


def captioned(folder: Path, recordings: list, seed: int = 0) -> CaptionedRecordings:
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    return CaptionedRecordings(recordings, extractor, {"low": ["hum"], "high": ["beep"]}, seed=seed)


def test_texts_are_drawn_anew_every_epoch(clap_folder: Path, recordings: list) -> None:
    dataset = captioned(clap_folder, recordings)

    def texts(epoch: int) -> list[str]:
        dataset.set_epoch(epoch)
        return [dataset[row]["text"] for row in range(len(dataset))]

    assert texts(0) == texts(0)
    assert texts(0) != texts(1)
    assert set(texts(0) + texts(1)) == {"low sound", "hum sound", "high sound", "beep sound"}
    assert set(texts(0)[:6]) <= {"low sound", "hum sound"}


def test_a_corrupt_recording_is_left_out(clap_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_recordings(tmp_path, [{"file_name": f"{i}.wav", "label": "low"} for i in range(2)])
    (folder / "0.wav").write_bytes(b"broken")
    assert len(captioned(clap_folder, read_recordings(folder))) == 1
    assert "left out 0.wav" in caplog.text
    (folder / "1.wav").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of the 2 recordings"):
        captioned(clap_folder, read_recordings(folder))


def test_collator_numbers_labels_and_texts(clap_folder: Path, recordings: list) -> None:
    dataset = captioned(clap_folder, recordings)
    batch = ClapCollator(AutoTokenizer.from_pretrained(clap_folder), max_length=8)([dataset[0], dataset[1], dataset[7]])
    assert batch["input_features"].shape[0] == batch["input_ids"].shape[0] == 3
    assert batch["labels"][0, 0] == batch["labels"][1, 0] != batch["labels"][2, 0]
    with torch.no_grad():
        labels = batch.pop("labels")
        assert ClapModel.from_pretrained(clap_folder)(**batch).text_embeds.shape == (len(labels), 8)


def test_hold_out(recordings: list) -> None:
    train, held_out = hold_out(recordings, share=0.3)
    assert len(train) == len(held_out) * 2 == 8
    assert {recording.label for recording in held_out} == {"low", "high"}
    assert not {recording.id for recording in train} & {recording.id for recording in held_out}
    assert hold_out(list(reversed(recordings)), share=0.3)[1] == held_out
    assert hold_out(recordings[:1]) == (recordings[:1], [])


def run(folder: Path, recordings: list, out: Path, **arguments: object) -> tuple[ClapModel, dict[str, float]]:
    model = ClapModel.from_pretrained(folder)
    dataset = captioned(folder, recordings)
    values = {"batch_size": 6, "learning_rate": 2e-3, "use_cpu": True, "disable_tqdm": True, "seed": 0}
    args = clap_arguments(out, **{**values, **arguments})
    return model, train_clap(model, AutoTokenizer.from_pretrained(folder), dataset, dataset, args)


def test_it_learns_a_toy_set(clap_folder: Path, recordings: list, tmp_path: Path) -> None:
    _, scores = run(clap_folder, recordings, tmp_path, num_train_epochs=30, save_strategy="no", eval_strategy="no")
    assert scores["eval_precision_at_1"] == 1.0


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    clap_folder: Path, recordings: list, tmp_path: Path, stopping: Callable
) -> None:
    whole, scores = run(clap_folder, recordings, tmp_path / "whole", num_train_epochs=4)
    with stopping(3.0):
        run(clap_folder, recordings, tmp_path / "stopped", num_train_epochs=4)
    resumed, scores_of_resumed = run(clap_folder, recordings, tmp_path / "stopped", num_train_epochs=4)
    assert scores_of_resumed == scores
    # Running means of its normalisation are no parameters, and are learned all the same.
    assert any("running_mean" in name for name in whole.state_dict())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_a_run_that_goes_on_in_the_middle_of_an_epoch_draws_the_texts_of_that_epoch(
    clap_folder: Path, recordings: list, tmp_path: Path, stopping: Callable
) -> None:
    values = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "no"}
    whole, _ = run(clap_folder, recordings, tmp_path / "whole", **values, save_total_limit=None)
    steps = len(list((tmp_path / "whole" / "checkpoints").iterdir())) // 2
    with stopping(1 + 1 / steps):
        run(clap_folder, recordings, tmp_path / "stopped", **values)
    resumed, _ = run(clap_folder, recordings, tmp_path / "stopped", **values)
    assert steps > 1
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_numbers_of_labels_are_the_same_in_every_process(clap_folder: Path, recordings: list) -> None:
    dataset, tokenizer = captioned(clap_folder, recordings), AutoTokenizer.from_pretrained(clap_folder)
    one, other = (ClapCollator(tokenizer, max_length=8) for _ in range(2))
    other([dataset[7]])
    assert torch.equal(one([dataset[0], dataset[7]])["labels"], other([dataset[0], dataset[7]])["labels"])

"""What a training sees of its rows in each epoch, and that nothing else decides it."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from datasets import DatasetDict
from torch.utils.data import DataLoader

from audiobert import AudioBertForMaskedLM
from audiobert.data.batches import HearingCollator
from audiobert.hearing import audible_rows, blind_embeddings
from audiobert.listening.held_out import HeldOut
from audiobert.training.adapter import audiobert_arguments
from audiobert.training.trainer import RecipeTrainer
from audiobert.training.viewings import Listening, Viewings, hearing_only, silenced, varied, viewings

from audio_fixtures import PITCHED_LABELS, with_pitch


@pytest.fixture
def listener(model: AudioBertForMaskedLM) -> AudioBertForMaskedLM:
    model.set_knowledge_base(with_pitch(model.knowledge_base))
    model.config.retrieval_top_k = 3
    return model


def seen(model: AudioBertForMaskedLM, data: DatasetDict, listening: Listening, hearing: str = "retrieved") -> Viewings:
    rows = audible_rows(model, data["train"], hearing=hearing)
    found = viewings(model, rows, data["train"], listening, hearing, seed=5)
    assert isinstance(found, Viewings)
    return found


def test_without_listening_the_rows_are_seen_as_they_are(model: AudioBertForMaskedLM, data: DatasetDict) -> None:
    rows = audible_rows(model, data["train"])
    assert viewings(model, rows, data["train"], Listening(), "retrieved", 0) is rows


def test_listening_rows_are_a_share_of_an_epoch_and_others_in_each(
    listener: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    found = seen(listener, data, Listening(share=0.5))
    count = len(data["train"])
    # As a Trainer goes through them that groups rows by their length.
    first = list(found)
    assert len(first) == len(found) == 2 * count
    found.set_epoch(1)
    second = [found[place] for place in range(len(found))]
    assert first[:count] == second[:count]
    assert not [row for row in first[count:] if row in second[count:]]
    # In whatever order and company a loader asks for them.
    assert found.__getitems__([count, 0, count + 1]) == [second[count], second[0], second[count + 1]]


def test_a_batch_of_both_kinds_trains(listener: AudioBertForMaskedLM, data: DatasetDict) -> None:
    found = seen(listener, data, Listening(share=0.5, audio_dropout=0.3, vary_recordings=True))
    for batch in DataLoader(found, batch_size=len(found), collate_fn=HearingCollator.of(listener)):
        assert batch["audio_mask"].any() and not batch["audio_mask"][batch["audio_positions"] >= 0].all()
        listener(**batch).loss.backward()


def test_rows_of_like_length_share_a_batch_in_every_epoch(
    listener: AudioBertForMaskedLM, data: DatasetDict, tmp_path: Path
) -> None:
    found = seen(listener, data, Listening(share=0.8))
    args = audiobert_arguments(
        *(tmp_path, len(found)), train_sampling_strategy="group_by_length", eval_strategy="no", report_to="none"
    )
    trainer = RecipeTrainer(listener, args, train_dataset=found, data_collator=lambda rows: rows)
    loader, seen_lengths = trainer.get_train_dataloader(), []
    for epoch in range(3):
        found.set_epoch(epoch)
        # Of a single batch all rows are sorted.
        (batch,) = loader
        seen_lengths.append([len(row["input_ids"]) for row in batch])
        assert seen_lengths[-1] == sorted((len(row["input_ids"]) for row in found), reverse=True)
    assert seen_lengths[0] != seen_lengths[1]


def test_workers_see_what_one_process_sees(listener: AudioBertForMaskedLM, data: DatasetDict) -> None:
    found = seen(listener, data, Listening(share=0.5, audio_dropout=0.3, vary_recordings=True))
    found.set_epoch(2)
    alone, apart = (
        list(DataLoader(found, batch_size=3, collate_fn=HearingCollator.of(listener), num_workers=workers))
        for workers in (0, 1)
    )
    for one, other in zip(alone, apart, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_audio_is_left_out_of_a_share_of_the_rows(listener: AudioBertForMaskedLM, data: DatasetDict) -> None:
    found = seen(listener, data, Listening(audio_dropout=0.5))
    silent = []
    for epoch in range(40):
        found.set_epoch(epoch)
        silent += [not any(found[place]["recordings"]) for place in range(len(found))]
    assert 0.4 < sum(silent) / len(silent) < 0.6


def test_a_part_of_a_spans_recordings_is_heard_each_time() -> None:
    row = {"recordings": [[4, 7, 9], []], "recording_weights": [[0.5, 0.3, 0.2], []], "labels": [1]}
    drawn = [varied(row, random.Random(seed)) for seed in range(60)]
    assert {tuple(one["recordings"][0]) for one in drawn} == {
        (4,), (7,), (9,), (4, 7), (4, 9), (7, 9), (4, 7, 9)
    }  # fmt: skip
    for one in drawn:
        assert one["recordings"][1] == [] and one["labels"] == [1]
        assert sum(one["recording_weights"][0]) == pytest.approx(1)
    assert row["recordings"] == [[4, 7, 9], []]


def test_a_silent_row_has_nothing_of_any_kind_to_hear() -> None:
    assert silenced({"recordings": [[1], [2]], "audio_positions": [1, 5]})["recordings"] == [[], []]
    assert silenced({"audio_embeds": [[0.5]], "audio_positions": [1]})["audio_mask"] == [False]


@pytest.mark.parametrize("hearing", ["random", "other-span", "blind-clap"])
def test_a_control_hears_something_else_in_listening_rows(
    hearing: str, listener: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    own, control = (seen(listener, data, Listening(share=0.5), way) for way in ("retrieved", hearing))
    places = range(len(data["train"]), len(own))
    assert [control[place]["input_ids"] for place in places] == [own[place]["input_ids"] for place in places]
    if hearing == "blind-clap":
        row = control.made[0]
        query = listener.knowledge_base.config.query_template.replace("{span}", row["span_texts"][0])
        expected = blind_embeddings(listener, [query])[0]
        assert control[places[0]]["audio_embeds"][0].tolist() == expected.tolist()
    else:
        assert [control[place]["recordings"] for place in places] != [own[place]["recordings"] for place in places]


def test_an_oracle_hears_the_recordings_that_listening_rows_are_about(
    listener: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    own, oracle = (seen(listener, data, Listening(share=0.5), way) for way in ("retrieved", "oracle"))
    places = range(len(data["train"]), len(own))
    assert [oracle[place] for place in places] == [own[place] for place in places]


def test_labels_as_text_are_those_of_the_recordings_that_listening_rows_are_about(
    listener: AudioBertForMaskedLM, data: DatasetDict
) -> None:
    listener.config.injection = "none"
    own, written = (seen(listener, data, Listening(share=0.5), way) for way in ("retrieved", "label-text"))
    longer = 0
    for number in range(own.made_per_epoch):
        row, control = own.made[number], written[len(data["train"]) + number]
        expected = list(row["input_ids"])
        for start, found in reversed(list(zip(row["audio_positions"], row["recordings"], strict=True))):
            label = listener.knowledge_base.recording(found[0]).label
            expected[start:start] = listener.tokenizer(f"({label})", add_special_tokens=False)["input_ids"]
        if len(expected) <= listener.config.text_config.max_position_embeddings:
            longer += 1
            assert control["input_ids"] == expected and len(control["labels"]) == len(expected)
        else:
            assert control["input_ids"] == row["input_ids"]
    assert longer


def test_the_control_without_audio_sees_the_same_sentences(listener: AudioBertForMaskedLM, data: DatasetDict) -> None:
    own = seen(listener, data, Listening(share=0.5))
    listener.config.injection = "none"
    control = seen(listener, data, Listening(share=0.5))
    assert [row["input_ids"] for row in control.__getitems__(range(len(own)))] == [
        row["input_ids"] for row in own.__getitems__(range(len(own)))
    ]
    assert "recordings" not in control[len(own) - 1]


def test_what_is_held_out_is_gone_while_it_lasts(listener: AudioBertForMaskedLM) -> None:
    whole, held_out = listener.knowledge_base, HeldOut(0, ("tuba",), ("sound-10",))
    held_out = dataclasses.replace(held_out, recordings=(whole.recording(10).id,))
    with pytest.raises(RuntimeError), hearing_only(listener, held_out):
        rest = listener.knowledge_base
        assert len(rest) == 9 and {rest.recording(row).label for row in range(9)} == set(PITCHED_LABELS) - {"tuba"}
        raise RuntimeError
    assert listener.knowledge_base is whole
    other = HeldOut(0, ("bassoon",), ())
    with pytest.raises(ValueError, match="bassoon"), hearing_only(listener, other):
        pass


@pytest.mark.parametrize("values", [{"share": 1.0}, {"share": -0.1}, {"audio_dropout": 1.0}])
def test_a_share_out_of_its_range_is_named(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Listening(**values)


def test_rows_need_pitches_to_be_made_of(model: AudioBertForMaskedLM, data: DatasetDict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="build-knowledge-base --measure"):
        seen(model, data, Listening(share=0.5))

"""The recipes: they train what they say, and the control differs by its audio alone."""

import copy
import dataclasses
import math
import pickle

import pytest
import torch
from datasets import DatasetDict
from torch.utils.data import DataLoader

from audiobert import AudioBertForMaskedLM
from audiobert.data.batches import HearingCollator
from audiobert.hearing import audible_rows
from audiobert.training.adapter import BestRecording, audiobert_arguments, recording_paths, train_audiobert
from audiobert.training.detector import detector_arguments, train_detector

QUICK = {"batch_size": 2, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}


def changed(before: dict[str, torch.Tensor], model: AudioBertForMaskedLM) -> set[str]:
    after = model.state_dict()
    names = {name for name, value in before.items() if not torch.equal(value, after[name])}
    return {"lora" if "lora_" in name else name.split(".")[0] for name in names}


def test_papers_values_are_the_defaults(tmp_path):
    args = audiobert_arguments(tmp_path)
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.learning_rate) == (20, 32, 3e-4)
    assert (args.lr_scheduler_type, args.warmup_steps) == ("cosine", 0.1)
    assert args.optim.startswith("adamw")
    detector = detector_arguments(tmp_path)
    assert (detector.num_train_epochs, detector.per_device_train_batch_size) == (5, 16)
    assert audiobert_arguments(tmp_path, num_train_epochs=3).num_train_epochs == 3


def test_the_detector_learns_and_nothing_else_changes(model, data, tmp_path):
    torch.nn.init.zeros_(model.detector.classifier.weight)
    before = copy.deepcopy(model.state_dict())
    args = detector_arguments(tmp_path, num_train_epochs=10, learning_rate=0.03, eval_strategy="no", **QUICK)
    scores = train_detector(model, data, args)
    assert changed(before, model) == {"detector"}
    # Knowing nothing, two classes cost log 2 and more.
    assert scores["eval_loss"] < 0.6
    assert {"eval_span_precision", "eval_span_recall", "eval_span_f1", "eval_span_exact_f1"} <= set(scores)


@pytest.mark.parametrize(
    ("audio", "trained"), [("cached", {"lora", "audio_projection"}), ("none", {"lora"})], ids=["cached", "control"]
)
def test_audiobert_learns(audio, trained, model, data, tmp_path):
    before = copy.deepcopy(model.state_dict())
    still = audiobert_arguments(tmp_path / "still", num_train_epochs=1, learning_rate=0.0, **QUICK)
    untrained = train_audiobert(model, data, still, audio=audio)
    assert changed(before, model) == set()
    args = audiobert_arguments(tmp_path, num_train_epochs=20, learning_rate=0.003, eval_strategy="no", **QUICK)
    scores = train_audiobert(model, data, args, audio=audio)
    assert changed(before, model) == trained
    # All that can learn of this random BERT is its attention, so the loss falls but the answers stay poor.
    assert scores["eval_loss"] < 0.95 * untrained["eval_loss"]
    assert {"eval_accuracy", "eval_animal_accuracy", "eval_pitch_accuracy"} <= set(scores)
    assert model.config.injection == ("none" if audio == "none" else "add")


def test_the_audio_encoder_can_be_trained(model, data, audio_dir, tmp_path):
    before, stored = copy.deepcopy(model.state_dict()), model.knowledge_base.audio_embeddings.clone()
    args = audiobert_arguments(tmp_path / "run", num_train_epochs=1, learning_rate=0.02, **QUICK)
    train_audiobert(model, data, args, audio="trained", audio_dir=audio_dir)
    assert changed(before, model) == {"lora", "audio_projection", "audio_model"}
    # The knowledge base now holds what the trained encoder makes of the recordings.
    assert not torch.equal(model.knowledge_base.audio_embeddings, stored)
    assert torch.isfinite(model.knowledge_base.audio_embeddings.float()).all()


def test_rows_without_an_aligned_span_use_the_detectors(model, data):
    rows = data["train"].select(range(1)).map(lambda row: {"spans": ["quack"]})
    (row,) = audible_rows(model, rows)
    assert row["audio_positions"] == [1]
    assert row["span_texts"] == ["meow"]
    assert row["recordings"] == [list(model.knowledge_base.search(["meow"])[0].indices)]


@pytest.mark.parametrize(
    ("audio", "message"),
    [("loud", "`audio` must be one of"), ("cached", "needs a knowledge base"), ("trained", "needs a knowledge base")],
)
def test_what_is_missing_is_named(audio, message, model, data, tmp_path):
    model.set_knowledge_base(None)
    with pytest.raises(ValueError, match=message):
        train_audiobert(model, data, audiobert_arguments(tmp_path), audio=audio)


def test_training_the_encoder_needs_the_recordings(model, data, tmp_path):
    with pytest.raises(ValueError, match="needs `audio_dir`"):
        train_audiobert(model, data, audiobert_arguments(tmp_path), audio="trained")


def test_the_encoder_cannot_be_trained_on_what_is_no_sound(model, data, audio_dir, tmp_path):
    with pytest.raises(ValueError, match="no recording is heard to train the audio encoder on"):
        args = audiobert_arguments(tmp_path)
        train_audiobert(model, data, args, audio="trained", audio_dir=audio_dir, hearing="blind-clap")


@pytest.mark.parametrize("hearing", ["retrieved", "random", "blind-clap"])
def test_audiobert_trains_with_weights_a_threshold_and_standardised_audio(hearing, model, data, tmp_path):
    vars(model.config).update(
        retrieval_top_k=3, retrieval_temperature=0.1, retrieval_min_similarity=0.5, standardize_audio=True
    )
    before = copy.deepcopy(model.state_dict())
    args = audiobert_arguments(tmp_path, max_steps=2, learning_rate=0.02, **QUICK)
    scores = train_audiobert(model, data, args, hearing=hearing)
    assert changed(before, model) >= {"lora", "audio_projection"}
    assert math.isfinite(scores["eval_loss"])


def test_no_recording_is_read_from_outside_of_the_folder(model, audio_dir):
    sounds = model.knowledge_base
    metadata = sounds.metadata.to_pydict()
    metadata["id"][3] = "../secret.ogg"
    metadata = type(sounds.metadata).from_pydict(metadata)
    foreign = type(sounds)(sounds.config, sounds.index, sounds.audio_embeddings, metadata, sounds.query_encoder)
    with pytest.raises(ValueError, match=r"'\.\./secret\.ogg' leads out of the folder"):
        recording_paths(foreign, audio_dir)


@pytest.mark.processes
def test_workers_take_the_collators(model, data, audio_dir):
    rows = audible_rows(model, data["train"])
    best = BestRecording(recording_paths(model.knowledge_base, audio_dir), model.feature_extractor)
    best([3])
    assert (pickle.loads(pickle.dumps(best))([3]) == best([3])).all()
    collator = HearingCollator.of(model)
    loader = DataLoader(
        rows, 5, collate_fn=collator, num_workers=1, multiprocessing_context="spawn", timeout=240, pin_memory=False
    )
    (batch,) = loader
    here = collator([rows[number] for number in range(5)])
    assert all(torch.equal(batch[name], value) for name, value in here.items())
    # What the model itself hears at the first span of the first row.
    heard = model.knowledge_base.audio_embeds(rows[0]["recordings"][0]).mean(0)
    assert torch.equal(batch["audio_embeds"][0, 0], heard)


def test_a_collator_of_a_model_that_hears_nothing_is_refused(model):
    model.set_knowledge_base(None)
    with pytest.raises(ValueError, match="no knowledge base to hear"):
        HearingCollator.of(model)


@pytest.mark.parametrize("audio", ["cached", "none"])
def test_rows_whose_answer_was_cut_off_train_nothing_and_break_nothing(audio, model, data, tmp_path):
    """A batch of them has no place with a label."""
    long = " ".join(["cat"] * 80)
    rows = data["train"].map(lambda row: {"sentence": f"{row['sentence'].replace('[MASK]', '')} {long} [MASK]"})
    args = audiobert_arguments(tmp_path, num_train_epochs=2, learning_rate=0.01, **QUICK)
    before = copy.deepcopy(model.state_dict())
    scores = train_audiobert(model, DatasetDict({"train": rows, "dev": data["dev"]}), args, audio=audio)
    assert changed(before, model) == set()
    assert all(math.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("audio", ["cached", "trained"])
def test_bfloat16_trains_on_a_cpu(audio, model, data, audio_dir, tmp_path):
    before = copy.deepcopy(model.state_dict())
    args = audiobert_arguments(tmp_path, max_steps=2, learning_rate=0.02, bf16=True, **QUICK)
    scores = train_audiobert(model, data, args, audio, audio_dir if audio == "trained" else None)
    assert changed(before, model) >= {"lora", "audio_projection"}
    assert math.isfinite(scores["eval_loss"])


def test_the_encoder_is_trained_as_the_knowledge_base_was_built(model, data, audio_dir, tmp_path):
    sounds = model.knowledge_base
    config = dataclasses.replace(sounds.config, audio_pooling="sounding")
    parts = (sounds.index, sounds.audio_embeddings, sounds.metadata, sounds.query_encoder)
    model.set_knowledge_base(type(sounds)(config, *parts))
    with pytest.raises(ValueError, match="pooling 'sounding': build one with 'mean'"):
        train_audiobert(model, data, audiobert_arguments(tmp_path), audio="trained", audio_dir=audio_dir)


def test_plain_trainer_without_recipes(model, data, tmp_path):
    """What a user does who brings their own training loop: tokenized rows, our collator, the stock `Trainer`."""
    from transformers import Trainer, TrainingArguments

    from audiobert.data.batches import AudioBertDataCollator, tokenize_auditorybench

    model.config.injection = "none"
    rows = tokenize_auditorybench(data["train"], model.tokenizer)
    args = TrainingArguments(tmp_path, max_steps=2, use_cpu=True, disable_tqdm=True, report_to="none")
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=AudioBertDataCollator(model.tokenizer))
    assert trainer.train().global_step == 2
    trainer.save_model(tmp_path / "saved")
    assert AudioBertForMaskedLM.from_pretrained(tmp_path / "saved").config.injection == "none"
    # Evaluation in which the model detects and looks up by itself.
    model.config.injection = "add"
    alone = rows.remove_columns(["audio_positions", "span_labels"])
    trainer.label_names = ["labels"]
    assert "eval_loss" in trainer.evaluate(alone)

"""The recipes: they train what they say, resume where they stopped, and the control differs by its audio alone."""

import copy

import pytest
import torch
from transformers import TrainerCallback

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import load_auditorybench
from audiobert.hearing import audible_rows
from audiobert.training.adapter import audiobert_arguments, train_audiobert
from audiobert.training.detector import detector_arguments, train_detector

from audio_fixtures import write_recordings
from model_fixtures import untrained_audiobert
from text_fixtures import write_auditorybench

QUICK = {"batch_size": 2, "use_cpu": True, "disable_tqdm": True, "report_to": "none"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_auditorybench(write_auditorybench(tmp_path_factory.mktemp("data")))


@pytest.fixture
def model() -> AudioBertForMaskedLM:
    return untrained_audiobert()


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
    args = detector_arguments(tmp_path, num_train_epochs=30, learning_rate=0.01, eval_strategy="no", **QUICK)
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
    args = audiobert_arguments(tmp_path, num_train_epochs=40, learning_rate=0.005, eval_strategy="no", **QUICK)
    scores = train_audiobert(model, data, args, audio=audio)
    assert changed(before, model) == trained
    # All that can learn of this random BERT is its attention, so the loss falls but the answers stay poor.
    assert scores["eval_loss"] < 0.98 * untrained["eval_loss"]
    assert {"eval_accuracy", "eval_animal_accuracy", "eval_pitch_accuracy"} <= set(scores)
    assert model.config.injection == ("none" if audio == "none" else "add")


def test_the_audio_encoder_can_be_trained(model, data, tmp_path):
    from transformers import ASTFeatureExtractor

    recordings = [{"file_name": model.knowledge_base.recording(i).id, "label": "x"} for i in range(12)]
    write_recordings(tmp_path / "audio", recordings)
    for path in (tmp_path / "audio" / "sounds").iterdir():
        assert path.suffix == ".ogg"
    model.feature_extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=32)
    before, stored = copy.deepcopy(model.state_dict()), model.knowledge_base.audio_embeddings.clone()
    args = audiobert_arguments(tmp_path / "run", num_train_epochs=1, learning_rate=0.02, **QUICK)
    train_audiobert(model, data, args, audio="trained", audio_dir=tmp_path / "audio")
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


def test_a_run_that_was_stopped_ends_as_one_that_was_not(data, tmp_path):
    class Stop(TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            if state.epoch == 1:
                control.should_save = True

        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    def train(folder, stop):
        model = untrained_audiobert()
        args = audiobert_arguments(folder, num_train_epochs=2, learning_rate=0.01, **QUICK)
        if stop:
            import audiobert.training.adapter as recipe

            original = recipe.AnswerTrainer
            recipe.AnswerTrainer = lambda **kwargs: original(**kwargs, callbacks=[Stop()])
            try:
                with pytest.raises(KeyboardInterrupt):
                    train_audiobert(model, data, args)
            finally:
                recipe.AnswerTrainer = original
            model = untrained_audiobert()
        train_audiobert(model, data, args)
        return model.state_dict()

    whole, resumed = train(tmp_path / "whole", False), train(tmp_path / "stopped", True)
    assert all(torch.allclose(value, resumed[name], atol=1e-6) for name, value in whole.items())


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

"""The stages that make audiobert-mini, each on something tiny: what they teach, and that one goes on to the same."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from swap_fixtures import few_questions, held_out_of_all, sounding_knowledge_base
from transformers import BertConfig, BertModel, BertTokenizer

from audiobert import AudioBertForMaskedLM
from audiobert.evaluation.sound_swap.answering import END_TO_END
from audiobert.evaluation.sound_swap.answers import SwapAnswer
from audiobert.evaluation.sound_swap.questions import PARTS, SoundSwap
from audiobert.listening.held_out import HeldOut
from audiobert.reproduction.findings import Results
from audiobert.reproduction.report import write_report
from audiobert.sounds.recordings import SourceRecording

from audio_fixtures import PITCHED_LABELS, save_tiny_ast, tiny_knowledge_base, tone, with_pitch
from text_fixtures import SPECIAL, WORDS, tiny_bert, tiny_tokenizer

FOLDER = Path(__file__).parents[2] / "hub_cards" / "audiobert-mini"
SENTENCES = ["the sound of a cat is the sound of rain", "a dog makes a bark", "meow has a higher pitch than hum"]
QUICK = {"use_cpu": True, "disable_tqdm": True, "report_to": "none"}


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """The script's modules by name, as it imports them itself."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"making.{name}")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT-architecture encoder without a head for words, as a sentence encoder is."""
    torch.manual_seed(0)
    tokenizer, folder = tiny_tokenizer(), tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# --- the BERT --------------------------------------------------------------------------------------------------------


@pytest.fixture
def packed(making: Callable, encoder: Path, tmp_path: Path) -> Path:
    (text := tmp_path / "text").mkdir()
    (text / "one.txt").write_text("\n".join(SENTENCES * 40) + "\n\n", encoding="utf-8")
    making("backbone").pack_text(tmp_path / "text.npy", text, BertTokenizer.from_pretrained(encoder))
    return tmp_path / "text.npy"


def test_text_is_packed_without_a_gap(packed: Path) -> None:
    rows, tokenizer = np.load(packed), tiny_tokenizer()
    assert rows.shape[1] == 128 and len(rows) > 5
    assert (rows[:, 0] == tokenizer.cls_token_id).all()
    assert tokenizer.pad_token_id not in rows
    sentences = {tokenizer.decode(tokenizer(sentence, add_special_tokens=False)["input_ids"]) for sentence in SENTENCES}
    first = tokenizer.decode(rows[0, 1:]).split(" [SEP]")[:-1]
    assert {sentence.strip() for sentence in first} <= sentences


def test_a_fifth_is_masked_and_depends_on_the_row_alone(making: Callable, packed: Path) -> None:
    tokenizer = tiny_tokenizer()
    rows = making("backbone").MaskedRows(np.load(packed), tokenizer)
    masked, original = [rows[place] for place in range(len(rows))], torch.from_numpy(rows.rows.astype(np.int64))
    labels, shown = (torch.stack([row[name] for row in masked]) for name in ("labels", "input_ids"))
    asked = labels != -100
    assert 0.15 < asked.float().mean() < 0.25
    assert (labels[asked] == original[asked]).all() and (shown[~asked] == original[~asked]).all()
    assert 0.7 < (shown[asked] == tokenizer.mask_token_id).float().mean() < 0.9
    assert not (original[asked] == tokenizer.sep_token_id).any()
    again = making("backbone").MaskedRows(np.load(packed), tokenizer)[3]
    assert torch.equal(again["input_ids"], masked[3]["input_ids"])


def test_the_backbone_starts_from_the_encoder_with_nothing_in_its_head(making: Callable, encoder: Path) -> None:
    model, original = making("backbone").untrained_backbone(encoder).eval(), BertModel.from_pretrained(encoder).eval()
    batch = tiny_tokenizer()(SENTENCES, padding=True, return_tensors="pt")
    assert torch.equal(model.bert(**batch).last_hidden_state, original(**batch).last_hidden_state)
    assert torch.equal(model.cls.predictions.decoder.weight, original.embeddings.word_embeddings.weight)
    assert torch.equal(model.cls.predictions.transform.dense.weight, torch.eye(24))


def test_a_backbone_that_was_stopped_ends_in_the_same_bytes(
    making: Callable, encoder: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = making("backbone")
    quick = {"max_steps": 4, "batch_size": 2, "warmup_steps": 1, "save_steps": 2, **QUICK}
    quick["lr_scheduler_kwargs"] = {"num_decay_steps": 2, "decay_type": "linear"}
    backbone.train_backbone(tmp_path / "straight", tmp_path / "straight-run", encoder, packed, **quick)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backbone.MaskedLMTrainer, "log", stopped)
        with pytest.raises(KeyboardInterrupt):
            backbone.train_backbone(
                tmp_path / "resumed", tmp_path / "run", encoder, packed, **{**quick, "logging_steps": 3}
            )
    backbone.train_backbone(tmp_path / "resumed", tmp_path / "run", encoder, packed, **{**quick, "logging_steps": 3})
    straight, resumed = (tmp_path / name / "model.safetensors" for name in ("straight", "resumed"))
    assert straight.read_bytes() == resumed.read_bytes()
    config = BertConfig.from_pretrained(tmp_path / "resumed")
    assert config.hidden_dropout_prob == 0.1


# --- the AST ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sounds():
    return with_pitch(tiny_knowledge_base())


@pytest.fixture
def lessons(making: Callable, sounds, tmp_path: Path):
    ids = [sounds.recording(row).id for row in range(len(sounds))]
    draw = np.random.default_rng(0)
    np.savez(
        tmp_path / "yamnet.npz",
        names=[f"folder/{one}" for one in ids],
        embeddings=draw.normal(size=(len(ids), 1024)).astype(np.float16),
        scores=draw.random((len(ids), 521)).astype(np.float16),
    )
    return making("ear").Lessons.of(sounds, ids, HeldOut(0, ("viola",), (ids[0],)), tmp_path / "yamnet.npz")


def test_nothing_is_told_of_what_is_held_out(lessons, sounds) -> None:
    labels = [sounds.recording(row).label for row in lessons.rows]
    assert "viola" not in labels and 0 not in lessons.rows and len(lessons.rows) == len(sounds) - 3
    assert len(set(lessons.labels)) == len(set(PITCHED_LABELS) - {"viola"})
    assert np.isnan(lessons.octaves).sum() == labels.count("cat")


def test_a_recording_is_heard_at_known_pitches(making: Callable, lessons, tmp_path: Path) -> None:
    ear = making("ear")
    path = tmp_path / "tone.wav"

    soundfile.write(path, tone(440.0, 1.0, 16_000), 16_000)
    recordings = [SourceRecording(str(row), "x", "", "", 1.0, lambda: str(path)) for row in range(12)]
    ear.write_features(tmp_path / "features", recordings)
    features, frames = np.load(tmp_path / "features" / "features.npy"), np.load(tmp_path / "features" / "frames.npy")
    assert features.shape == (12, len(ear.SEMITONES), ear.KEPT_FRAMES, 128) and features.dtype == np.float16
    peaks = [features[0, column, : frames[0, column]].mean(0).argmax() for column in range(len(ear.SEMITONES))]
    assert peaks == sorted(peaks) and peaks[0] < peaks[-1]
    # What is played faster is shorter.
    assert list(frames[0]) == sorted(frames[0], reverse=True)

    heard = ear.HeardRecordings(tmp_path / "features", lessons, ear.new_extractor())
    one, again = heard[0], heard[0]
    assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(again[name])) for name in one)
    heard.set_epoch(1)
    assert not torch.equal(heard[0]["input_values"], one["input_values"])
    moved = {round(12 * (heard_at - lessons.octaves[0])) for heard_at in octaves_of(heard, epochs=30)}
    assert moved == set(ear.SEMITONES)

    pupil = ear.Pupil(ear.new_ast(), int(lessons.labels.max()) + 1)
    batch = torch.utils.data.default_collate([heard[place] for place in range(4)])
    loss = pupil(**batch)["loss"]
    loss.backward()
    assert loss.isfinite() and all(value.grad is not None for value in pupil.octave.parameters())


def octaves_of(heard, epochs: int) -> list[float]:
    found = []
    for epoch in range(epochs):
        heard.set_epoch(epoch)
        found.append(heard[0]["octave"])
    return found


# --- CLAP ------------------------------------------------------------------------------------------------------------


def test_the_text_tower_starts_from_the_encoder_with_fewer_words(making: Callable, encoder: Path) -> None:
    clap, whole = making("clap"), BertTokenizer.from_pretrained(encoder)
    single = {token for token in whole.get_vocab() if len(token.removeprefix("##")) == 1}
    tokenizer = clap.trimmed_tokenizer(encoder, ["the cat", "the dog", "the hum"], len(single) + len(SPECIAL) + 4)
    assert {"the", "cat", "dog", "hum", "[MASK]"} <= set(tokenizer.get_vocab())
    assert "rain" not in tokenizer.get_vocab()
    assert tokenizer.tokenize("the rain") == ["the", "r", "##a", "##i", "##n"]
    model, original = clap.new_clap(encoder, tokenizer).eval(), BertModel.from_pretrained(encoder).eval()
    text = "the cat"
    own = model.text_model(**tokenizer(text, return_tensors="pt")).last_hidden_state
    embedded = original.embeddings(whole(text, return_tensors="pt")["input_ids"])
    for layer in clap.LAYERS:
        embedded = original.encoder.layer[layer](embedded)
        embedded = embedded[0] if isinstance(embedded, tuple) else embedded
    torch.testing.assert_close(own, embedded)


def test_the_tower_is_taught_which_texts_are_near(making: Callable, encoder: Path, tmp_path: Path) -> None:
    clap = making("clap")
    texts = [*WORDS[:16], *SENTENCES]
    clap.save_untrained_clap(tmp_path / "start", encoder, texts)
    captions = {"cat": ["meow", "meow"], "dog": []}
    taught, plain = (clap.taught_embeddings(encoder, texts, given) for given in (captions, {}))
    assert taught.norm(dim=1).allclose(torch.ones(len(texts)))
    cat, meow, hum = (texts.index(text) for text in ("cat", "meow", "hum"))
    assert taught[cat] @ taught[meow] > plain[cat] @ plain[meow]
    assert taught[cat] @ taught[meow] > taught[cat] @ taught[hum]
    quick = {"max_steps": 30, "batch_size": 16, "learning_rate": 3e-3, "logging_steps": 1, **QUICK}
    losses = []
    compute = clap.SimilarityTrainer.compute_loss

    def kept(self: object, *args: object, **kwargs: object) -> torch.Tensor:
        loss = compute(self, *args, **kwargs)
        losses.append(float(loss.detach()))
        return loss

    clap.SimilarityTrainer.compute_loss = kept
    try:
        start = tmp_path / "start"
        clap.teach_text_tower(tmp_path / "out", tmp_path / "run", start, encoder, texts, captions, **quick)
    finally:
        clap.SimilarityTrainer.compute_loss = compute
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:4])
    assert (tmp_path / "out" / "model.safetensors").is_file()


# --- what the trainings start from, and the repository ---------------------------------------------------------------


@pytest.fixture
def start(making: Callable, tmp_path: Path) -> Path:
    parts = [tmp_path / name for name in ("bert", "ast", "sounds", "held_out.json")]
    tiny_bert(len(tiny_tokenizer())).save_pretrained(parts[0])
    tiny_tokenizer().save_pretrained(parts[0])
    save_tiny_ast(parts[1], hidden_size=12)
    sounding_knowledge_base().save_pretrained(parts[2])
    held_out_of_all().save(parts[3])
    (tmp_path / "plain.txt").write_text("words", encoding="utf-8")
    config = {"detector_hidden_size": 8, "lora_rank": 4, "retrieval_top_k": 2}
    with few_questions(NEW_SOUNDS=2, SWAPPED_WORLDS=1):
        making("start").save_start(tmp_path / "start", *parts, texts=[tmp_path / "plain.txt"], config=config)
    return tmp_path / "start"


def test_trainings_start_from_the_parts_and_nothing_learned(start: Path) -> None:
    model = AudioBertForMaskedLM.from_pretrained(start)
    assert model.config.retrieval_top_k == 2 and model.dtype == torch.float32
    assert [text["name"].rpartition("/")[2] for text in model.config.trained_on] == ["plain.txt"]
    adapter = {name: value for name, value in model.state_dict().items() if "lora_B" in name}
    assert adapter and not any(value.any() for value in adapter.values())
    swap = SoundSwap.load(start / "sound_swap", model.knowledge_base)
    swap.check_held_out(HeldOut.load(start / "held_out.json", model.knowledge_base), start)
    assert all(swap.part(part) for part in PARTS)


def test_each_recording_is_attributed(making: Callable, tmp_path: Path) -> None:
    (own := tmp_path / "own").mkdir()
    (own / "metadata.csv").write_text(
        "file_name,label,source,license,author_or_url,seconds\nhorn.ogg,horn,a kit,CC BY 4.0,Ada,1\n", encoding="utf-8"
    )
    (esc := tmp_path / "esc").mkdir()
    (esc / "metadata.csv").write_text(
        "file_name,label,source,license,seconds\nesc50/1-2-A-3.ogg,cow,ESC-50,CC BY-NC 3.0,5\n", encoding="utf-8"
    )
    (esc / "ESC-50-ATTRIBUTION.txt").write_text("- [1-2-A.ogg]:  clip derived from moo.wav by Bo\n", encoding="utf-8")
    found = {name: row for folder in (own, esc) for name, row in making("repository").attributions(folder).items()}
    assert found == {
        "horn.ogg": ("a kit", "CC BY 4.0", "Ada"),
        "esc50/1-2-A-3.ogg": ("ESC-50", "CC BY-NC 3.0", "clip derived from moo.wav by Bo"),
    }


def test_the_repository_is_whole_and_its_card_has_what_was_measured(
    making: Callable, start: Path, tmp_path: Path
) -> None:
    sounds = AudioBertForMaskedLM.from_pretrained(start).knowledge_base
    (audio := tmp_path / "audio").mkdir()
    rows = [f"{sounds.recording(row).id},tests,CC0,Ada" for row in range(len(sounds))]
    text = "\n".join(["file_name,source,license,author_or_url", *rows])
    (audio / "metadata.csv").write_text(text + "\n", encoding="utf-8")
    right = [SwapAnswer(question, question.answer) for question in SoundSwap.load(start / "sound_swap").questions]
    results = Results({}, swap=[{END_TO_END: right}])
    report = write_report(results, tmp_path / "reproduction")
    out = tmp_path / "repository"
    making("repository").write_repository(out, start, start, [audio], report.parent, results, FOLDER / "card.md")
    assert AudioBertForMaskedLM.from_pretrained(out).knowledge_base is not None
    SoundSwap.load(out / "sound_swap").check_held_out(HeldOut.load(out / "held_out.json"), out)
    assert (out / "results" / "report.md").read_bytes() == report.read_bytes()
    assert len((out / "ATTRIBUTION.csv").read_text(encoding="utf-8").splitlines()) == len(sounds) + 1
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "100.00 [100.00, 100.00]" in card and not re.search("@[A-Z_]+@", card)

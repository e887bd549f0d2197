from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import BertForMaskedLM

from audiobert import AudioBertForMaskedLM, bundled
from audiobert.data.plain_text import read_passages, sample_passages
from audiobert.evaluation import preservation
from audiobert.evaluation.preservation import (
    AUDIOBERT,
    LORA_FORCED_ON,
    MODES,
    PLAIN_BERT,
    Preservation,
    false_alarms,
    files_trained_on,
    identical_answers,
    measure_preservation,
    original_bert,
    pseudo_perplexity,
)
from audiobert.files import sha256_of
from audiobert.modeling.lora_audiobert import lora_switched

from model_fixtures import AUDITORY, hearing_audiobert

PASSAGES = [
    "the duck is higher than a bass of the dog .",
    "a cat is the duck",
    "meow is the sound a cat makes , and a bark is that of a dog",
    "the [UNK] of a cat",
]


@pytest.fixture(scope="module")
def trained() -> AudioBertForMaskedLM:
    return hearing_audiobert()


@pytest.fixture
def model() -> AudioBertForMaskedLM:
    """One that a test may change."""
    return hearing_audiobert()


def rig_detector(model: AudioBertForMaskedLM, finds: bool) -> AudioBertForMaskedLM:
    with torch.no_grad():
        model.detector.classifier.weight.zero_()
        model.detector.classifier.bias.copy_(torch.tensor([-9.0, 9.0] if finds else [9.0, -9.0]))
    return model


def naive_loss(model: AudioBertForMaskedLM, passage: str, mode: str) -> list[float]:
    """Of each token that counts, masked alone, with all logits."""
    tokenizer, losses = model.tokenizer, []
    ids = tokenizer(passage, return_tensors="pt")["input_ids"]
    for place, token in enumerate(ids[0].tolist()):
        if token in tokenizer.all_special_ids:
            continue
        masked = ids.clone()
        masked[0, place] = tokenizer.mask_token_id
        with torch.no_grad(), lora_switched(mode == LORA_FORCED_ON):
            reader = model if mode == AUDIOBERT else model.text_model
            losses.append(-reader(masked).logits[0, place].log_softmax(-1)[token].item())
    return losses


def test_alarms_are_what_the_model_finds_passage_by_passage(trained: AudioBertForMaskedLM) -> None:
    with torch.no_grad():
        found = [trained(**trained.tokenizer(text, return_tensors="pt")).spans[0] for text in PASSAGES]
    assert any(found) and not all(found)
    alarms = false_alarms(trained, PASSAGES, batch_size=3)
    assert alarms.passages == 4
    assert alarms.passages_with_alarm == sum(map(bool, found))
    assert alarms.spans == sum(map(len, found))
    assert alarms.words == sum(len(text.split()) for text in PASSAGES)
    assert alarms.per_1000_words == pytest.approx(1000 * alarms.spans / alarms.words)


def test_a_detector_that_finds_all_or_nothing(model: AudioBertForMaskedLM) -> None:
    all_of_it = false_alarms(rig_detector(model, finds=True), ["a cat .", "the duck is a dog"])
    assert (all_of_it.passages_with_alarm, all_of_it.spans, all_of_it.words) == (2, 2, 8)
    nothing = false_alarms(rig_detector(model, finds=False), PASSAGES)
    assert (nothing.passages_with_alarm, nothing.spans) == (0, 0)
    assert nothing.per_1000_words == 0


def test_the_original_bert_is_a_copy_without_adapters(model: AudioBertForMaskedLM) -> None:
    bert = original_bert(model)
    assert type(bert) is BertForMaskedLM and not bert.training
    assert not [name for name, _ in bert.named_parameters() if "lora" in name]
    batch = model.tokenizer(AUDITORY, return_tensors="pt")
    with torch.no_grad():
        before = bert(**batch).logits
        assert torch.equal(before, model.text_model(**batch).logits)
        assert not torch.equal(before, model(**batch).logits)
        model.get_input_embeddings().weight.zero_()
        assert torch.equal(before, bert(**batch).logits)


def test_where_nothing_is_heard_answers_are_identical(model: AudioBertForMaskedLM) -> None:
    found = identical_answers(rig_detector(model, finds=False), PASSAGES * 3, batch_size=5)
    assert (found.prompts, found.heard, found.identical) == (12, 0, 12)


def test_where_something_is_heard_answers_do_not_count(model: AudioBertForMaskedLM) -> None:
    found = identical_answers(rig_detector(model, finds=True), PASSAGES)
    assert (found.prompts, found.heard, found.identical) == (4, 4, 0)


def test_some_are_heard_and_all_others_identical(trained: AudioBertForMaskedLM) -> None:
    found = identical_answers(trained, PASSAGES * 4, batch_size=7)
    assert 0 < found.heard < found.prompts == 16
    assert found.identical == found.prompts - found.heard


def test_a_bert_that_differs_in_its_last_bits_is_noticed(
    model: AudioBertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def almost(model: AudioBertForMaskedLM) -> BertForMaskedLM:
        bert = original_bert(model)
        with torch.no_grad():
            bert.cls.predictions.bias.add_(1e-5)
        return bert

    monkeypatch.setattr(preservation, "original_bert", almost)
    found = identical_answers(rig_detector(model, finds=False), PASSAGES)
    assert (found.heard, found.identical) == (0, 0)


@pytest.mark.parametrize("mode", MODES)
def test_perplexity_is_that_of_one_token_at_a_time(trained: AudioBertForMaskedLM, mode: str) -> None:
    losses = [loss for passage in PASSAGES for loss in naive_loss(trained, passage, mode)]
    found = pseudo_perplexity(trained, PASSAGES, mode, batch_size=3, progress=False)
    assert found.value == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
    assert (found.tokens, found.passages) == (len(losses), 4)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(model: AudioBertForMaskedLM) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
        model.get_output_embeddings().bias.zero_()
    found = pseudo_perplexity(model, PASSAGES, PLAIN_BERT, progress=False)
    assert found.value == pytest.approx(len(model.tokenizer), rel=1e-5)


def test_the_switch_shows(model: AudioBertForMaskedLM) -> None:
    modes = MODES
    bert, heard, forced = (pseudo_perplexity(model, PASSAGES, mode, progress=False).value for mode in modes)
    assert len({bert, heard, forced}) == 3
    rig_detector(model, finds=False)
    bert, silent, again = (pseudo_perplexity(model, PASSAGES, mode, progress=False).value for mode in modes)
    assert silent == pytest.approx(bert, rel=1e-6)
    assert again == pytest.approx(forced, rel=1e-6)


def test_special_and_unknown_tokens_and_what_is_cut_off_are_not_predicted(trained: AudioBertForMaskedLM) -> None:
    assert pseudo_perplexity(trained, ["the [UNK] of [UNK] cat"], PLAIN_BERT, progress=False).tokens == 3
    assert pseudo_perplexity(trained, ["cat " * 100], PLAIN_BERT, progress=False).tokens == 62


def test_the_model_goes_back_to_training(model: AudioBertForMaskedLM) -> None:
    expected = measure_preservation(model, PASSAGES, PASSAGES[:1], progress=False)
    model.train()
    # With dropout on, the figures would be others.
    assert measure_preservation(model, PASSAGES, PASSAGES[:1], progress=False) == expected
    assert model.training and model.text_model.training


def test_all_together_as_a_table_and_from_json(trained: AudioBertForMaskedLM) -> None:
    measured = measure_preservation(trained, PASSAGES, PASSAGES[:2], batch_size=3, progress=False)
    assert measured.alarms == false_alarms(trained, PASSAGES, batch_size=3)
    assert measured.answers == identical_answers(trained, PASSAGES, batch_size=3)
    assert tuple(measured.pseudo_perplexity) == MODES
    for mode, found in measured.pseudo_perplexity.items():
        assert found == pseudo_perplexity(trained, PASSAGES[:2], mode, batch_size=3, progress=False)
    assert Preservation.from_dict(measured.to_dict()) == measured
    assert (
        f"| pseudo-perplexity, plain BERT | {measured.pseudo_perplexity[PLAIN_BERT].value:.3f} |"
        in measured.to_markdown()
    )


def test_a_text_that_the_model_was_trained_on_is_said_to_be_one(model: AudioBertForMaskedLM, tmp_path: Path) -> None:
    for name, text in (("seen.txt", "the duck"), ("new.txt", "the dog"), ("copy.txt", "the duck")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    seen, new, copy = (tmp_path / name for name in ("seen.txt", "new.txt", "copy.txt"))
    assert files_trained_on(model, [seen, new]) == [], "a model that says nothing of its training"
    model.config.trained_on = [{"name": "wiki.train.txt", "sha256": sha256_of(seen)}]
    assert files_trained_on(model, [seen, new, copy]) == [seen, copy]
    for files, trained_on in (([seen, new], True), ([new], False), ([], False)):
        measured = measure_preservation(model, PASSAGES, PASSAGES[:1], progress=False, files=files)
        assert measured.trained_on_this_text == measured.to_dict()["trained_on_this_text"] == trained_on
        assert Preservation.from_dict(json.loads(measured.to_json())) == measured
        console = Console(width=200, file=io.StringIO())
        console.print(measured.to_table())
        for text in (measured.to_markdown(), console.file.getvalue()):
            assert ("The model was trained on this text" in text) == trained_on
    older = {name: value for name, value in measured.to_dict().items() if name != "trained_on_this_text"}
    assert Preservation.from_dict(older) == measured


def test_what_cannot_be_measured_is_said(trained: AudioBertForMaskedLM) -> None:
    for measure in (false_alarms, identical_answers, lambda *given: pseudo_perplexity(*given, PLAIN_BERT)):
        with pytest.raises(ValueError, match="no passages"):
            measure(trained, [])
    with pytest.raises(ValueError, match="must be one of .*, got 'lora'"):
        pseudo_perplexity(trained, PASSAGES, "lora")


def test_the_bundled_checkpoint_keeps_its_bert(tmp_path: Path) -> None:
    text = "The play was written by a man who lived in the city for many years .\n" * 3
    (tmp_path / "plain.txt").write_text(text, encoding="utf-8")
    model = AudioBertForMaskedLM.from_pretrained(bundled())
    passages = sample_passages(read_passages(tmp_path), 2)
    measured = measure_preservation(model, passages, passages[:1], progress=False)
    assert measured.answers.identical == measured.answers.prompts - measured.answers.heard
    values = [measured.pseudo_perplexity[mode].value for mode in MODES]
    assert values[2] != values[0] and all(1 < value < 1e6 for value in values)

"""What is injected at a span: recordings by their weights, nothing where they are too far, and standardised."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from transformers import BertForMaskedLM

from audiobert import AudioBertForMaskedLM
from audiobert.modeling.injection_audiobert import audio_statistics, recording_weights, standardized, weighted_mean
from audiobert.modeling.lora_audiobert import lora_switched

from audio_fixtures import save_tiny_ast, tiny_knowledge_base
from model_fixtures import AUDITORY, PLAIN, TWO_SPANS, discerning_audiobert, hearing_audiobert, original_bert
from text_fixtures import tiny_bert_config, tiny_tokenizer

SPAN = torch.tensor([[1]])
EVERYTHING = {"retrieval_top_k": 3, "retrieval_temperature": 0.1, "standardize_audio": True}


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return discerning_audiobert()


def batch_of(*prompts: str) -> dict[str, torch.Tensor]:
    return dict(tiny_tokenizer()(list(prompts), return_tensors="pt", padding=True))


@contextmanager
def setting(model: AudioBertForMaskedLM, **values) -> Iterator[AudioBertForMaskedLM]:
    """The model with other values in its configuration, for a while."""
    before = {name: getattr(model.config, name) for name in values}
    vars(model.config).update(values)
    try:
        yield model
    finally:
        vars(model.config).update(before)


def answer(model: AudioBertForMaskedLM, *prompts: str, **given) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_of(*prompts), **given).logits


def similarity(model: AudioBertForMaskedLM, text: str) -> float:
    return model.knowledge_base.search([text])[0].recordings[0].similarity


def between(model: AudioBertForMaskedLM) -> float:
    """A threshold that one of the two spans of `TWO_SPANS` is below: the rain."""
    rain, hum = similarity(model, "rain"), similarity(model, "hum")
    assert rain < hum
    return (rain + hum) / 2


def brought_to_bert(model: AudioBertForMaskedLM, *prompts: str, **given) -> torch.Tensor:
    """What reaches the map from audio to text, `(spans, width)`."""
    seen = []
    handle = model.audio_projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        answer(model, *prompts, **given)
    finally:
        handle.remove()
    return torch.cat(seen)


# --- the paper's values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [1, 3])
def test_the_defaults_of_from_backbones_inject_the_plain_mean_as_ever_to_the_bit(top_k, tmp_path):
    torch.manual_seed(1)
    BertForMaskedLM(tiny_bert_config(len(tiny_tokenizer()))).save_pretrained(tmp_path / "bert")
    tiny_tokenizer().save_pretrained(tmp_path / "bert")
    ast = save_tiny_ast(tmp_path / "ast", hidden_size=12)
    sounds = tiny_knowledge_base(audio_hidden_size=12)
    model = AudioBertForMaskedLM.from_backbones(
        tmp_path / "bert", ast, sounds, lora_rank=4, detector_hidden_size=8, retrieval_top_k=top_k
    )
    with torch.no_grad():
        model.audio_projection.weight.normal_()
        # Every word speaks of a sound, so that the untrained detector finds one span.
        model.detector.classifier.bias.copy_(torch.tensor([-50.0, 50.0]))
        batch = batch_of("meow meow [MASK]")
        output = model(**batch)
        (span,) = output.spans[0]
        audio = sounds.audio_embeds(sounds.search([span.text], top_k=top_k)[0].indices).mean(0)
        words = model.get_input_embeddings()(batch["input_ids"])
        words[0, span.start] += model.audio_projection(audio[None])[0]
        with lora_switched(True):
            expected = model.text_model(
                inputs_embeds=words, **{name: value for name, value in batch.items() if name != "input_ids"}
            ).logits
    assert span.injected and len(span.recordings) == top_k
    assert torch.equal(output.logits, expected)


# --- several recordings ----------------------------------------------------------------------------------------------


def test_recordings_weigh_by_their_similarity(model):
    (found,) = model.knowledge_base.search(["meow"], top_k=3)
    similarities = torch.tensor([recording.similarity for recording in found.recordings])
    embeds = model.knowledge_base.audio_embeds(found.indices)
    with setting(model, retrieval_top_k=3, retrieval_temperature=0.1):
        heard = brought_to_bert(model, AUDITORY)[0]
    expected = (similarities / 0.1).exp() @ embeds / (similarities / 0.1).exp().sum()
    assert torch.allclose(heard, expected, atol=1e-5)
    assert not torch.allclose(heard, embeds.mean(0), atol=1e-2)


def test_the_temperature_goes_from_the_best_alone_to_the_plain_mean(model):
    embeds = model.knowledge_base.audio_embeds(model.knowledge_base.search(["meow"], top_k=3)[0].indices)
    for temperature, expected in ((1e-300, embeds[0]), (1e6, embeds.mean(0))):
        with setting(model, retrieval_top_k=3, retrieval_temperature=temperature):
            assert torch.allclose(brought_to_bert(model, AUDITORY)[0], expected, atol=1e-4)


def test_weights_sum_to_one_and_are_none_where_all_count_the_same(model):
    (found,) = model.knowledge_base.search(["rain"], top_k=5)
    assert recording_weights(found, model.config) is None
    with setting(model, retrieval_temperature=0.05):
        weights = recording_weights(found, model.config)
    assert sum(weights) == pytest.approx(1) and weights == sorted(weights, reverse=True)
    embeds = torch.randn(5, 12)
    assert torch.equal(weighted_mean(embeds), embeds.mean(0))
    assert torch.allclose(weighted_mean(embeds, [0.2] * 5), embeds.mean(0), atol=1e-6)


# --- too far ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("injection", ["add", "replace"])
def test_a_span_whose_best_recording_is_too_far_is_marked_and_silent(injection):
    model = discerning_audiobert(injection=injection, retrieval_top_k=2)
    found = model.knowledge_base.search(["rain", "hum"], top_k=2)
    rain, hum = (model.knowledge_base.audio_embeds(retrieval.indices).mean(0) for retrieval in found)
    both = answer(model, TWO_SPANS)
    with setting(model, retrieval_min_similarity=between(model)), torch.no_grad():
        output = model(**batch_of(TWO_SPANS))
    spans = output.spans[0]
    assert [(span.text, span.injected) for span in spans] == [("rain", False), ("hum", True)]
    # What was too far is still told.
    assert [span.recordings for span in spans] == [retrieval.recordings for retrieval in found]
    given = {"audio_positions": torch.tensor([[2, 9]]), "audio_embeds": torch.stack([rain, hum])[None]}
    assert torch.equal(output.logits, answer(model, TWO_SPANS, **given, audio_mask=torch.tensor([[False, True]])))
    assert not torch.allclose(output.logits, both, atol=1e-2)
    # A word at which nothing is injected stays, whether audio would be added to it or take its place.
    alone = answer(model, TWO_SPANS, audio_positions=torch.tensor([[9]]), audio_embeds=hum[None, None])
    assert torch.allclose(output.logits, alone, atol=1e-5)


def test_the_threshold_is_the_lowest_similarity_that_is_heard(model):
    exactly = similarity(model, "meow")
    for least, injected in ((None, True), (-1.0, True), (exactly, True), (exactly + 1e-6, False), (1.0, False)):
        with setting(model, retrieval_min_similarity=least), torch.no_grad():
            (span,) = model(**batch_of(AUDITORY)).spans[0]
        assert span.injected is injected, least


def test_a_row_in_which_all_is_too_far_has_its_adapter_on_and_plain_rows_are_bert_bit_for_bit(model):
    with setting(model, retrieval_min_similarity=1.0):
        logits = answer(model, AUDITORY, PLAIN)
        switched = answer(model, AUDITORY, PLAIN, audio_positions=torch.tensor([[1], [-1]]), audio_mask=SILENT_TWICE)
    assert torch.equal(logits, switched)
    plain = original_bert(model)(**batch_of(AUDITORY, PLAIN)).logits
    assert torch.equal(logits[1], plain[1])
    assert not torch.allclose(logits[0], plain[0], atol=1e-2)
    with torch.no_grad(), lora_switched(True):
        adapted = model.text_model(**batch_of(AUDITORY)).logits[0]
    assert torch.allclose(logits[0], adapted, atol=1e-5)


SILENT_TWICE = torch.zeros(2, 1, dtype=torch.bool)


def test_a_control_says_that_it_injects_nothing():
    spans = hearing_audiobert(injection="none")(**batch_of(TWO_SPANS)).spans[0]
    assert [(span.injected, span.recordings) for span in spans] == [(False, ())] * 2


# --- what a caller gives ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values"])
def test_where_the_mask_is_false_nothing_is_read(model, kind):
    shape = (12,) if kind == "audio_embeds" else (32, 16)
    audio = torch.randn(2, 2, *shape)
    positions, mask = torch.tensor([[1, -1], [2, 9]]), torch.tensor([[True, True], [False, True]])
    spoilt = audio.clone()
    spoilt[0, 1] = spoilt[1, 0] = float("nan")
    prompts, given = (AUDITORY, TWO_SPANS), {"audio_positions": positions, "audio_mask": mask}
    masked = answer(model, *prompts, **given, **{kind: spoilt})
    assert torch.equal(masked, answer(model, *prompts, **given, **{kind: audio}))
    hum = answer(model, TWO_SPANS, audio_positions=torch.tensor([[9]]), **{kind: audio[1:, 1:]})
    assert torch.allclose(masked[1, : hum.shape[1]], hum[0], atol=1e-4)
    everything = answer(model, *prompts, audio_positions=positions, audio_mask=torch.ones_like(mask), **{kind: audio})
    assert torch.equal(everything, answer(model, *prompts, audio_positions=positions, **{kind: audio}))
    assert not torch.allclose(everything[1], masked[1], atol=1e-2)


@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values", None])
def test_a_batch_in_which_nothing_is_heard_can_be_trained_on(kind):
    model = hearing_audiobert(standardize_audio=True).train()
    batch = batch_of(AUDITORY)
    given = {"audio_positions": SPAN, "audio_mask": torch.tensor([[False]])}
    if kind is not None:
        given[kind] = torch.randn(1, 1, *((12,) if kind == "audio_embeds" else (32, 16)))
    labels = torch.where(batch["input_ids"] == tiny_tokenizer().mask_token_id, 7, -100)
    model(**batch, labels=labels, **given).loss.backward()
    # The map has its part in the loss, which is none: processes that train together wait for all gradients.
    assert model.audio_projection.weight.grad is not None and not model.audio_projection.weight.grad.any()
    assert any(p.grad.any() for name, p in model.named_parameters() if "lora_" in name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio_mask": torch.tensor([[True]])}, "`audio_mask` needs `audio_positions`"),
        ({"audio_positions": SPAN, "audio_mask": torch.tensor([[True]])}, "needs `audio_embeds` or `audio_values`"),
        ({"audio_positions": SPAN, "audio_mask": torch.tensor([[1]])}, r"must be bool .* got torch\.int64"),
        (
            {"audio_positions": SPAN, "audio_mask": torch.tensor([True])},
            r"of `audio_positions`, \(1, 1\), got .*\(1,\)",
        ),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**batch_of(AUDITORY), **arguments)


# --- standardised ----------------------------------------------------------------------------------------------------


def test_audio_is_standardised_wherever_it_comes_from(model):
    sounds, values = model.knowledge_base, torch.randn(1, 1, 32, 16)
    embeds = sounds.audio_embeds(sounds.search(["meow"])[0].indices)
    ways = [{}, {"audio_positions": SPAN, "audio_embeds": embeds[None]}]
    ways += [{"audio_positions": SPAN, "audio_values": values}]
    for given in ways:
        as_it_is, logits = brought_to_bert(model, AUDITORY, **given), answer(model, AUDITORY, **given)
        with setting(model, standardize_audio=True):
            heard, changed = brought_to_bert(model, AUDITORY, **given), answer(model, AUDITORY, **given)
        assert torch.allclose(heard, (as_it_is - sounds.audio_mean) / sounds.audio_deviation, atol=1e-5)
        assert not torch.allclose(changed, logits, atol=1e-2)


def test_all_recordings_together_have_mean_0_and_deviation_1(model):
    sounds = model.knowledge_base
    values = standardized(sounds.audio_embeds(range(len(sounds))), sounds)
    assert torch.allclose(values.mean(0), torch.zeros(12), atol=1e-5)
    assert torch.allclose(values.std(0, correction=0), torch.ones(12), atol=1e-4)


def test_a_dimension_in_which_all_recordings_are_alike_is_finite():
    flat = SimpleNamespace(audio_mean=torch.tensor([1.0, 2.0]), audio_deviation=torch.tensor([0.0, 4.0]))
    assert audio_statistics(flat)[1].tolist() == [1.0, 4.0]
    assert standardized(torch.tensor([[1.5, 4.0]]), flat).tolist() == [[0.5, 0.5]]


def test_standardising_without_a_knowledge_base_or_its_numbers_is_refused(model):
    deaf = copy.deepcopy(model)
    deaf.set_knowledge_base(None)
    with setting(deaf, standardize_audio=True):
        with pytest.raises(ValueError, match=r"`config\.standardize_audio` needs .* but the model has none"):
            answer(deaf, AUDITORY, audio_positions=SPAN, audio_embeds=torch.ones(1, 1, 12))
        # Nothing is injected in a plain row.
        assert torch.equal(answer(deaf, PLAIN), original_bert(model)(**batch_of(PLAIN)).logits)
    with pytest.raises(ValueError, match=r"the model's has no `audio_mean`, `audio_deviation`"):
        standardized(torch.ones(1, 12), SimpleNamespace())


# --- all of it, in all ways to run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> AudioBertForMaskedLM:
    model = discerning_audiobert(**EVERYTHING, retrieval_min_similarity=0.57)
    # So each batch below has a span that is heard and one that is not.
    assert similarity(model, "meow") < 0.57 < similarity(model, "rain") < similarity(model, "hum")
    return model


def test_a_prompt_gets_the_same_alone_and_among_others(full):
    alone, many = answer(full, TWO_SPANS)[0], answer(full, AUDITORY, TWO_SPANS, PLAIN, TWO_SPANS)
    assert torch.allclose(many[1, : len(alone)], alone, atol=1e-3)
    assert torch.equal(many[1], many[3])
    assert torch.equal(many[2], original_bert(full)(**batch_of(AUDITORY, TWO_SPANS, PLAIN, TWO_SPANS)).logits[2])


def test_a_batch_may_be_split_among_devices(full):
    batch = batch_of(AUDITORY, TWO_SPANS, PLAIN)
    batch["audio_positions"] = torch.tensor([[1, -1], [2, 9], [-1, -1]])
    batch["audio_mask"] = torch.tensor([[False, False], [True, False], [False, False]])
    batch["audio_embeds"] = torch.randn(3, 2, 12)
    with torch.no_grad():
        whole = full(**batch).logits
        parts = [full(**{name: value[row : row + 1] for name, value in batch.items()}).logits for row in range(3)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)


def test_a_pickled_model_hears_the_same(full):
    prompts = (AUDITORY, TWO_SPANS)
    assert torch.equal(answer(pickle.loads(pickle.dumps(full)), *prompts), answer(full, *prompts))


def test_under_autocast_the_same_recordings_are_heard_as_without(full):
    heard = brought_to_bert(full, AUDITORY, TWO_SPANS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(brought_to_bert(full, AUDITORY, TWO_SPANS), heard)


@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values", None])
def test_autocast_trains(full, kind):
    torch.manual_seed(0)
    model = copy.deepcopy(full).train()
    batch = batch_of(AUDITORY, TWO_SPANS, PLAIN)
    labels = torch.where(batch["input_ids"] == tiny_tokenizer().mask_token_id, 7, -100)
    given = {}
    if kind is not None:
        given = {"audio_positions": torch.tensor([[1, -1], [2, 9], [-1, -1]])}
        given["audio_mask"] = torch.tensor([[False, False], [True, False], [False, False]])
        given[kind] = torch.randn(3, 2, *((12,) if kind == "audio_embeds" else (32, 16)))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch, labels=labels, **given).loss
    loss.backward()
    assert loss.isfinite() and model.audio_projection.weight.grad.any()


def test_half_precision(full):
    half = copy.deepcopy(full).to(torch.bfloat16)
    heard = brought_to_bert(full, TWO_SPANS)
    # Standardised before it is rounded.
    assert torch.equal(brought_to_bert(half, TWO_SPANS), heard.bfloat16())
    values = {"audio_positions": SPAN, "audio_values": torch.randn(1, 1, 32, 16)}
    assert answer(half, AUDITORY, **values).isfinite().all()


def test_gradient_checkpointing_changes_no_gradient():
    model = hearing_audiobert(lora_dropout=0.0, **EVERYTHING)
    batch = batch_of(AUDITORY, TWO_SPANS)
    labels = torch.where(batch["input_ids"] == tiny_tokenizer().mask_token_id, 7, -100)
    given = {"audio_positions": torch.tensor([[1, -1], [2, 9]]), "audio_embeds": torch.randn(2, 2, 12)}
    given["audio_mask"] = torch.tensor([[True, False], [False, True]])
    for module in model.modules():
        for name in ("p", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.train()

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**batch, labels=labels, **given).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.activation_checkpointing_enable()
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name


def test_a_saved_model_hears_the_same(tmp_path):
    model = hearing_audiobert(**EVERYTHING, retrieval_min_similarity=-0.5)
    model.save_pretrained(tmp_path)
    assert torch.equal(answer(AudioBertForMaskedLM.from_pretrained(tmp_path), TWO_SPANS), answer(model, TWO_SPANS))

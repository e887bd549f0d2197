"""The model: plain BERT where nothing is to be heard, something else where there is."""

import copy
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import BertForMaskedLM

from audiobert import AudioBertForMaskedLM
from audiobert.modeling.detector_audiobert import DetectorLayer
from audiobert.modeling.injection_audiobert import inject, pooled
from audiobert.modeling.lora_audiobert import ADAPTER, lora_layers, lora_switched

from model_fixtures import AUDITORY, PLAIN, TWO_SPANS, hearing_audiobert, original_bert, tiny_config
from text_fixtures import tiny_tokenizer


@pytest.fixture(scope="module")
def model() -> AudioBertForMaskedLM:
    return hearing_audiobert()


@pytest.fixture(scope="module")
def bert(model) -> BertForMaskedLM:
    return original_bert(model)


def batch_of(*prompts: str) -> dict[str, torch.Tensor]:
    return dict(tiny_tokenizer()(list(prompts), return_tensors="pt", padding=True))


# --- exactness -------------------------------------------------------------------------------------------------------


def test_plain_batch_is_bert_bit_for_bit(model, bert):
    batch = batch_of(PLAIN, "a [MASK]", "is the cat a dog")
    with torch.no_grad():
        output = model(**batch)
        assert torch.equal(output.logits, bert(**batch).logits)
    assert output.spans == [[], [], []]


def test_plain_rows_of_a_mixed_batch_are_bert_bit_for_bit(model, bert):
    batch = batch_of(AUDITORY, PLAIN, TWO_SPANS, "a [MASK]")
    with torch.no_grad():
        output, plain = model(**batch), bert(**batch).logits
    assert [len(spans) for spans in output.spans] == [1, 0, 2, 0]
    for row in (1, 3):
        assert torch.equal(output.logits[row], plain[row])
    for row in (0, 2):
        assert not torch.allclose(output.logits[row], plain[row], atol=1e-2)


def test_an_untrained_adapter_without_audio_changes_nothing(bert):
    torch.manual_seed(0)
    model = AudioBertForMaskedLM(tiny_config(injection="none")).eval()
    batch = batch_of(AUDITORY)
    with torch.no_grad():
        switched = model(**batch, audio_positions=torch.tensor([[1]])).logits
        plain = model(**batch, audio_positions=torch.tensor([[-1]])).logits
    assert torch.allclose(switched, plain, atol=1e-5)


def test_eight_threads_get_what_serial_calls_get(model):
    batches = [batch_of(*prompts) for prompts in ([AUDITORY], [PLAIN], [AUDITORY, PLAIN], [TWO_SPANS, PLAIN])] * 12

    def answer(batch):
        with torch.no_grad():
            return model(**batch).logits

    serial = [answer(batch) for batch in batches]
    model.knowledge_base._cache.clear()
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(answer, batches))
    assert all(torch.equal(one, other) for one, other in zip(serial, parallel, strict=True))


# --- hearing ---------------------------------------------------------------------------------------------------------


def test_spans_scores_and_recordings_are_returned(model):
    (span,) = model(**batch_of(AUDITORY)).spans[0]
    assert (span.start, span.end, span.text) == (1, 2, "meow")
    assert 0.5 < span.score <= 1
    (recording,) = span.recordings
    assert recording == model.knowledge_base.search(["meow"])[0].recordings[0]


def test_looking_up_is_what_giving_the_same_audio_is(model):
    batch = batch_of(TWO_SPANS, AUDITORY)
    indices = [r.indices for r in model.knowledge_base.search(["rain", "hum", "meow"])]
    rain, hum, meow = (model.knowledge_base.audio_embeds(i)[0] for i in indices)
    embeds = torch.stack([torch.stack([rain, hum]), torch.stack([meow, torch.full_like(meow, 7.0)])])
    positions = torch.tensor([[2, 9], [1, -1]])
    with torch.no_grad():
        given = model(**batch, audio_embeds=embeds, audio_positions=positions)
        assert torch.equal(model(**batch).logits, given.logits)
    assert given.spans is None


def test_top_k_recordings_are_averaged():
    model = hearing_audiobert(retrieval_top_k=3)
    (span,) = model(**batch_of(AUDITORY)).spans[0]
    assert len(span.recordings) == 3
    indices = model.knowledge_base.search(["meow"], top_k=3)[0].indices
    mean = model.knowledge_base.audio_embeds(indices).mean(0)
    with torch.no_grad():
        given = model(**batch_of(AUDITORY), audio_embeds=mean[None, None], audio_positions=torch.tensor([[1]]))
        assert torch.allclose(model(**batch_of(AUDITORY)).logits, given.logits, atol=1e-5)


def injected(model: AudioBertForMaskedLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the model should hand to BERT's embeddings for `AUDITORY`, written out."""
    words = model.get_input_embeddings()(batch["input_ids"]).clone()
    index = model.knowledge_base.search(["meow"])[0].indices
    audio = model.audio_projection(model.knowledge_base.audio_embeds(index)[0])
    words[0, 1] = audio if model.config.injection == "replace" else words[0, 1] + audio
    return words


@pytest.mark.parametrize("injection", ["add", "replace"])
def test_audio_enters_before_positions_and_layer_norm_which_are_applied_once(injection):
    model = hearing_audiobert(injection=injection)
    batch = batch_of(AUDITORY)
    seen = []
    handle = model.text_model.bert.embeddings.LayerNorm.register_forward_hook(lambda m, args, out: seen.append(args[0]))
    with torch.no_grad():
        model(**batch)
        embeddings = model.text_model.bert.embeddings
        places = embeddings.position_embeddings.weight[: batch["input_ids"].shape[1]]
        expected = injected(model, batch) + places + embeddings.token_type_embeddings.weight[0]
    handle.remove()
    assert len(seen) == 2  # the plain pass and the hearing pass, each once
    assert torch.allclose(seen[1], expected, atol=1e-6)


def test_the_control_hears_nothing_but_switches_its_adapter(model):
    control = hearing_audiobert(injection="none")
    control.set_knowledge_base(None)
    batch = batch_of(AUDITORY, PLAIN)
    with torch.no_grad():
        output = control(**batch)
        switched = control(**batch, audio_positions=torch.tensor([[1], [-1]]))
        plain = control(**batch, audio_positions=torch.full((2, 1), -1))
    assert torch.equal(output.logits, switched.logits)
    assert not torch.allclose(output.logits[0], plain.logits[0], atol=1e-2)
    assert torch.equal(output.logits[1], plain.logits[1])
    assert output.spans[0][0].recordings == ()


def test_the_lora_of_the_hearing_pass_is_pefts(model):
    layer = lora_layers(model)[0]
    x = torch.randn(3, model.config.text_config.hidden_size)
    with torch.no_grad():
        delta = layer.get_delta_weight(ADAPTER)
        expected = torch.nn.functional.linear(x, layer.base_layer.weight + delta, layer.base_layer.bias)
        with lora_switched(True):
            assert torch.allclose(layer(x), expected, atol=1e-4)
        assert torch.equal(layer(x), layer.base_layer(x))
    assert layer.scaling[ADAPTER] == 8 / 4


def test_without_a_knowledge_base_it_is_bert_with_one_warning(model, bert, caplog):
    deaf = copy.deepcopy(model)
    deaf.set_knowledge_base(None)
    from transformers.utils import logging as transformers_logging

    transformers_logging.get_logger(type(deaf).__module__).warning_once.__func__.cache_clear()
    root = logging.getLogger("transformers")
    loggers = {root, logging.getLogger(type(deaf).__module__)}
    for logger in loggers:
        logger.addHandler(caplog.handler)
    with torch.no_grad():
        logits = [deaf(**batch_of(AUDITORY)).logits for _ in range(3)]
        assert torch.equal(logits[0], bert(**batch_of(AUDITORY)).logits)
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    warnings = {(r.created, r.getMessage()) for r in caplog.records if "no knowledge base" in r.getMessage()}
    assert len(warnings) == 1


# --- training --------------------------------------------------------------------------------------------------------


def labels_of(batch: dict[str, torch.Tensor], word: str = "cat") -> torch.Tensor:
    tokenizer = tiny_tokenizer()
    labels = torch.full_like(batch["input_ids"], -100)
    labels[batch["input_ids"] == tokenizer.mask_token_id] = tokenizer.convert_tokens_to_ids(word)
    return labels


def test_losses_alone_and_together(model):
    batch = batch_of(AUDITORY, PLAIN)
    labels, span_labels = labels_of(batch), torch.zeros_like(batch["input_ids"])
    span_labels[0, 1] = 1
    with torch.no_grad():
        language = model(**batch, labels=labels)
        detection = model(**batch, span_labels=span_labels)
        both = model(**batch, labels=labels, span_labels=span_labels)
    masks = labels != -100
    expected = torch.nn.functional.cross_entropy(language.logits[masks], labels[masks])
    assert torch.allclose(language.loss, expected, atol=1e-5)
    expected = torch.nn.functional.cross_entropy(detection.span_logits.flatten(0, 1), span_labels.flatten())
    assert torch.allclose(detection.loss, expected, atol=1e-5)
    assert torch.allclose(both.loss, language.loss + detection.loss, atol=1e-5)
    assert detection.spans is None  # the detector's loss alone looks nothing up


@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values"])
def test_what_is_trained(kind):
    model = hearing_audiobert().train()
    batch = batch_of(AUDITORY, TWO_SPANS, PLAIN)
    shape = (12,) if kind == "audio_embeds" else (32, 16)
    positions = torch.tensor([[1, -1], [2, 9], [-1, -1]])
    model(
        **batch, labels=labels_of(batch), audio_positions=positions, **{kind: torch.randn(3, 2, *shape)}
    ).loss.backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    encoder = {"audio_model"} if kind == "audio_values" else set()
    assert trained == {"text_model", "audio_projection"} | encoder
    assert all("lora_" in name for name, p in model.text_model.named_parameters() if p.grad is not None)


def test_the_detectors_loss_trains_the_detector_alone(model):
    model = copy.deepcopy(model).train()
    batch = batch_of(AUDITORY)
    model(**batch, span_labels=torch.zeros_like(batch["input_ids"])).loss.backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"detector"}


def test_a_batch_without_sounds_can_be_trained_on(model):
    model = copy.deepcopy(model).train()
    batch = batch_of(PLAIN)
    loss = model(**batch, labels=labels_of(batch), audio_positions=torch.tensor([[-1]])).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)


def test_padding_of_spans_and_tokens_changes_nothing(model):
    batch, alone = batch_of(AUDITORY, TWO_SPANS), batch_of(AUDITORY)
    audio = torch.linspace(-1, 1, 12)[None, None]
    padded = torch.cat([audio, torch.full((1, 2, 12), 9.0)], dim=1).repeat(2, 1, 1)
    with torch.no_grad():
        one = model(**alone, audio_embeds=audio, audio_positions=torch.tensor([[1]])).logits[0]
        positions = torch.tensor([[1, -1, -1], [2, -1, -1]])
        many = model(**batch, audio_embeds=padded, audio_positions=positions).logits[0]
    assert torch.allclose(one, many[: len(one)], atol=1e-5)


def test_two_spans_at_one_token_are_both_added(model):
    batch = batch_of(AUDITORY)
    one, other = torch.randn(2, 12)
    bias = model.audio_projection.bias
    words = inject(
        model.get_input_embeddings()(batch["input_ids"]),
        torch.tensor([[1, 1]]),
        torch.stack([one, other]),
        model.audio_projection,
        add=True,
    )
    expected = model.get_input_embeddings()(batch["input_ids"])[0, 1] + (one + other) @ model.audio_projection.weight.T
    assert torch.allclose(words[0, 1], expected + 2 * bias, atol=1e-4)


def test_gradient_checkpointing_keeps_the_adapter_on():
    model = hearing_audiobert(lora_dropout=0.0)
    config = model.config.text_config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    batch = batch_of(AUDITORY, PLAIN)
    inputs = {**batch, "labels": labels_of(batch), "audio_positions": torch.tensor([[1], [-1]])}
    inputs["audio_embeds"] = torch.randn(2, 1, 12)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(**inputs).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    def without_dropout(module):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0

    model.train().apply(without_dropout)
    expected = gradients()
    model.activation_checkpointing_enable()
    assert any(layer.gradient_checkpointing for layer in model.text_model.bert.encoder.layer)
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio_embeds": torch.zeros(1, 1, 12)}, "needs `audio_positions`"),
        ({"audio_positions": torch.tensor([[1]])}, "needs `audio_embeds` or `audio_values`"),
        ({"audio_positions": torch.tensor([1])}, r"`audio_positions` must be \(1, spans\)"),
        ({"audio_positions": torch.tensor([[99]]), "audio_embeds": torch.zeros(1, 1, 12)}, "holds 99"),
        ({"audio_positions": torch.tensor([[1]]), "audio_embeds": torch.zeros(1, 2, 12)}, "first two sizes"),
        ({"audio_positions": torch.tensor([[1]]), "audio_embeds": torch.zeros(1, 1, 5)}, "width 5"),
        (
            {
                "audio_positions": torch.tensor([[1]]),
                "audio_embeds": torch.zeros(1, 1, 12),
                "audio_values": torch.zeros(1, 1, 32, 16),
            },
            "not both",
        ),
    ],
)
def test_audio_that_does_not_fit_is_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**batch_of(AUDITORY), **arguments)


def test_a_knowledge_base_of_another_width_is_refused(model):
    from audio_fixtures import tiny_knowledge_base

    with pytest.raises(ValueError, match="width 6, the audio model gives 12"):
        model.set_knowledge_base(tiny_knowledge_base(audio_hidden_size=6))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values"])
def test_audio_that_is_not_finite_is_refused_with_its_place(model, kind, value):
    audio = torch.zeros(2, 2, *((12,) if kind == "audio_embeds" else (32, 16)))
    positions = torch.tensor([[1, -1], [1, 2]])
    audio[0, 1] = value  # padding, which is not heard
    batch = batch_of(AUDITORY, AUDITORY)
    assert model(**batch, audio_positions=positions, **{kind: audio}).logits.isfinite().all()
    audio[1, 1].view(-1)[3] = value
    with pytest.raises(ValueError, match=f"`{kind}` holds NaN or infinity in row 1, span 1"):
        model(**batch, audio_positions=positions, **{kind: audio})


def test_a_batch_without_a_label_has_a_loss_of_zero_that_can_be_gone_back_through(model):
    model = copy.deepcopy(model).train()
    batch = batch_of(AUDITORY, "a cat is a dog")
    nothing = torch.full_like(batch["input_ids"], -100)
    for losses in ({"labels": nothing}, {"span_labels": nothing}, {"labels": nothing, "span_labels": nothing}):
        loss = model(**batch, **losses).loss
        assert loss.item() == 0.0
        loss.backward()
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
    labels = labels_of(batch)
    both = model.eval()(**batch, labels=labels, span_labels=nothing).loss
    assert torch.equal(both, model(**batch, labels=labels).loss)


# --- in other precisions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["audio_embeds", "audio_values", None])
def test_autocast_forward_and_backward(model, kind):
    model = copy.deepcopy(model).train()
    batch = batch_of(AUDITORY, TWO_SPANS, PLAIN)
    inputs = {"labels": labels_of(batch), "span_labels": torch.zeros_like(batch["input_ids"])}
    if kind is not None:
        shape = (12,) if kind == "audio_embeds" else (32, 16)
        inputs["audio_positions"] = torch.tensor([[1, -1], [2, 9], [-1, -1]])
        inputs[kind] = torch.randn(3, 2, *shape)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch, **inputs, output_hidden_states=True)
    output.loss.backward()
    assert output.loss.isfinite()
    assert model.audio_projection.weight.grad.any()
    assert model.detector.classifier.weight.grad.any()


def test_a_trainers_bf16_step(model, tmp_path):
    from transformers import Trainer, TrainingArguments

    model = copy.deepcopy(model)
    batch = batch_of(AUDITORY)
    row = {name: value[0] for name, value in {**batch, "labels": labels_of(batch)}.items()}
    row |= {"audio_positions": torch.tensor([1]), "audio_embeds": torch.ones(1, 12)}
    args = TrainingArguments(
        tmp_path, max_steps=1, bf16=True, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
    )
    before = model.audio_projection.weight.detach().clone()
    assert Trainer(model, args, train_dataset=[row] * 8).train().training_loss > 0
    assert not torch.equal(model.audio_projection.weight, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_an_int8_detector(model):
    quantized = copy.deepcopy(model)
    quantized.detector = torch.ao.quantization.quantize_dynamic(model.detector, {torch.nn.Linear})
    with torch.no_grad():
        spans = quantized(**batch_of(AUDITORY, PLAIN, TWO_SPANS)).spans
    assert [[span.text for span in row] for row in spans] == [["meow"], [], ["rain", "hum"]]
    whole = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {torch.nn.Linear})
    with pytest.raises(TypeError, match=r"leave `model\.text_model` as it is"):
        whole(**batch_of(AUDITORY), audio_positions=torch.tensor([[1]]), audio_embeds=torch.ones(1, 1, 12))


def test_the_detectors_layer_is_torchs():
    torch.manual_seed(0)
    torchs = torch.nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True, norm_first=True).eval()
    ours = DetectorLayer(16, 2, 0.1).eval()
    ours.load_state_dict(torchs.state_dict())
    states, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    expected = torchs(states, src_key_padding_mask=mask == 0)
    found = ours(states, (mask != 0)[:, None, None, :])
    assert torch.allclose(found[mask == 1], expected[mask == 1], atol=1e-5)


def test_frames_that_sound_are_pooled():
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [50.0, 60.0]]])
    assert torch.equal(pooled(states), states.mean(1))
    assert torch.equal(pooled(states, torch.tensor([[True, True, False]])), torch.tensor([[2.0, 3.0]]))


# --- as any Transformers model ---------------------------------------------------------------------------------------


def test_hidden_states_and_attentions_come_from_the_pass_that_answered(model, bert):
    batch = batch_of(AUDITORY, PLAIN)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        output = eager(**batch, output_hidden_states=True, output_attentions=True)
        heard = eager.text_model.cls(output.hidden_states[-1])
    assert len(output.hidden_states) == 3
    assert len(output.attentions) == 2
    assert torch.allclose(heard, output.logits, atol=1e-5)


def test_the_configuration_says_what_is_returned_where_the_caller_does_not(model):
    asked = copy.deepcopy(model)
    asked.set_attn_implementation("eager")
    asked.config.output_hidden_states = asked.config.output_attentions = True
    with torch.no_grad():
        output = asked(**batch_of(AUDITORY, PLAIN))
        refused = asked(**batch_of(AUDITORY, PLAIN), output_hidden_states=False, output_attentions=False)
    assert (len(output.hidden_states), len(output.attentions)) == (3, 2)
    assert (refused.hidden_states, refused.attentions) == (None, None)


def test_return_dict_false_gives_a_tuple(model):
    batch = batch_of(PLAIN)
    with torch.no_grad():
        loss, logits, *_ = model(**batch, labels=labels_of(batch), return_dict=False)
    assert logits.shape == (1, batch["input_ids"].shape[1], model.config.text_config.vocab_size)
    assert loss.ndim == 0


def test_inputs_embeds_are_taken(model):
    batch = batch_of(AUDITORY)
    words = model.get_input_embeddings()(batch["input_ids"])
    audio = {"audio_embeds": torch.randn(1, 1, 12), "audio_positions": torch.tensor([[1]])}
    with torch.no_grad():
        by_ids = model(**batch, **audio).logits
        by_words = model(inputs_embeds=words, attention_mask=batch["attention_mask"], **audio).logits
    assert torch.allclose(by_ids, by_words, atol=1e-5)


def test_half_precision(model):
    half = copy.deepcopy(model).to(torch.bfloat16)
    with torch.no_grad():
        output = half(**batch_of(AUDITORY, PLAIN))
    assert output.logits.dtype == torch.bfloat16
    assert output.spans[1] == []

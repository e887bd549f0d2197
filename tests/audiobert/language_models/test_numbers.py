"""A model whose logits are no numbers is refused wherever it would be scored; the error names it and the first row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import BertForMaskedLM

from audiobert import AudioBertForMaskedLM
from audiobert.data.auditorybench import FEATURES
from audiobert.evaluation.causal import predict_causal
from audiobert.evaluation.choices import ChoiceRow, choose_causal, choose_masked
from audiobert.evaluation.masked import evaluate_detector, evaluate_model
from audiobert.evaluation.metrics import AuditoryMetrics
from audiobert.evaluation.preservation import MODES, false_alarms, identical_answers, pseudo_perplexity
from audiobert.explain import explain
from audiobert.hearing import audible_rows
from audiobert.inference import answer_prompts
from audiobert.language_models.causal import load_causal
from audiobert.language_models.numbers import refuse_no_numbers

from causal_fixtures import make_causal
from model_fixtures import AUDITORY, hearing_audiobert
from text_fixtures import tiny_bert, tiny_tokenizer

SENTENCE = "meow is the sound a [MASK] makes"
ROW = {"sentence": SENTENCE, "answer": "cat", "spans": ["meow"], "task": "animal"}
DATA = Dataset.from_list([ROW], features=FEATURES)
CHOICE = ChoiceRow(SENTENCE, "cat", "meow", ("cat", "dog", "duck", "bass"), "A")
PASSAGES = ["the duck is a cat"]
BAD = [float("nan"), float("inf"), -float("inf")]


def broken_bert(value: float = float("nan")) -> BertForMaskedLM:
    model = tiny_bert(len(tiny_tokenizer()))
    with torch.no_grad():
        model.cls.predictions.bias[7] = value
    return model


def broken_audiobert(part: str) -> AudioBertForMaskedLM:
    model = hearing_audiobert()
    bias = {
        "language model": model.get_output_embeddings().bias,
        "detector": model.detector.classifier.bias,
        "adapter": next(weight for name, weight in model.named_parameters() if "lora_B" in name),
    }[part]
    with torch.no_grad():
        bias.fill_(torch.nan)
    return model


@pytest.mark.parametrize("value", BAD)
def test_a_masked_model(value: float) -> None:
    for score in (
        lambda model, tokenizer: evaluate_model(model, tokenizer, DATA, progress=False),
        lambda model, tokenizer: choose_masked(model, tokenizer, [CHOICE]),
    ):
        with pytest.raises(ValueError, match="BertForMaskedLM gives logits that are not a number.*first for 'meow is"):
            score(broken_bert(value), tiny_tokenizer())


def test_the_checkpoint_is_named(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    broken_bert().save_pretrained(tmp_path / "overflown")
    model = BertForMaskedLM.from_pretrained(tmp_path / "overflown")
    with pytest.raises(ValueError, match="overflown.*dtype"):
        evaluate_model(model, tokenizer, DATA, progress=False)


def test_the_first_row_is_named_and_padding_does_not_count() -> None:
    logits = torch.zeros(3, 2, 2)
    refuse_no_numbers("It", logits, str)
    logits[1, 1] = torch.nan
    logits[2, 0] = torch.inf
    with pytest.raises(ValueError, match="^It gives .* first for 'row 1'"):
        refuse_no_numbers("It", logits, "row {}".format)
    refuse_no_numbers("It", logits[:0], str)


def test_a_causal_model(tmp_path: Path) -> None:
    model, tokenizer = load_causal(make_causal(tmp_path, "llama"))
    with torch.no_grad():
        model.lm_head.weight[0] = torch.nan
    for score in (
        *(
            lambda method=method: predict_causal(model, tokenizer, DATA, method=method, progress=False)
            for method in ("rank", "rank-normalised", "generate")
        ),
        lambda: choose_causal(model, tokenizer, [CHOICE], batch_size=2),
    ):
        with pytest.raises(ValueError, match="LlamaForCausalLM .*not a number.*first for '[^']*[Mm]eow is the"):
            score()


SCORES_OF_AUDIOBERT: dict[str, Callable[[AudioBertForMaskedLM], object]] = {
    "evaluate": lambda model: evaluate_model(model, model.tokenizer, DATA, progress=False),
    "evaluate, audio off": lambda model: evaluate_model(model, model.tokenizer, DATA, audio="off", progress=False),
    "fill-mask": lambda model: answer_prompts(model, model.tokenizer, [AUDITORY]),
    "explain": lambda model: explain(model, AUDITORY),
    "identical answers": lambda model: identical_answers(model, PASSAGES),
    **{
        f"pseudo-perplexity, {mode}": lambda model, mode=mode: pseudo_perplexity(model, PASSAGES, mode, progress=False)
        for mode in MODES
    },
}


@pytest.mark.parametrize("name", SCORES_OF_AUDIOBERT)
def test_an_audiobert_whose_language_model_is_broken(name: str) -> None:
    with pytest.raises(ValueError, match="AudioBertForMaskedLM.* gives logits that are not a number.*first for '"):
        SCORES_OF_AUDIOBERT[name](broken_audiobert("language model"))


@pytest.mark.parametrize("name", ["evaluate", "fill-mask", "explain"])
def test_an_audiobert_whose_adapter_is_broken(name: str) -> None:
    with pytest.raises(ValueError, match="AudioBertForMaskedLM.* gives logits that are not a number.*first for '"):
        SCORES_OF_AUDIOBERT[name](broken_audiobert("adapter"))


def test_an_audiobert_whose_detector_is_broken() -> None:
    """It would find nothing, as no probability is above the threshold, and be right where there is nothing."""
    model = broken_audiobert("detector")
    for score in (
        SCORES_OF_AUDIOBERT["evaluate"],
        lambda model: evaluate_detector(model, DATA),
        lambda model: audible_rows(model, Dataset.from_list([{**ROW, "spans": ["NA"]}], features=FEATURES)),
        lambda model: false_alarms(model, PASSAGES),
    ):
        with pytest.raises(ValueError, match="AudioBertForMaskedLM.* gives logits that are not a number.*first for '"):
            score(model)


def test_a_model_in_training() -> None:
    tokenizer = tiny_tokenizer()
    labels = torch.full((1, 3), -100)
    labels[0, 1] = tokenizer.convert_tokens_to_ids("cat")
    logits = torch.zeros(1, 3, len(tokenizer))
    logits[0, 2] = torch.nan
    AuditoryMetrics(tokenizer, ["labels"]).reduce(logits, labels)
    logits[0, 1, 5] = torch.nan
    with pytest.raises(ValueError, match="not a number.*first for 'cat'"):
        AuditoryMetrics(tokenizer, ["labels"]).reduce(logits, labels)
    spans = torch.full((1, 3, 2), torch.nan)
    with pytest.raises(ValueError, match="The detector gives logits that are not a number"):
        AuditoryMetrics(tokenizer, ["span_labels"]).reduce((logits, spans), torch.ones(1, 3, dtype=torch.long))

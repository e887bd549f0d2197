from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EvalPrediction, Trainer, TrainingArguments

from audiobert.data.auditorybench import load_auditorybench
from audiobert.data.batches import AudioBertDataCollator, tokenize_auditorybench
from audiobert.evaluation.masked import evaluate_model
from audiobert.evaluation.metrics import (
    AnswerAccuracy,
    AuditoryMetrics,
    PitchAccuracy,
    SpanExactF1,
    SpanTokenF1,
    best_tokens,
    pitch_logits,
    pitch_token_ids,
)

from model_fixtures import hearing_audiobert
from text_fixtures import tiny_bert, tiny_tokenizer, write_auditorybench

_ = -100


def test_an_answer_is_right_if_all_its_pieces_are():
    compute = AnswerAccuracy().compute
    predictions = [[0, 5, 6], [0, 5, 6], [7, 0, 0], [0, 0, 0]]
    references = [[_, 5, 6], [_, 5, 9], [7, _, _], [_, _, _]]
    assert compute(predictions=predictions, references=references) == {"accuracy": 0.5}  # no label is wrong
    assert compute(predictions=np.array([[1]]), references=np.array([[1]])) == {"accuracy": 1.0}
    assert compute(predictions=[], references=[]) == {"accuracy": 0.0}


def test_pitch_is_the_larger_of_two_logits():
    predictions = [[2.0, 1.0], [2.0, 1.0], [-3.0, -2.0], [1.0, 1.0], [math.nan, math.nan]]
    assert PitchAccuracy().compute(predictions=predictions, references=[0, 1, 1, 0, 0]) == {"accuracy": 0.4}


def test_tokens_of_spans():
    #                gold two tokens, one found and one too many; ignored tokens do not count
    result = SpanTokenF1().compute(predictions=[[1, 0, 1, 1, 0], [1]], references=[[1, 1, 0, _, 0], [_]])
    assert result == {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    result = SpanTokenF1().compute(predictions=[[1, 1, 1]], references=[[1, 0, 0]])
    assert result == {"precision": pytest.approx(1 / 3), "recall": 1.0, "f1": 0.5}
    assert SpanTokenF1().compute(predictions=[[0]], references=[[0]]) == {"precision": 0, "recall": 0, "f1": 0}


def test_whole_spans():
    predictions = [[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 0, 0]]
    references = [[1, 1, 0, 1], [0, 1, 1, 0], [_, 1, 0, 1]]
    # Found 2 + 1 + 1, right 2 + 0 + 1, gold 2 + 1 + 2.
    result = SpanExactF1().compute(predictions=predictions, references=references)
    assert result == {"precision": 0.75, "recall": 0.6, "f1": pytest.approx(2 * 3 / 9)}
    # What does not count parts two spans.
    assert SpanExactF1().compute(predictions=[[1, 1, 1]], references=[[1, _, 1]])["f1"] == 1


labels = st.lists(st.lists(st.sampled_from([0, 1]), max_size=8), min_size=1, max_size=5)


@settings(max_examples=50, deadline=None)
@given(labels, st.data())
def test_spans_against_counting_by_hand(gold, data):
    found = [data.draw(st.lists(st.sampled_from([0, 1]), min_size=len(row), max_size=len(row))) for row in gold]

    def spans(row):
        text = "".join(map(str, row))
        return {
            (i, j)
            for i in range(len(text))
            for j in range(i + 1, len(text) + 1)
            if text[i:j] == "1" * (j - i) and text[:i][-1:] != "1" and text[j : j + 1] != "1"
        }

    both = sum(len(spans(f) & spans(g)) for f, g in zip(found, gold, strict=True))
    total = sum(len(spans(f)) + len(spans(g)) for f, g in zip(found, gold, strict=True))
    exact = SpanExactF1().compute(predictions=found, references=gold)
    assert exact["f1"] == pytest.approx(2 * both / total if total else 0)
    flat_found, flat_gold = np.array(sum(found, [])), np.array(sum(gold, []))
    total = flat_found.sum() + flat_gold.sum()
    tokens = SpanTokenF1().compute(predictions=found, references=gold)
    assert tokens["f1"] == pytest.approx(2 * (flat_found * flat_gold).sum() / total if total else 0)


def test_a_metric_can_be_used_in_batches_again_and_pickled():
    metric = pickle.loads(pickle.dumps(AnswerAccuracy()))
    for expected in (0.5, 0.5):
        metric.add_batch(predictions=[[1]], references=[[1]])
        metric.add_batch(predictions=[[1, 2]], references=[[1, 3]])
        assert metric.compute() == {"accuracy": expected}
    with pytest.raises(ValueError, match="Mismatch in the number"):
        metric.compute(predictions=[[1]], references=[])


def test_the_unknown_token_is_no_answer():
    logits = torch.tensor([[[9.0, 1.0, 0.0], [0.0, 1.0, 9.0]]])
    label = torch.tensor([[0, -100]])
    assert best_tokens(logits, label, unknown_token_id=0).tolist() == [[1, -100]]
    assert best_tokens(logits, label, unknown_token_id=None).tolist() == [[0, -100]]
    assert logits[0, 0, 0] == 9  # left as it was


def test_pitch_logits_are_those_at_the_first_mask():
    logits = torch.arange(24.0).reshape(2, 3, 4)
    label = torch.tensor([[_, 1, 1], [_, _, _]])
    pairs = pitch_logits(logits, label, (3, 1)).tolist()
    assert pairs[0] == [7.0, 5.0] and all(map(math.isnan, pairs[1]))


def test_a_vocabulary_without_higher_is_refused():
    tokenizer = tiny_tokenizer()
    ids = pitch_token_ids(tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids) == ["higher", "lower"]
    words = {token: index for index, token in enumerate(t for t in tokenizer.get_vocab() if t != "lower")}
    with pytest.raises(ValueError, match=r"makes \['l', '##o', .* of 'lower'"):
        pitch_token_ids(type(tokenizer)(vocab=words))
    with pytest.raises(ValueError, match="`label_names` must be"):
        AuditoryMetrics(tokenizer, ["span_labels", "labels"])


def test_reduced_logits_are_small():
    tokenizer = tiny_tokenizer()
    label = torch.tensor([[_, *pitch_token_ids(tokenizer)]])
    spans = torch.tensor([[_, 1, 0]])
    logits = torch.randn(1, 3, len(tokenizer)), torch.tensor([[[9.0, 0], [0, 9.0], [0.0, 1.0]]])
    reduced = AuditoryMetrics(tokenizer, threshold=0.8).reduce(logits, (label, spans))
    assert {name: tuple(value.shape) for name, value in reduced.items()} == {
        "answers": (1, 3),
        "pitch": (1, 2),
        "spans": (1, 3),
    }
    assert reduced["spans"].tolist() == [[0, 1, 0]]
    assert AuditoryMetrics(tokenizer).reduce(logits, (label, spans))["spans"].tolist() == [[0, 1, 1]]
    assert set(AuditoryMetrics(tokenizer, ["span_labels"]).reduce(logits, spans)) == {"spans"}
    assert set(AuditoryMetrics(tokenizer, ["labels"]).reduce(logits[0], label)) == {"answers", "pitch"}


def test_rows_are_sorted_into_tasks_by_their_answer():
    tokenizer = tiny_tokenizer()
    metrics = AuditoryMetrics(tokenizer, ["labels"])
    higher, lower = metrics.pitch_ids
    label_ids = np.array([[higher, _], [lower, lower], [higher, lower], [_, 30]])
    predictions = {
        "answers": np.array([[30, _], [30, 30], [higher, lower], [_, 31]]),
        "pitch": np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    }
    assert metrics(EvalPrediction(predictions, label_ids)) == {
        "accuracy": 0.5,
        "animal_accuracy": 0.5,
        "pitch_accuracy": 0.5,
    }
    only = {name: values[:1] for name, values in predictions.items()}
    assert metrics(EvalPrediction(only, label_ids[:1])) == {"accuracy": 1.0, "pitch_accuracy": 1.0}


@pytest.fixture
def dev(tmp_path) -> Dataset:
    return load_auditorybench(write_auditorybench(tmp_path))["dev"]


def arguments(folder, **values) -> TrainingArguments:
    return TrainingArguments(folder, per_device_eval_batch_size=2, report_to=[], use_cpu=True, **values)


def test_a_plain_trainer_on_bert(dev, tmp_path):
    tokenizer = tiny_tokenizer()
    model, metrics = tiny_bert(len(tokenizer)), AuditoryMetrics(tokenizer, ["labels"])
    trainer = Trainer(
        model,
        arguments(tmp_path),
        AudioBertDataCollator(tokenizer),
        eval_dataset=tokenize_auditorybench(dev, tokenizer),
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.reduce,
    )
    scores = trainer.evaluate()
    expected = evaluate_model(model, tokenizer, dev, progress=False).scores["data"]
    assert scores["eval_accuracy"] == expected["combined"].accuracy
    assert scores["eval_animal_accuracy"] == expected["animal"].accuracy
    assert scores["eval_pitch_accuracy"] == expected["pitch"].accuracy
    assert "eval_span_f1" not in scores


@pytest.mark.parametrize("label_names", [("labels", "span_labels"), ("span_labels",)])
def test_a_plain_trainer_on_audiobert(dev, tmp_path, label_names):
    model = hearing_audiobert(injection="none")
    metrics = AuditoryMetrics(model.tokenizer, label_names)
    data = tokenize_auditorybench(dev, model.tokenizer)
    if "labels" not in label_names:
        data = data.remove_columns("labels")
    trainer = Trainer(
        model,
        arguments(tmp_path, label_names=list(label_names)),
        AudioBertDataCollator(model.tokenizer),
        eval_dataset=data,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=metrics.reduce,
    )
    scores = trainer.evaluate()
    expected = evaluate_model(model, model.tokenizer, dev, spans="gold", progress=False).scores["data"]["combined"]
    assert 0 < scores["eval_span_f1"] == pytest.approx(expected.span_f1_all_rows)
    assert ("eval_accuracy" in scores) == ("labels" in label_names)
    if "labels" in label_names:
        assert scores["eval_accuracy"] == expected.accuracy

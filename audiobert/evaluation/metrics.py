"""What AuditoryBench is scored by, as `evaluate` metrics that need no hub, and all of them as a Trainer's metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import evaluate
import torch
from datasets import Features, Value
from transformers import EvalPrediction, PreTrainedTokenizerBase

from ..data.auditorybench import MASK, PITCH_ANSWERS
from ..data.batches import IGNORED
from ..data.masking import mask_answers
from ..language_models.masked import decoded
from ..language_models.numbers import refuse_no_numbers

# What a row of a metric's input can be.
_INTEGERS = [Value("int64")]
_NUMBERS = [Value("float64")]
_INTEGER = Value("int64")


class _LocalMetric(evaluate.Metric):
    """A metric whose code is this module; it keeps its data in memory, so it writes no files."""

    row_types: tuple[Any, Any]  # of predictions and references

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        features = Features(dict(zip(("predictions", "references"), self.row_types, strict=True)))
        return evaluate.MetricInfo(description=self.__doc__ or "", citation="", features=features)


class AnswerAccuracy(_LocalMetric):
    """
    The share of rows all word pieces of whose answer are right, from 0 to 1; 0 for no rows.

    `compute(predictions=, references=)` takes for each row a list of token ids, and of labels as long, of which -100
    are left out. A row with no label at all (its mask was cut off) is wrong. Returns `{"accuracy": float}`.
    """

    row_types = (_INTEGERS, _INTEGERS)

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        right = sum(answer_is_right(*row) for row in zip(predictions, references, strict=True))
        return {"accuracy": _ratio(right, len(references))}


class PitchAccuracy(_LocalMetric):
    """
    The share of pitch rows whose answer has the larger logit of the two, from 0 to 1; 0 for no rows.

    `compute(predictions=, references=)` takes for each row the logits of "higher" and "lower", in this order, and the
    answer as the index 0 or 1. Equal logits, or none that is a number, are wrong. Returns `{"accuracy": float}`.
    """

    row_types = (_NUMBERS, _INTEGER)

    def _compute(self, predictions: list[list[float]], references: list[int]) -> dict[str, float]:
        right = sum(pair[answer] > pair[1 - answer] for pair, answer in zip(predictions, references, strict=True))
        return {"accuracy": _ratio(right, len(references))}


class SpanTokenF1(_LocalMetric):
    """
    Precision, recall and F1 of the tokens of auditory spans, from 0 to 1, counted over all rows together.

    `compute(predictions=, references=)` takes for each row a list of 0 and 1 (on tokens of spans), and of labels as
    long, of which -100 are left out. Returns `{"precision": float, "recall": float, "f1": float}`; what has nothing
    to be counted is 0.
    """

    row_types = (_INTEGERS, _INTEGERS)

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return span_token_scores(predictions, references)


class SpanExactF1(_LocalMetric):
    """
    Precision, recall and F1 of whole spans, both ends right, from 0 to 1, counted over all rows together.

    A span is a run of 1; inputs and outputs are those of [`SpanTokenF1`].
    """

    row_types = (_INTEGERS, _INTEGERS)

    def _compute(self, predictions: list[list[int]], references: list[list[int]]) -> dict[str, float]:
        return span_exact_scores(predictions, references)


def span_token_scores(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> dict[str, float]:
    """What `SpanTokenF1` computes, without the table of Arrow that `evaluate` writes for every computation."""
    pairs = [pair for row in zip(predictions, references, strict=True) for pair in _labelled(*row)]
    return _scores(
        both=sum(predicted == label == 1 for predicted, label in pairs),
        predicted=sum(predicted == 1 for predicted, _ in pairs),
        gold=sum(label == 1 for _, label in pairs),
    )


def span_exact_scores(predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]) -> dict[str, float]:
    """What `SpanExactF1` computes, see `span_token_scores`."""
    both = predicted = gold = 0
    for row, labels in zip(predictions, references, strict=True):
        # Places that do not count end a span, too: the mask between two sounds is one.
        row = [value if label != IGNORED else 0 for value, label in zip(row, labels, strict=True)]
        found, wanted = set(_runs(row)), set(_runs(labels))
        both, predicted, gold = both + len(found & wanted), predicted + len(found), gold + len(wanted)
    return _scores(both, predicted, gold)


def answer_is_right(predicted: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether all word pieces of a row are right, as `AnswerAccuracy` counts; of no label at all they are not."""
    pairs = _labelled(predicted, labels)
    return bool(pairs) and all(piece == label for piece, label in pairs)


class AuditoryMetrics:
    """
    All of these over a Trainer's evaluation set:

    ```python
    metrics = AuditoryMetrics(tokenizer)
    Trainer(..., compute_metrics=metrics, preprocess_logits_for_metrics=metrics.reduce)
    ```

    `reduce` keeps, of the logits over the vocabulary, a token per mask and two numbers per row, so that an evaluation
    set of any size fits in memory. Rows are of the pitch task if their answer is "higher" or "lower".

    Args:
        tokenizer: "higher" and "lower" must be one word piece each to it.
        label_names: the Trainer's `label_names`: labels, span_labels, or both in this order.
        threshold: a token belongs to a span above this probability.

    Raises:
        ValueError: for other label names, or if "higher" or "lower" is not one word piece.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        label_names: Sequence[str] = ("labels", "span_labels"),
        threshold: float = 0.5,
    ) -> None:
        if tuple(label_names) not in {("labels",), ("span_labels",), ("labels", "span_labels")}:
            raise ValueError(f"`label_names` must be labels, span_labels or both in this order, got {label_names!r}.")
        self.label_names = tuple(label_names)
        self.threshold = threshold
        self.tokenizer = tokenizer
        # Of the detector alone no answer is scored.
        self.pitch_ids = pitch_token_ids(tokenizer) if "labels" in label_names else (IGNORED, IGNORED)

    def reduce(self, logits: torch.Tensor | tuple[torch.Tensor, ...], labels: Any) -> dict[str, torch.Tensor]:
        """
        Args:
            logits: the model's logits, float `(batch, sequence, vocab)`, or a tuple of them and the span logits, float
                `(batch, sequence, 2)`.
            labels: the tensor of the one label name, or a tuple of those of both.

        Returns:
            answers: int64 `(batch, sequence)`, see `best_tokens`, and pitch: float `(batch, 2)`, see `pitch_logits`,
            if labels are among the label names; spans: int64 `(batch, sequence)`, 1 on detected tokens, if
            span_labels are.

        Raises:
            ValueError: the logits of a label are no numbers, so that there is nothing to score.
        """
        logits = logits if isinstance(logits, tuple) else (logits,)
        by_name = self._by_name(labels)
        reduced = {}
        if "labels" in by_name:
            answers = by_name["labels"][by_name["labels"] != IGNORED]
            at_labels = logits[0][by_name["labels"] != IGNORED]
            refuse_no_numbers("The model", at_labels, lambda place: decoded(self.tokenizer, int(answers[place])))
            reduced["answers"] = best_tokens(logits[0], by_name["labels"], self.tokenizer.unk_token_id)
            reduced["pitch"] = pitch_logits(logits[0], by_name["labels"], self.pitch_ids)
        if "span_labels" in by_name:
            at_labels = logits[1][by_name["span_labels"] != IGNORED]
            refuse_no_numbers("The detector", at_labels, lambda place: f"token {place} of a batch")
            reduced["spans"] = (logits[1].float().softmax(-1)[..., 1] > self.threshold).long()
        return reduced

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """
        Args:
            prediction: the Trainer's, with what `reduce` made of the logits.

        Returns:
            accuracy (over all rows), animal_accuracy and pitch_accuracy (if there are such rows); span_precision,
            span_recall, span_f1 and span_exact_f1.
        """
        by_name, reduced = self._by_name(prediction.label_ids), cast("dict[str, Any]", prediction.predictions)
        scores = {}
        if "labels" in by_name:
            scores.update(self._answers(reduced, by_name["labels"]))
        if "span_labels" in by_name:
            spans = {"predictions": reduced["spans"], "references": by_name["span_labels"]}
            scores.update({f"span_{name}": value for name, value in SpanTokenF1().compute(**spans).items()})
            scores["span_exact_f1"] = SpanExactF1().compute(**spans)["f1"]
        return scores

    def _by_name(self, labels: Any) -> dict[str, Any]:
        return dict(zip(self.label_names, labels if isinstance(labels, tuple) else (labels,), strict=True))

    def _answers(self, predictions: dict[str, Any], labels: Any) -> dict[str, float]:
        answers = [self._pitch_answer({label for label in row if label != IGNORED}) for row in labels.tolist()]
        pitch = [row for row, answer in enumerate(answers) if answer is not None]
        other = [row for row, answer in enumerate(answers) if answer is None]
        scores = {}
        if other:
            scores["animal_accuracy"] = AnswerAccuracy().compute(
                predictions=predictions["answers"][other], references=labels[other]
            )["accuracy"]
        if pitch:
            scores["pitch_accuracy"] = PitchAccuracy().compute(
                predictions=predictions["pitch"][pitch], references=[answers[row] for row in pitch]
            )["accuracy"]
        right = scores.get("animal_accuracy", 0) * len(other) + scores.get("pitch_accuracy", 0) * len(pitch)
        return {"accuracy": _ratio(right, len(answers)), **scores}

    def _pitch_answer(self, pieces: set[int]) -> int | None:
        # A set, as the answer may stand at two masks of one sentence.
        return next((index for index, token in enumerate(self.pitch_ids) if pieces == {token}), None)


def pitch_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """
    The token ids of "higher" and "lower" within a sentence, that is, behind a space.

    Raises:
        ValueError: if one of them is not one known word piece, as their logits could not be compared then.
    """
    masked = mask_answers([f"a {MASK} pitch"] * 2, PITCH_ANSWERS, tokenizer)
    ids = [list(sentence.pieces.values()) for sentence in masked]
    for answer, pieces in zip(PITCH_ANSWERS, ids, strict=True):
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
            raise ValueError(
                f"Pitch is scored by one token each for higher and lower, but the tokenizer makes "
                f"{tokenizer.convert_ids_to_tokens(pieces)} of {answer!r}. Use a vocabulary that holds both words."
            )
    return ids[0][0], ids[1][0]


def best_tokens(logits: torch.Tensor, labels: torch.Tensor, unknown_token_id: int | None) -> torch.Tensor:
    """
    The most probable token at each label, never the unknown one: it is no answer, also where a label is unknown.

    Args:
        logits: float `(batch, sequence, vocab)`.
        labels: int64 `(batch, sequence)`.
        unknown_token_id: left out of the vocabulary, if there is one.

    Returns:
        int64 `(batch, sequence)`, -100 where the label is -100.
    """
    best = torch.full_like(labels, IGNORED)
    labelled = labels != IGNORED
    scores = logits[labelled]
    if unknown_token_id is not None:
        scores[:, unknown_token_id] = -torch.inf
    best[labelled] = scores.argmax(-1)
    return best


def pitch_logits(logits: torch.Tensor, labels: torch.Tensor, pitch_ids: tuple[int, int]) -> torch.Tensor:
    """
    The logits of "higher" and "lower" at the first label of each row.

    Args:
        logits: float `(batch, sequence, vocab)`.
        labels: int64 `(batch, sequence)`.
        pitch_ids: token ids of "higher" and "lower".

    Returns:
        float32 `(batch, 2)`; not a number in rows without a label.
    """
    labelled = labels != IGNORED
    pairs = logits[torch.arange(len(labels)), labelled.int().argmax(1)][:, list(pitch_ids)].float()
    return pairs.masked_fill(~labelled.any(1, keepdim=True), torch.nan)


def answer_scores(logits: torch.Tensor, labels: torch.Tensor, log_probabilities: bool) -> torch.Tensor:
    """
    How much the model is for the answers that are the labels.

    Args:
        logits: float `(batch, sequence, vocab)`.
        labels: int64 `(batch, sequence)`.
        log_probabilities: sum the natural logarithms of the labels' probabilities, not their logits. Only these
            can be compared between two sentences; between two answers at the same masks either gives the same order.

    Returns:
        float32 `(batch,)`; not a number in rows without a label.
    """
    labelled = labels != IGNORED
    scores = logits[labelled].float()
    if log_probabilities:
        scores = scores.log_softmax(-1)
    chosen = scores.gather(1, labels[labelled][:, None])[:, 0]
    total = chosen.new_zeros(len(labels)).index_add(0, labelled.nonzero()[:, 0], chosen)
    return total.masked_fill(~labelled.any(1), torch.nan)


def _labelled(predicted: Sequence[int], labels: Sequence[int]) -> list[tuple[int, int]]:
    return [(value, label) for value, label in zip(predicted, labels, strict=True) if label != IGNORED]


def _runs(values: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = None
    for index, value in enumerate([*values, 0]):
        if value == 1 and start is None:
            start = index
        elif value != 1 and start is not None:
            yield start, index
            start = None


def _scores(both: int, predicted: int, gold: int) -> dict[str, float]:
    return {
        "precision": _ratio(both, predicted),
        "recall": _ratio(both, gold),
        "f1": _ratio(2 * both, predicted + gold),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0

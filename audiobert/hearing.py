"""What is heard at the spans of a row: the recordings that retrieval finds, or in their place those of a control."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from datasets import Dataset, Features, Value
from torch import nn
from transformers import PreTrainedTokenizerBase

from .benchmark.dataset.splitting import normalise_sentence
from .data.batches import IGNORED, NO_SPAN, AudioBertDataCollator, tokenize_auditorybench
from .language_models.masked import decoded
from .language_models.modes import in_evaluation_mode, logits_of_columns
from .language_models.numbers import refuse_no_numbers
from .modeling import AudioBertConfig, AudioBertForMaskedLM, AudioBertKnowledgeBase
from .modeling.injection_audiobert import audio_statistics, is_near, recording_weights, standardized
from .modeling.knowledge_audiobert import Retrieval
from .modeling.labels_audiobert import spoken

Hearing = Literal["retrieved", "random", "other-span", "oracle", "label-text", "blind-clap"]
LABEL_TEXT = "label-text"
BLIND_CLAP = "blind-clap"
# Of the map from CLAP's space to that of the audio embeddings: part of what the control is.
BLIND_SEED = 0

Row = dict[str, Any]
# From a row, the number of one of its spans and what was retrieved for that span: the recordings that are heard.
Chooser = Callable[[Row, int, Retrieval], list[int]]
# What `hear` puts into rows, each for every span.
HEARD_FEATURES = {
    "recordings": [[Value("int64")]],
    "recording_weights": [[Value("float64")]],
    "audio_embeds": [[Value("float32")]],
    "audio_mask": [Value("bool")],
}


def audible_rows(
    model: AudioBertForMaskedLM,
    dataset: Dataset,
    batch_size: int = 64,
    hearing: Hearing = "retrieved",
    seed: int = 0,
) -> Dataset:
    """
    The rows of `load_auditorybench`, tokenized, with what is heard at their spans.

    Args:
        model: whose detector reads the rows of which no span could be aligned.
        dataset: columns sentence, answer, spans and task.
        batch_size: rows that the detector reads at once.
        hearing, seed: see [`hear`].

    Returns:
        The columns of `tokenize_auditorybench` and those that [`hear`] adds, such as `recordings`: for each span the
        indices of its recordings in the model's knowledge base, best first; none of them if the model injects nothing.
    """
    tokenized = tokenize_auditorybench(dataset, tokenizer_of(model), model.config.text_config.max_position_embeddings)
    rows = tokenized.to_list()
    detect(model, [row for row in rows if not row["audio_positions"]], batch_size)
    hear(model, rows, hearing, seed)
    heard = {name: feature for name, feature in HEARD_FEATURES.items() if any(name in row for row in rows)}
    features = {**tokenized.features, **heard}
    columns = {name: [row[name] for row in rows] for name in features}
    return Dataset.from_dict(columns, features=Features(features), split=tokenized.split)


def detect(
    model: AudioBertForMaskedLM,
    rows: Sequence[Row],
    batch_size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """
    Puts into each tokenized row the spans that the model's detector finds: `audio_positions` and `span_texts` in place
    of those that were there, and `detected`, 1 on tokens of spans and 0 on others.

    Args:
        model: with its tokenizer, in any mode.
        rows: of `tokenize_auditorybench`.
        batch_size: rows at once; rows of like length share a batch.
        advance: called with the number of rows that are done.

    Raises:
        ValueError: the detector's logits are no numbers.
    """
    tokenizer = tokenizer_of(model)
    collate = AudioBertDataCollator(tokenizer)
    alike = sorted(rows, key=lambda row: len(row["input_ids"]))
    no_columns = torch.tensor([], dtype=torch.long)
    # Spans are read off BERT's hidden states; its scores of the vocabulary are not needed.
    with torch.no_grad(), in_evaluation_mode(model), logits_of_columns(model, no_columns):
        for start in range(0, len(alike), batch_size):
            chosen = alike[start : start + batch_size]
            inputs = [{name: row[name] for name in tokenizer.model_input_names} for row in chosen]
            batch = {name: value.to(model.device) for name, value in collate(inputs).items()}
            # No positions: the plain pass is all that the detector needs.
            silent = torch.full((len(chosen), 1), NO_SPAN, device=model.device)
            span_logits = model(**batch, audio_positions=silent).span_logits
            attended = span_logits.masked_fill(batch["attention_mask"][..., None] == 0, 0)
            refuse_no_numbers(model, attended, partial(_text_of, tokenizer, chosen))
            found = model.detect_spans(cast(torch.LongTensor, batch["input_ids"]), span_logits, batch["attention_mask"])
            for row, spans in zip(chosen, found, strict=True):
                row["detected"] = [0] * len(row["input_ids"])
                for span in spans:
                    row["detected"][span.start : span.end] = [1] * (span.end - span.start)
                row["audio_positions"] = [span.start for span in spans]
                row["span_texts"] = [span.text for span in spans]
            advance(len(chosen))


def _text_of(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], number: int) -> str:
    return decoded(tokenizer, rows[number]["input_ids"], skip_special_tokens=True)


def hear(
    model: AudioBertForMaskedLM, rows: Sequence[Row], hearing: Hearing = "retrieved", seed: int = 0
) -> list[float | None]:
    """
    Puts into each row what is heard at its spans.

    - retrieved: the recordings that the span's text finds, as in use: none where even the best is too far
      (`config.retrieval_min_similarity`), and with the weights that they have (`config.retrieval_temperature`).
    - random: recordings of the knowledge base drawn for this row and place, whatever the text says.
    - other-span: what was retrieved for another span of the same task in `rows`, drawn for this row and place, were it
      too far for that span or not. The sounds are those of the data, in the wrong places.
    - oracle: recordings drawn among those that bear the right label: the answer's, or in rows of pitch the longest
      label whose words all stand in the span. Where no label fits, what was retrieved. It knows the answer, so it is
      no result: it says what perfect retrieval of labels could bring.
    - label-text: no sound. The label of the best recording is written before the span, in parentheses:
      "(cat) meow is the sound a [MASK] makes." A row that would become too long is left as it is.
    - blind-clap: no sound either. What CLAP's text tower makes of the query takes its place, so that what it brings is
      the text tower's and no recording's: turned into the space of the audio embeddings by a map that is drawn once
      for all and keeps angles, and as long as these are on the mean, standardised or not as they are.

    All of them are silent at the spans at which "retrieved" is, so that they differ in what is heard and not in whether
    something is. Controls that hear recordings take as many as retrieval found for the span, or fewer where there are
    fewer, and the first of theirs weighs as much as the first that was retrieved, and so on. Draws depend on `seed`,
    the sentence, the place and what they are drawn from alone. Rows of one sentence, such as one that is read with
    either answer, hear the same at spans of the same text.

    Args:
        model: with its tokenizer and, unless it injects nothing, its knowledge base.
        rows: tokenized, with `audio_positions`, `span_texts`, sentence, answer and task. Unless the model injects
            nothing they get `recordings`, for each span the indices of its recordings, and if the model weighs them
            `recording_weights`, alike; with "blind-clap" `audio_embeds` and, if the model has a threshold,
            `audio_mask` instead; with "label-text" longer `input_ids` and all that goes with them.
        hearing: one of the above.
        seed: of the draws.

    Returns:
        For each row the mean over its spans of the similarity of what was retrieved; None where nothing was looked up.

    Raises:
        ValueError: if the model cannot hear in this way, or no span differs from the others for "other-span".
    """
    check_hearing(model, hearing)
    if model.config.injection == "none" and hearing != LABEL_TEXT:
        return [None] * len(rows)
    found = _retrievals(model, rows)
    if hearing == LABEL_TEXT:
        _write_labels(model, rows, found)
    elif hearing == BLIND_CLAP:
        _hear_queries(model, rows, found)
    else:
        _hear_recordings(rows, found, model.config, _chooser(model, rows, found, hearing, seed))
    return [_mean_similarity([found[text] for text in row["span_texts"]]) for row in rows]


def _hear_recordings(
    rows: Iterable[Row], found: dict[str, Retrieval], config: AudioBertConfig, choose: Chooser
) -> None:
    for row in rows:
        retrieved = [found[text] for text in row["span_texts"]]
        row["recordings"] = [
            choose(row, place, retrieval) if is_near(retrieval, config) else []
            for place, retrieval in enumerate(retrieved)
        ]
        if config.retrieval_temperature is not None:
            row["recording_weights"] = [
                _of_the_first(recording_weights(retrieval, config) or [], len(recordings))
                for retrieval, recordings in zip(retrieved, row["recordings"], strict=True)
            ]


def _of_the_first(weights: list[float], count: int) -> list[float]:
    """The weights of the first `count`, which sum to 1 again; to the bit those given where that is all of them."""
    total = sum(weights[:count]) if count < len(weights) else 1.0
    return [weight / total for weight in weights[:count]]


def ways_found(model: AudioBertForMaskedLM, rows: Iterable[Row]) -> Counter[str]:
    """
    How the spans of rows were looked up, each as often as it stands there: found "by sound" (the text was nearest to a
    recording itself) or "by name" (to a label), or "too far" to be heard (`config.retrieval_min_similarity`).

    Args:
        model: that injects something, with its knowledge base.
        rows: with `span_texts`.
    """
    rows = list(rows)
    found = _retrievals(model, rows)
    ways: Counter[str] = Counter()
    for retrieval in (found[text] for row in rows for text in row["span_texts"]):
        way = "by name" if retrieval.recordings[0].found_by == "label" else "by sound"
        ways[way if is_near(retrieval, model.config) else "too far"] += 1
    return ways


def _mean_similarity(retrievals: Iterable[Retrieval]) -> float | None:
    best = [found.recordings[0].similarity for found in retrievals]
    values = [similarity for similarity in best if similarity is not None]
    return sum(values) / len(values) if values else None


def tokenizer_of(model: AudioBertForMaskedLM) -> PreTrainedTokenizerBase:
    """
    Raises:
        ValueError: if the model has no tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError("The model has no tokenizer: set `model.tokenizer` to BERT's tokenizer first.")
    return model.tokenizer


def sounds_of(model: AudioBertForMaskedLM) -> AudioBertKnowledgeBase:
    """
    Raises:
        ValueError: if the model has no knowledge base.
    """
    if model.knowledge_base is None:
        raise ValueError("Spans are looked up in a knowledge base: call `model.set_knowledge_base(...)` first.")
    return model.knowledge_base


def check_hearing(model: AudioBertForMaskedLM, hearing: Hearing) -> None:
    """Raises ValueError if the model cannot hear in this way."""
    if hearing not in get_args(Hearing):
        raise ValueError(f"`hearing` must be one of {', '.join(get_args(Hearing))}, got {hearing!r}.")
    silent = model.config.injection == "none"
    if silent and hearing not in ("retrieved", LABEL_TEXT):
        raise ValueError(f"This model hears no sound (its `config.injection` is 'none'), so not {hearing!r} either.")
    if not silent and hearing == LABEL_TEXT:
        raise ValueError("Labels as text go in the place of sound: `config.injection` must be 'none'.")
    if not silent or hearing == LABEL_TEXT:
        sounds_of(model)


def _retrievals(model: AudioBertForMaskedLM, rows: Iterable[Row]) -> dict[str, Retrieval]:
    texts = list(dict.fromkeys(text for row in rows for text in row["span_texts"]))
    return dict(zip(texts, sounds_of(model).search(texts, model.config.retrieval_top_k), strict=True))


def _chooser(
    model: AudioBertForMaskedLM, rows: Sequence[Row], found: dict[str, Retrieval], hearing: Hearing, seed: int
) -> Chooser:
    sounds = sounds_of(model)

    def draw(row: Row, place: int, pool: Sequence[Any], count: int) -> list[Any]:
        return random.Random(f"{seed} {place} {row['sentence']}").sample(pool, min(count, len(pool)))

    if hearing == "random":
        everything = range(len(sounds))
        return _alike_in_a_sentence(lambda row, place, retrieved: draw(row, place, everything, len(retrieved.indices)))
    if hearing == "other-span":
        texts = {task: _distinct_texts(rows, task) for task in dict.fromkeys(row["task"] for row in rows)}

        def of_another_span(row: Row, place: int, retrieved: Retrieval) -> list[int]:
            # Of two different texts at least one is not the span's own.
            other = next(text for text in draw(row, place, texts[row["task"]], 2) if text != row["span_texts"][place])
            return list(found[other].indices[: len(retrieved.indices)])

        return _alike_in_a_sentence(of_another_span)
    if hearing == "oracle":
        by_label = _recordings_by_label(sounds)

        def of_the_label(row: Row, place: int, retrieved: Retrieval) -> list[int]:
            label = right_label(row, place, by_label)
            count = len(retrieved.indices)
            return list(retrieved.indices) if label is None else draw(row, place, by_label[label], count)

        return of_the_label
    return lambda _row, _place, retrieved: list(retrieved.indices)


def _alike_in_a_sentence(choose: Chooser) -> Chooser:
    """
    What the first row of a sentence hears at a span, the others hear at a span of this text. With another answer in the
    place of `[MASK]` the detector can find other spans, so that the same one is in another place among them.
    """
    chosen: dict[tuple[str, str, str, int], list[int]] = {}

    def choose_once(row: Row, place: int, retrieved: Retrieval) -> list[int]:
        text = row["span_texts"][place]
        span = row["task"], row["sentence"], text, row["span_texts"][:place].count(text)
        if span not in chosen:
            chosen[span] = choose(row, place, retrieved)
        return chosen[span]

    return choose_once


def _distinct_texts(rows: Iterable[Row], task: str) -> list[str]:
    texts = list(dict.fromkeys(text for row in rows if row["task"] == task for text in row["span_texts"]))
    if len(texts) == 1:
        raise ValueError(f"All spans of task {task} are {texts[0]!r}: there is no other span whose recording to take.")
    return texts


def _recordings_by_label(sounds: AudioBertKnowledgeBase) -> dict[str, list[int]]:
    by_label: dict[str, list[int]] = {}
    for index in range(len(sounds)):
        label = normalise_sentence(spoken(sounds.recording(index).label))
        by_label.setdefault(label, []).append(index)
    return by_label


def right_label(row: Row, place: int, labels: Iterable[str]) -> str | None:
    """Which of the normalised `labels` is the right one at a span, as [`hear`] says of the oracle; None if none is."""
    if row["task"] == "pitch":
        words = set(normalise_sentence(row["span_texts"][place]).split())
        fitting = [label for label in labels if label and set(label.split()) <= words]
    else:
        fitting = [label for label in labels if label == normalise_sentence(row["answer"])]
    return max(fitting, key=len, default=None)


def _write_labels(model: AudioBertForMaskedLM, rows: Iterable[Row], found: dict[str, Retrieval]) -> None:
    for row in rows:
        retrieved = [found[text] for text in row["span_texts"]]
        labels = [found.recordings[0].label if is_near(found, model.config) else None for found in retrieved]
        write_before_spans(model, row, labels)


def write_before_spans(model: AudioBertForMaskedLM, row: Row, labels: Sequence[str | None]) -> None:
    """
    Writes before each span of a tokenized row, in parentheses, a label; nothing where that is None. A row that would
    become longer than the model reads is left as it is.
    """
    tokenizer = tokenizer_of(model)
    notes = ["" if label is None else f"({spoken(label)})" for label in labels]
    written = [tokenizer(note, add_special_tokens=False)["input_ids"] for note in notes]
    if len(row["input_ids"]) + sum(map(len, written)) > model.config.text_config.max_position_embeddings:
        return
    # All columns with a value per token; what is written counts as no part of the answer or of a span.
    fills = {"attention_mask": 1, "token_type_ids": 0, "labels": IGNORED, "span_labels": IGNORED, "detected": 0}
    columns = [name for name in fills if name in row]
    positions = row["audio_positions"]
    for place in sorted(range(len(positions)), key=positions.__getitem__, reverse=True):
        start, tokens = positions[place], written[place]
        for name in columns:
            row[name] = [*row[name][:start], *[fills[name]] * len(tokens), *row[name][start:]]
        row["input_ids"] = [*row["input_ids"][:start], *tokens, *row["input_ids"][start:]]
    row["audio_positions"] = [
        position + sum(len(tokens) for tokens, other in zip(written, positions, strict=True) if other <= position)
        for position in positions
    ]


# --- no sound, but what the text tower makes of the query ------------------------------------------------------------


def _hear_queries(model: AudioBertForMaskedLM, rows: Iterable[Row], found: dict[str, Retrieval]) -> None:
    embeds = dict(zip(found, blind_embeddings(model, [retrieval.query for retrieval in found.values()]), strict=True))
    for row in rows:
        row["audio_embeds"] = [embeds[text] for text in row["span_texts"]]
        if model.config.retrieval_min_similarity is not None:
            row["audio_mask"] = [is_near(found[text], model.config) for text in row["span_texts"]]


def blind_embeddings(model: AudioBertForMaskedLM, queries: Sequence[str]) -> np.ndarray:
    """
    What "blind-clap" has in the place of audio embeddings, see [`hear`].

    Args:
        model: with its knowledge base.
        queries: texts as they are sent to CLAP, with the template around the span.

    Returns:
        Float32 `(queries, audio_hidden_size)`.
    """
    sounds = sounds_of(model)
    if not queries:
        return np.empty((0, sounds.config.audio_hidden_size), dtype=np.float32)
    turn = torch.empty(sounds.config.clap_width, sounds.config.audio_hidden_size)
    nn.init.orthogonal_(turn, generator=torch.Generator().manual_seed(BLIND_SEED))
    texts = torch.cat([torch.from_numpy(sounds.query_encoder(query)) for query in queries])
    stored = sounds.audio_embeds(range(len(sounds)))
    if model.config.standardize_audio:
        stored = standardized(stored, sounds)
    embeds = nn.functional.normalize(texts @ turn) * stored.norm(dim=1).mean()
    if model.config.standardize_audio:
        # The model takes this back: what it hears is as long as what it hears of recordings.
        mean, deviation = audio_statistics(sounds)
        embeds = embeds * deviation + mean
    return embeds.numpy()
